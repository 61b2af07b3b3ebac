//! Floods at the node's port, with a consumer's traffic beside them and a new consumer at the door.
#![expect(clippy::print_stdout, reason = "the measured rates are of use to who reads them")]

use std::{net::SocketAddrV4, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weir::session::keys;
use weir_tests::{
    Lab, Settings,
    flood::{Flood, Kind},
    lab::{NODE_V4, SERVERS},
    newcomer::{self, Handshake},
    suite::connected,
    traffic::tcp::{self, Way},
    wgquick::WgQuick,
};

const RATE: u32 = 200_000;
/// The guard lets it through, so that each costs the handshake thread.
const RATE_OF_VALID: u32 = 20_000;

#[test]
fn forged_initiations_die_in_the_kernel() -> Result<()> {
    during(Kind::Forged, RATE, "mac1", Duration::from_secs(1))
}

#[test]
fn data_for_nobody_dies_in_the_kernel() -> Result<()> {
    during(Kind::DeadIndexes, RATE, "unknown_index", Duration::from_secs(1))
}

#[test]
fn valid_macs_of_one_source_are_held_to_its_rate() -> Result<()> {
    during(Kind::ValidMacOneSource, RATE, "handshake_rate", Duration::from_secs(1))
}

#[test]
fn valid_macs_of_random_sources_leave_a_newcomer_the_way_by_a_cookie() -> Result<()> {
    during(Kind::ValidMac, RATE_OF_VALID, "", Duration::from_secs(6))
}

#[test]
fn forged_data_for_a_live_session_is_not_billed() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    let other = node.session_add("other")?;
    let (private, public) = keys_of(&other.config)?;
    let to = SocketAddrV4::new(NODE_V4, 51820);
    let patience = Duration::from_secs(2);
    let handshake = newcomer::shake_hands(&lab.consumer, to.into(), private, public, patience)?;
    thread::sleep(Duration::from_millis(200));
    let before = node.session_show(&other.session.id)?;
    let kind = Kind::LiveIndex(handshake.node_index);
    let flood = Flood::start(&lab.internet, to, &public, kind, RATE_OF_VALID)?;
    thread::sleep(Duration::from_secs(2));
    let rate = flood.stop()?;
    thread::sleep(Duration::from_millis(500));
    let after = node.session_show(&other.session.id)?;
    println!("{kind:?}: {rate:.0}/s");
    ensure!(after.bytes_up == before.bytes_up, "{before:?} {after:?}");
    ensure!(after.kernel.datagrams > before.kernel.datagrams + 10_000, "{before:?} {after:?}");
    ensure!(node.drops("crypto", "authentication")? + node.drops("crypto", "replay")? > 1000);
    Ok(())
}

/// A flood, during which a transfer goes on and a newcomer shakes hands.
fn during(kind: Kind, rate: u32, reason: &str, patience: Duration) -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    let newcomer = node.session_add("newcomer")?;
    let (private, public) = keys_of(&newcomer.config)?;
    let to = SocketAddrV4::new(NODE_V4, 51820);
    let server = tcp::Server::start(&lab.internet)?;
    let flood = Flood::start(&lab.internet, to, &public, kind, rate)?;
    thread::sleep(Duration::from_secs(1));
    // Slower than wanted is still a flood; its own time is not the node's.
    let patience = patience + Duration::from_millis(500);
    let came = newcomer::shake_hands(&lab.consumer, to.into(), private, public, patience);
    tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Way::Up, 2, 5_000_000)?;
    let rate = flood.stop()?;
    let Handshake { took, by_cookie, .. } =
        came.with_context(|| format!("{kind:?} at {rate:.0}/s; {:?}", node.status()))?;
    println!("{kind:?}: {rate:.0}/s, a newcomer in {took:?}, by a cookie: {by_cookie}");
    ensure!(rate > 5000.0, "no flood: {rate:.0}/s");
    if reason.is_empty() {
        ensure!(by_cookie, "above the ceiling a cookie is asked for");
    } else {
        let dropped = node.drops("xdp", reason)?;
        ensure!(dropped > 10_000, "{dropped} dropped for {reason}");
    }
    Ok(())
}

/// The consumer's private and the node's public key.
fn keys_of(config: &str) -> Result<([u8; 32], [u8; 32])> {
    let wg = WgQuick::parse(config)?.wg;
    let key = |name: &str| {
        let line = wg.lines().find_map(|line| line.strip_prefix(name));
        let (_, text) = line.and_then(|line| line.split_once('=')).context("no such key")?;
        anyhow::Ok(text.trim().to_owned())
    };
    let private = keys::PrivateKey::parse(&key("PrivateKey")?)?.secret().to_bytes();
    Ok((private, keys::parse_public(&key("PublicKey")?)?.0))
}
