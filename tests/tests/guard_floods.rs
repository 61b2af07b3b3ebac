//! Floods at the node's port, with a consumer's traffic beside them and a new consumer's first handshake.
#![expect(clippy::print_stdout, reason = "the measured rates are of use to who reads them")]

use std::{net::SocketAddrV4, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Lab, Node, Settings,
    flood::{Flood, Kind, Rates},
    lab::{NODE_V4, SERVERS},
    newcomer::{self, Handshake},
    steps::connected,
    traffic::tcp::{self, Direction},
};

const TO: SocketAddrV4 = SocketAddrV4::new(NODE_V4, 51820);
const RATE: u32 = 200_000;
/// Each of these is answered with a cookie. Of more than the handshake thread can answer, some are
/// lost, and the newcomer's may be among them.
const ANSWERED: u32 = 20_000;
const DIRECT: Duration = Duration::from_secs(1);
/// A newcomer tries again after 5 s. One of its tries may be lost in the flood.
const BY_COOKIE: Duration = Duration::from_secs(11);

#[test]
fn forged_initiations_die_in_the_kernel() -> Result<()> {
    dropped_in_the_kernel(Kind::Forged, "mac1")
}

#[test]
fn data_for_nobody_dies_in_the_kernel() -> Result<()> {
    dropped_in_the_kernel(Kind::DeadIndexes, "unknown_index")
}

#[test]
fn valid_macs_of_one_source_are_held_to_its_rate() -> Result<()> {
    dropped_in_the_kernel(Kind::ValidMacOneSource, "handshake_source_rate")
}

#[test]
fn valid_macs_of_random_sources_leave_a_newcomer_the_way_by_a_cookie() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    let came = during(&lab, &node, Kind::ValidMac, ANSWERED, BY_COOKIE)?;
    ensure!(came.by_cookie, "above the ceiling a cookie is asked for");
    Ok(())
}

#[test]
fn forged_data_for_a_live_session_is_not_billed() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    let victim = node.session_add("victim")?;
    let (private, public) = newcomer::keys_of(&victim.config)?;
    let handshake =
        newcomer::shake_hands(&lab.consumer, TO.into(), private, public, Duration::from_secs(2))?;
    thread::sleep(Duration::from_millis(200));
    let before = node.session_show(&victim.session.id)?;
    during(&lab, &node, Kind::LiveIndex(handshake.node_index), RATE, DIRECT)?;
    let after = node.session_show(&victim.session.id)?;
    ensure!(after.bytes_up == before.bytes_up, "{before:?} {after:?}");
    let dropped = after.guard.dropped_datagrams - before.guard.dropped_datagrams;
    ensure!(dropped > 10_000, "{before:?} {after:?}");
    ensure!(node.drops("xdp", "roaming_rate")? >= dropped);
    // What passes is what a consumer may need that moves.
    let opened = node.drops("crypto", "authentication")? + node.drops("crypto", "replay")?;
    ensure!(opened > 0 && opened * 10 < dropped, "{opened} opened, {dropped} dropped");
    Ok(())
}

#[test]
fn forged_responses_for_a_live_session_die_in_the_kernel() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    let victim = node.session_add("victim")?;
    let (private, public) = newcomer::keys_of(&victim.config)?;
    let handshake =
        newcomer::shake_hands(&lab.consumer, TO.into(), private, public, Duration::from_secs(2))?;
    during(&lab, &node, Kind::Response(handshake.node_index), RATE, DIRECT)?;
    let dropped = node.drops("xdp", "response_rate")?;
    ensure!(dropped > 10_000, "{dropped} dropped");
    let taken = node.drops("handshake", "invalid")?;
    ensure!(taken < 1000, "{taken} came to a worker");
    Ok(())
}

#[test]
fn one_keys_initiations_from_random_sources_leave_the_workers_alone() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    let many = node.session_add("many")?;
    let (private, _) = newcomer::keys_of(&many.config)?;
    during(&lab, &node, Kind::Initiations(private), ANSWERED, BY_COOKIE)?;
    // Each is sent many times, so that most are replays.
    let beyond = node.drops("handshake", "peer_rate")? + node.drops("handshake", "replay")?;
    ensure!(beyond > 500, "{beyond} replays and beyond the key's rate");
    let taken = node.drops("handshake", "invalid")?;
    ensure!(taken < beyond, "{taken} came to a worker, {beyond} did not");
    Ok(())
}

/// A flood of which the guard drops all, for this reason.
fn dropped_in_the_kernel(kind: Kind, reason: &str) -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    during(&lab, &node, kind, RATE, DIRECT)?;
    let dropped = node.drops("xdp", reason)?;
    ensure!(dropped > 10_000, "{dropped} dropped for {reason}");
    Ok(())
}
/// A flood of so many datagrams a second, during which a transfer goes on and a newcomer shakes
/// hands within `timeout`.
fn during(
    lab: &Lab,
    node: &Node<'_>,
    kind: Kind,
    rate: u32,
    timeout: Duration,
) -> Result<Handshake> {
    let newcomer = node.session_add("newcomer")?;
    let (private, public) = newcomer::keys_of(&newcomer.config)?;
    let server = tcp::Server::start(&lab.internet)?;
    let flood = Flood::start(&lab.internet, TO, &public, kind, rate)?;
    // The node counts handshakes by the second, from the flood's beginning. In the middle of a second
    // there were more than it answers without a cookie.
    thread::sleep(Duration::from_millis(1500));
    // The flood's own time, where cores are few, is not the node's.
    let timeout = timeout + Duration::from_millis(500);
    let came = newcomer::shake_hands(&lab.consumer, TO.into(), private, public, timeout);
    tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Up, 2, 5_000_000)?;
    let Rates { sent, taken, core } = flood.stop()?;
    let rates = format!("{kind:?}: {sent:.0}/s ({core:.2} of a core), {taken:.0}/s taken");
    let came = came.with_context(|| format!("{rates}; {:?}", node.status()))?;
    println!("{rates}; a newcomer in {:?}, by a cookie: {}", came.took, came.by_cookie);
    ensure!(taken > 5000.0, "no flood: {rates}");
    Ok(came)
}
