//! What can be sent at the node's port beside the load.

use weir_testkit::flood::{Flood, Kind};
use weir_testkit::rig::NODE;

use super::exit::Exit;

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
}

/// What an attacker knows who sees the traffic, and has a session of its own.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The receiver index of the consumer whose traffic is measured.
    pub(super) live_index: u32,
    /// The index of an initiation of the exit's that has no answer yet.
    pub(super) pending_index: u32,
    /// The private key of a session.
    pub(super) private_key: [u8; 32],
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Forged,
        Self::ValidMac,
        Self::ValidMacOneSource,
        Self::DeadIndexes,
        Self::LiveIndex,
        Self::Responses,
        Self::Initiations,
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
        }
    }

    /// Whether a session beside those whose traffic is measured is part of it.
    #[must_use]
    pub fn misuses_a_session(self) -> bool {
        matches!(self, Self::Responses | Self::Initiations)
    }

    /// Begins it, from outside the exit.
    pub(super) fn begin(self, exit: &Exit, known: &Known) -> anyhow::Result<Flood> {
        let kind = match self {
            Self::Forged => Kind::Forged,
            Self::ValidMac => Kind::ValidMac,
            Self::ValidMacOneSource => Kind::ValidMacOneSource,
            Self::DeadIndexes => Kind::DeadIndexes,
            Self::LiveIndex => Kind::LiveIndex(known.live_index),
            Self::Responses => Kind::Response(known.pending_index),
            Self::Initiations => Kind::Initiations(known.private_key),
        };
        exit.rig.outside.enter(|| Flood::from_here(NODE, &exit.access.key, kind, RATE))
    }
}
