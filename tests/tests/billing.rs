//! What is billed is what the consumer itself counts.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::{
    Lab, Settings,
    lab::SERVERS,
    steps::connected,
    traffic::{
        tcp::{self, Direction},
        udp,
    },
    until,
};

#[test]
fn billed_bytes_equal_the_clients_without_handshakes() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, client) = connected(&lab, Settings::default())?;
    for address in SERVERS {
        client.ping(address, 50)?;
        let echo = udp::Echo::start(&lab.internet, address)?;
        // One datagram at a time, so that none is lost between the two counts.
        udp::converse(&lab.consumer, echo.at(address), &[0, 1, 16, 100, 1372], 50)?;
    }
    // A keepalive may be on its way between two counts, so they are compared until they agree.
    until("both ends agree", Duration::from_secs(15), || {
        let (theirs, ours) = (client.transfer()?, node.session_show(&added.session.id)?);
        ensure!(theirs.sent == ours.bytes_up + ours.handshake_bytes_up, "{theirs:?} {ours:?}");
        ensure!(
            theirs.received == ours.bytes_down + ours.handshake_bytes_down,
            "{theirs:?} {ours:?}"
        );
        ensure!(ours.bytes_up > 150_000 && ours.bytes_down > 150_000, "{ours:?}");
        Ok(())
    })
}

#[test]
fn billed_bytes_are_never_more_than_the_client_sent_or_the_kernel_saw() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, client) = connected(&lab, Settings::default())?;
    let server = tcp::Server::start(&lab.internet)?;
    for direction in [Direction::Up, Direction::Down] {
        tcp::parallel(&lab.consumer, server.at(SERVERS[0]), direction, 4, 20_000_000)?;
    }
    let ours = node.session_show(&added.session.id)?;
    let theirs = client.transfer()?;
    assert!(ours.bytes_up + ours.handshake_bytes_up <= theirs.sent, "{ours:?} {theirs:?}");
    let ours = node.session_show(&added.session.id)?;
    assert!(ours.bytes_up <= ours.guard.bytes, "{ours:?}");
    let received = client.transfer()?.received;
    let ours = node.session_show(&added.session.id)?;
    assert!(received <= ours.bytes_down + ours.handshake_bytes_down, "{ours:?} {received}");
    // Not by counting nothing: 80 MB each way.
    assert!(ours.bytes_up > 80_000_000 && ours.bytes_down > 80_000_000, "{ours:?}");
    Ok(())
}

#[test]
fn metrics_show_the_same_bytes_as_the_session() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("api", "per_session_metrics", "true");
    let (node, added, client) = connected(&lab, settings)?;
    client.ping(SERVERS[0], 20)?;
    until("the metrics agree", Duration::from_secs(15), || {
        let shown = node.session_show(&added.session.id)?;
        let page = node.metrics()?;
        for (direction, bytes) in [("up", shown.bytes_up), ("down", shown.bytes_down)] {
            let labels = format!("session=\"{}\",direction=\"{direction}\"", shown.id);
            let wanted = format!("weir_session_bytes_total{{{labels}}} {bytes}");
            ensure!(
                bytes > 0 && page.lines().any(|line| line == wanted),
                "no {wanted} in:\n{page}"
            );
        }
        Ok(())
    })
}
