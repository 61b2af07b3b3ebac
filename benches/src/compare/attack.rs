//! What can be sent at the node's port beside the load: floods, and the handshakes of others.

use anyhow::Context as _;
use weir_testkit::flood::{Flood, Kind, Rates};
use weir_testkit::rig::NODE;

use super::{
    exit::Exit,
    handshakes::{self, Handshakes},
};

/// Datagrams per second of each attack, if the generator gets that far.
const RATE: u32 = 200_000;

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// Initiations without a valid first MAC.
    Forged,
    /// Initiations with one, from random sources.
    ValidMac,
    /// The same, from one source.
    ValidMacOneSource,
    /// Data for receiver indexes at random.
    DeadIndexes,
    /// Data for the receiver index of the consumer whose traffic is measured, from random sources.
    LiveIndex,
    /// Responses to an initiation of the exit's, forged but for the first MAC, from random sources.
    Responses,
    /// Right initiations of one session's key, from random sources.
    Initiations,
    /// Handshakes of other consumers, a thousand a second: no attack, and all are to be served.
    Handshakes,
}

/// What runs beside the load.
pub(super) enum Beside {
    Flood(Flood),
    Handshakes(Handshakes),
}

impl Beside {
    /// Ends it, and gives what it came to.
    pub(super) fn stop(self) -> anyhow::Result<Rates> {
        match self {
            Self::Flood(flood) => flood.stop(),
            Self::Handshakes(handshakes) => handshakes.stop(),
        }
    }
}

/// What an attacker knows who sees the traffic, and has a session of its own.
#[derive(Clone)]
pub(super) struct Known {
    /// The receiver index of the consumer whose traffic is measured.
    pub(super) live_index: u32,
    /// The index of an initiation of the exit's that has no answer yet.
    pub(super) pending_index: u32,
    /// The private keys of the sessions that are misused.
    pub(super) private_keys: Vec<[u8; 32]>,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Forged,
        Self::ValidMac,
        Self::ValidMacOneSource,
        Self::DeadIndexes,
        Self::LiveIndex,
        Self::Responses,
        Self::Initiations,
        Self::Handshakes,
    ];

    /// Its name, as in the tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged initiations",
            Self::ValidMac => "valid mac1, any source",
            Self::ValidMacOneSource => "valid mac1, one source",
            Self::DeadIndexes => "data, dead indexes",
            Self::LiveIndex => "data, live index",
            Self::Responses => "forged responses",
            Self::Initiations => "initiations of one key",
            Self::Handshakes => "handshakes of others",
        }
    }

    /// How many sessions are part of it, beside those whose traffic is measured.
    #[must_use]
    pub fn sessions(self) -> u32 {
        match self {
            Self::Responses | Self::Initiations => 1,
            Self::Handshakes => handshakes::CONSUMERS,
            _ => 0,
        }
    }

    /// Begins it, from outside the exit.
    pub(super) fn begin(self, exit: &Exit, known: &Known) -> anyhow::Result<Beside> {
        let kind = match self {
            Self::Forged => Kind::Forged,
            Self::ValidMac => Kind::ValidMac,
            Self::ValidMacOneSource => Kind::ValidMacOneSource,
            Self::DeadIndexes => Kind::DeadIndexes,
            Self::LiveIndex => Kind::LiveIndex(known.live_index),
            Self::Responses => Kind::Response(known.pending_index),
            Self::Initiations => {
                Kind::Initiations(*known.private_keys.first().context("no session")?)
            }
            Self::Handshakes => {
                let (from, keys) = (&exit.rig.outside, &known.private_keys);
                return Handshakes::begin(from, NODE, exit.access.key, keys)
                    .map(Beside::Handshakes);
            }
        };
        let begin = || Flood::from_here(NODE, &exit.access.key, kind, RATE);
        exit.rig.outside.enter(begin).map(Beside::Flood)
    }
}
