//! A gigabyte arrives as it was sent.

use anyhow::Result;
use weir_tests::{
    Lab, Settings,
    lab::SERVERS,
    steps::connected,
    traffic::tcp::{self, Direction},
};

const FLOWS: u64 = 8;

#[test]
fn a_gigabyte_each_way_in_eight_flows_keeps_its_sha256() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, _added, _client) = connected(&lab, Settings::default())?;
    let server = tcp::Server::start(&lab.internet)?;
    for direction in [Direction::Up, Direction::Down] {
        let each = 1_000_000_000 / FLOWS;
        tcp::parallel(&lab.consumer, server.at(SERVERS[0]), direction, FLOWS as usize, each)?;
    }
    Ok(())
}
