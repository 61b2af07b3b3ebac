//! What the consumer in an emulated machine does: the same traffic as the lab's consumer. It runs
//! in that machine.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use clap::Args;
use weir_tests::{
    Namespace,
    traffic::{
        tcp::{self, Direction},
        udp,
    },
};

/// From nothing to more than fits one packet, in bytes.
const LENGTHS: [usize; 6] = [0, 1, 500, 1372, 1373, 4000];
/// What each TCP connection moves, in bytes.
const TRANSFER: u64 = 2_000_000;

/// Where it goes.
#[derive(Debug, Args)]
pub(crate) struct Traffic {
    /// The namespace that it comes from
    namespace: String,
    /// Servers of TCP transfers
    #[arg(long)]
    tcp: Vec<SocketAddr>,
    /// Servers that send each datagram back
    #[arg(long)]
    udp: Vec<SocketAddr>,
}

impl Traffic {
    /// Moves it, and compares what arrives with what was sent.
    pub(crate) fn run(&self) -> Result<()> {
        let namespace = Namespace::open(&Path::new("/run/netns").join(&self.namespace))?;
        for server in &self.tcp {
            for direction in [Direction::Up, Direction::Down] {
                tcp::parallel(&namespace, *server, direction, 2, TRANSFER)?;
            }
        }
        for server in &self.udp {
            udp::converse(&namespace, *server, &LENGTHS, 2)?;
        }
        Ok(())
    }
}
