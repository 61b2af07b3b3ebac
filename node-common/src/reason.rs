//! Why packets are dropped: one enum for kernel and user space, and the label of the metric.

/// The stage of the packet's way at which a drop happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the kernel, by the XDP guard, before the socket.
    Xdp,
    /// At the worker, before any cryptography.
    Udp,
    /// Handshakes.
    Handshake,
    /// Decryption of data messages.
    Crypto,
    /// What the decrypted packet says of itself.
    Inner,
    /// Packets from the internet on their way to a consumer.
    Egress,
}

impl Stage {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Udp => "udp",
            Self::Handshake => "handshake",
            Self::Crypto => "crypto",
            Self::Inner => "inner",
            Self::Egress => "egress",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $stage:ident, $text:literal;)*) => {
        /// Why a packet was dropped. Each value is an index into the arrays of counters.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[$doc])* $name = $value,)* }

        impl DropReason {
            /// Every reason, in the order of their values.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stage that drops for this reason.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$name => Stage::$stage,)* }
            }

            /// The label's value: unique within its stage.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// To our port, but of no WireGuard message type, or with reserved bytes that are not zero.
    GuardType = 0, Xdp, "message_type";
    /// To our port, of a known type, but not of that type's length.
    GuardLength = 1, Xdp, "message_length";
    /// To our port, but the headers contradict each other or the frame.
    GuardHeader = 2, Xdp, "malformed_header";
    /// Of no WireGuard message type, or not of that type's length (without XDP before it).
    Message = 3, Udp, "message";
    /// Larger than any buffer that the node offers.
    Truncated = 4, Udp, "truncated";
    /// The owner's queue of packets that arrived at another worker was full.
    HandoverFull = 5, Udp, "handover_full";
    /// The receiver index is nobody's.
    UnknownIndex = 6, Udp, "unknown_index";
    /// The first MAC does not fit our public key.
    Mac1 = 7, Handshake, "mac1";
    /// Too many initiations from one prefix.
    HandshakeRate = 8, Handshake, "rate";
    /// The queue of initiations was full.
    HandshakeQueueFull = 9, Handshake, "queue_full";
    /// The initiation is of a key that has no session here.
    UnknownPeer = 10, Handshake, "unknown_peer";
    /// The handshake message did not decrypt, is a replay, or answers nothing that we asked.
    HandshakeInvalid = 11, Handshake, "invalid";
    /// No keys for this receiver index (any more).
    NoKeys = 12, Crypto, "no_keys";
    /// The counter is beyond what WireGuard accepts (REJECT_AFTER_MESSAGES).
    CounterLimit = 13, Crypto, "counter_limit";
    /// Received before, or too old to tell.
    Replay = 14, Crypto, "replay";
    /// The authentication tag is wrong.
    Authentication = 15, Crypto, "authentication";
    /// Decrypted to something that is not a whole IP packet.
    InnerMalformed = 16, Inner, "malformed";
    /// The inner source is not the address assigned to the session.
    SourceAddress = 17, Inner, "source_address";
    /// The TUN device refused the packet.
    TunWrite = 18, Inner, "tun_write";
    /// The session is closed or paused.
    SessionState = 19, Inner, "session_state";
    /// A frame from the TUN device that contradicts itself or is no IP packet.
    TunFrame = 20, Egress, "tun_frame";
    /// The destination is no session's address.
    NoSession = 21, Egress, "no_session";
    /// The session has no keys: a handshake was started instead.
    NotConnected = 22, Egress, "not_connected";
    /// It is not known where the consumer is.
    NoEndpoint = 23, Egress, "no_endpoint";
    /// The UDP socket refused the datagrams.
    UdpSend = 24, Egress, "udp_send";
    /// The session is closed or paused.
    EgressState = 25, Egress, "session_state";
    /// The owner's queue of frames that arrived at another worker was full.
    EgressHandoverFull = 26, Egress, "handover_full";
    /// The first MAC of a handshake message does not fit our public key.
    GuardMac1 = 27, Xdp, "mac1";
    /// The receiver index is nobody's.
    GuardIndex = 28, Xdp, "unknown_index";
    /// The session is closed.
    GuardClosed = 29, Xdp, "closed";
    /// The session is paused, and this is beyond the trickle of data that it still may send.
    GuardPaused = 30, Xdp, "paused";
    /// Too many initiations from one source (an IPv4 address or an IPv6 /64).
    GuardHandshakeRate = 31, Xdp, "handshake_rate";
    /// The session's credit is used up, and this is not for the gateway.
    Credit = 32, Inner, "credit";
    /// The session's credit is used up, and this is not from the gateway.
    EgressCredit = 33, Egress, "credit";
    /// Beyond the rate of the session, or its share of the node's.
    RateLimit = 34, Inner, "rate_limit";
    /// Beyond the rate of the session, or its share of the node's.
    EgressRateLimit = 35, Egress, "rate_limit";
    /// The session begins more flows than it may.
    NewFlows = 36, Inner, "new_flows";
    /// The session reaches for more destinations than it may, as a scan does.
    Destinations = 37, Inner, "destinations";
    /// The worker was too far behind to take more that came the direct way.
    DirectFull = 38, Udp, "direct_full";
    /// More initiations of all sources together than the guard lets through on this CPU.
    GuardHandshakeCeiling = 39, Xdp, "handshake_ceiling";
    /// Data from another address than the session's endpoint, beyond what a consumer that moves
    /// needs.
    GuardRoaming = 40, Xdp, "roaming_rate";
    /// More handshake responses and cookie replies than the session's handshakes can have.
    GuardResponses = 41, Xdp, "response_rate";
    /// Data from another address than the session's endpoint, beyond what a consumer that moves
    /// needs.
    Roaming = 42, Udp, "roaming_rate";
    /// The session is paused, and this is beyond the trickle of data that it still may send.
    Paused = 43, Udp, "paused";
    /// More handshake responses and cookie replies than the session's handshakes can have.
    Responses = 44, Handshake, "response_rate";
    /// Too many initiations of one session's key.
    PeerInitiations = 45, Handshake, "peer_rate";
    /// The session is paused, and this is beyond the trickle of answers from the gateway.
    EgressPaused = 46, Egress, "paused";
    /// The initiation is not newer than the newest one that its session has had.
    HandshakeReplay = 47, Handshake, "replay";
    /// Congestion was experienced on the way, and the packet cannot carry the mark (RFC 6040,
    /// section 4.2).
    Ecn = 48, Inner, "ecn";
    /// Came the direct way from a source that the uplink's network cannot have.
    DirectSource = 49, Udp, "direct_source";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_indexes_and_labels_are_unique() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let same = |other: &&DropReason| {
                other.stage() == reason.stage() && other.as_str() == reason.as_str()
            };
            assert_eq!(DropReason::ALL.iter().filter(same).count(), 1, "{reason:?}");
        }
    }
}
