//! The largest packets that the kernel puts together come apart as they were.

use anyhow::{Result, ensure};
use weir_tests::{
    Lab, Settings,
    lab::{SERVER_V4, SERVER_V6},
    steps::connected,
    traffic::burst::Burst,
};

#[test]
fn the_last_datagram_of_the_largest_super_packet_arrives_as_it_was_sent() -> Result<()> {
    for io in ["uring", "uring-single", "syscall"] {
        let lab = Lab::new()?;
        // Without the guard, a sender's super-packet stays one on the lab's links.
        let settings = Settings::default()
            .with("node", "io", &format!("{io:?}"))
            .with("node", "xdp", "\"off\"")
            .with("node", "workers", "1");
        let (node, _added, client) = connected(&lab, settings)?;
        for (server, segment, total) in [
            (SERVER_V4.into(), 1200, 65_507),
            (SERVER_V4.into(), 1310, 65_500),
            (SERVER_V6.into(), 1284, 65_484),
            (SERVER_V6.into(), 1129, 65_482),
        ] {
            client.wait_connected(server)?;
            let burst = Burst { segment, total };
            let before = node.status()?.boundaries.tun_read.batches;
            let at = burst.serve(&lab.internet, server)?;
            burst.ask(&lab.consumer, at, 20)?;
            let after = node.status()?.boundaries.tun_read.batches;
            // More than 32 packets in one.
            ensure!(after[6] > before[6], "{io}: no super-packet came: {before:?} {after:?}");
        }
    }
    Ok(())
}
