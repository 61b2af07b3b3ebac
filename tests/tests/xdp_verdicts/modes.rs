//! The same frames over a real interface: in the driver, and in the kernel's generic path.

use std::time::{Duration, Instant};

use weir_common::packet::{Class, Verdict};
use weir_ebpf_loader::{Guard, XdpMode, XdpPolicy};
use weir_tests::frames::FrameSender;

use super::{Loaded, config, every_verdict, fixtures, receiver_index};

const MTU: usize = 9000;

fn ip(arguments: &str) -> String {
    let mut command = std::process::Command::new("ip");
    let output = command.args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn index_of(interface: &str) -> u32 {
    let link = ip(&format!("-o link show dev {interface}"));
    link.split(':').next().and_then(|index| index.parse().ok()).expect("an index")
}

/// Frames of each verdict, and their bytes.
fn tally(guard: &Guard) -> Vec<(Verdict, u64, u64)> {
    let counts = guard.counts().expect("counts");
    let of = |verdict| {
        let count = counts.of(verdict);
        (verdict, count.datagrams, count.bytes)
    };
    // What is nothing of ours is also what the kernel sends by itself.
    every_verdict().filter(|verdict| *verdict != Verdict::Pass(Class::Other)).map(of).collect()
}

#[test]
fn the_driver_and_the_generic_path_give_every_fixture_its_verdict() {
    #[expect(deprecated, reason = "the namespace is left by the thread's end only")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("run as root");
    ip("link add up0 type veth peer name out0");
    for end in ["up0", "out0"] {
        ip(&format!("link set {end} mtu {MTU} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
    let sender = FrameSender::new(index_of("out0")).expect("a packet socket");
    for (policy, mode) in
        [(XdpPolicy::Native, XdpMode::Native), (XdpPolicy::Generic, XdpMode::Generic)]
    {
        let mut loaded = Loaded::new(config(), false);
        let guard = loaded.guard.as_mut().expect("loaded");
        assert_eq!(guard.attach(index_of("up0"), policy).expect("attaches"), mode);
        let guard = loaded.guard();
        let fixtures = fixtures::all(receiver_index(5));
        let mut sent = 0;
        let mut differ = Vec::new();
        for fixture in &fixtures {
            // Shorter than a header, longer than the interface's: not to be sent.
            if fixture.frame.len() < 15 || fixture.frame.len() > MTU {
                continue;
            }
            let mut wanted = tally(guard);
            let bytes = fixture.payload.unwrap_or(fixture.frame.len()) as u64;
            for (verdict, datagrams, sum) in &mut wanted {
                if *verdict == fixture.verdict {
                    (*datagrams, *sum) = (*datagrams + 1, *sum + bytes);
                }
            }
            loaded.fill_buckets(5);
            sender.send(&fixture.frame).expect("sent");
            sent += 1;
            let end = Instant::now() + Duration::from_secs(2);
            while tally(guard) != wanted && Instant::now() < end {
                std::thread::yield_now();
            }
            if tally(guard) != wanted {
                let got: Vec<_> =
                    tally(guard).into_iter().filter(|line| !wanted.contains(line)).collect();
                differ.push(format!("{}: {:?}, got {got:?}", fixture.name, fixture.verdict));
                if differ.len() > 8 {
                    break;
                }
            }
        }
        assert!(differ.is_empty(), "{mode:?}: {differ:#?}");
        assert!(sent > 480, "only {sent} of {} frames could be sent", fixtures.len());
    }
}
