//! Every meter of what arrives: how much a session or a source may have done for it before a
//! message has shown that it is authentic, or while nobody pays for it. A message that is not
//! metered here costs no more than a hash and a look into an array. docs/guard.md lists each kind
//! of message with its meter.
//!
//! The guard and the worker behind it take from buckets of their own by the same rates: without a
//! guard the worker's are the only ones.

use crate::{DropReason, gcra::Rate};

/// Data of a paused session: enough to pay through the tunnel.
pub const PAUSED_DATA: Rate = Rate::new(100, 20);

/// Packets to a paused session from the gateway: answers to [`PAUSED_DATA`]. The burst is larger,
/// since an answer may be longer than its question, and TCP begins with ten segments.
pub const PAUSED_ANSWERS: Rate = Rate::new(100, 64);

/// Data for a session from another address than its endpoint, each of which costs a decryption.
/// The first that is authentic moves the endpoint there (whitepaper, section 2.1). The burst
/// carries what a consumer sends until then: Linux alone keeps 128 packets for the end of a
/// handshake (`MAX_STAGED_PACKETS`, `drivers/net/wireguard/messages.h`).
pub const ROAMING_DATA: Rate = Rate::new(250, 128);

/// Handshake responses and cookie replies for a session. A response costs two scalar
/// multiplications, of which a core does some 16,000 a second. A node asks for one every 5 seconds
/// (`REKEY_TIMEOUT`; whitepaper, section 6.1) of a peer.
pub const RESPONSES: Rate = Rate::new(5, 10);

/// Initiations of one session's key, each of which costs a handshake thread one scalar
/// multiplication and a worker four. Linux takes as many a second
/// (`INITIATIONS_PER_SECOND`, `drivers/net/wireguard/messages.h`).
pub const PEER_INITIATIONS: Rate = Rate::new(50, 20);

/// Whether a message comes from where its session was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the session's endpoint.
    Endpoint,
    /// From another address or port, or the session has no endpoint yet.
    Elsewhere,
}

/// A bucket that each session has in the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// Of [`PAUSED_DATA`].
    PausedData,
    /// Of [`ROAMING_DATA`].
    RoamingData,
    /// Of [`RESPONSES`].
    Responses,
}

impl Meter {
    /// What it lets through. Of handshake messages from elsewhere only half of the bucket is for:
    /// a flood from random sources leaves the other half to the session's own.
    #[must_use]
    #[inline(always)]
    pub const fn rate(self, origin: Origin) -> Rate {
        match (self, origin) {
            (Self::PausedData, _) => PAUSED_DATA,
            (Self::RoamingData, _) => ROAMING_DATA,
            (Self::Responses, Origin::Endpoint) => RESPONSES,
            (Self::Responses, Origin::Elsewhere) => RESPONSES.half(),
        }
    }

    /// Why the guard drops what is beyond it.
    #[must_use]
    #[inline(always)]
    pub const fn refusal(self) -> DropReason {
        match self {
            Self::PausedData => DropReason::GuardPaused,
            Self::RoamingData => DropReason::GuardRoaming,
            Self::Responses => DropReason::GuardResponses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gcra::Gcra;

    #[test]
    fn a_flood_from_elsewhere_leaves_the_endpoint_half_of_its_responses() {
        let (mut bucket, start) = (Gcra::default(), 1_000_000_000_000);
        let mut take = |origin, now| bucket.take(Meter::Responses.rate(origin), now);
        let mut taken = |origin, now| (0..1000).filter(|_| take(origin, now)).count();
        assert_eq!(taken(Origin::Elsewhere, start), 5);
        assert_eq!(taken(Origin::Endpoint, start), 5);
        // A second later there are five again, of which none is for others.
        assert_eq!(taken(Origin::Elsewhere, start + 1_000_000_000), 0);
        assert_eq!(taken(Origin::Endpoint, start + 1_000_000_000), 5);
    }
}
