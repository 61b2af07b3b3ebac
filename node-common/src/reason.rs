//! Why packets are dropped: one enum for kernel and user space, and the labels of the metric.

/// The stage of a packet's path at which it is dropped. Directions are those of the consumer: up is
/// from the consumer to the internet, down is from the internet to the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the kernel, by the XDP guard, before the socket.
    Xdp,
    /// At the worker, before any cryptography.
    Udp,
    /// Handshakes.
    Handshake,
    /// Decryption of transport data messages.
    Crypto,
    /// Decrypted packets, from a consumer to the internet.
    Up,
    /// Packets from the internet to a consumer.
    Down,
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
            Self::Up => "up",
            Self::Down => "down",
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
    /// To the node's port, but not a WireGuard message type, or with non-zero reserved bytes.
    GuardType = 0, Xdp, "message_type";
    /// To the node's port, of a known type, but not of that type's length.
    GuardLength = 1, Xdp, "message_length";
    /// To the node's port, but the headers contradict each other or the frame.
    GuardHeader = 2, Xdp, "malformed_header";
    /// Not a WireGuard message type, or not of that type's length (where no guard has checked it).
    MalformedMessage = 3, Udp, "malformed_message";
    /// Larger than any buffer that the node offers.
    Truncated = 4, Udp, "truncated";
    /// Arrived at another worker than its session's, whose queue was full.
    WorkerQueueFull = 5, Udp, "worker_queue_full";
    /// No session has this receiver index.
    UnknownIndex = 6, Udp, "unknown_index";
    /// The first MAC does not fit the node's public key.
    Mac1 = 7, Handshake, "mac1";
    /// Too many initiations from one source (an IPv4 address or an IPv6 /64).
    HandshakeSourceRate = 8, Handshake, "source_rate";
    /// The queue of initiations was full.
    HandshakeQueueFull = 9, Handshake, "queue_full";
    /// No session has the initiation's static key.
    UnknownPeer = 10, Handshake, "unknown_peer";
    /// The handshake message did not decrypt, is a replay, or answers nothing that we asked.
    HandshakeInvalid = 11, Handshake, "invalid";
    /// There are no session keys for this receiver index, or they have expired.
    NoKeys = 12, Crypto, "no_keys";
    /// The counter is beyond what WireGuard accepts (REJECT_AFTER_MESSAGES).
    CounterLimit = 13, Crypto, "counter_limit";
    /// Received before, or older than the replay window.
    Replay = 14, Crypto, "replay";
    /// The authentication tag is wrong.
    Authentication = 15, Crypto, "authentication";
    /// Decrypted to something that is not a whole IP packet.
    UpMalformed = 16, Up, "malformed";
    /// The inner source is not the address assigned to the session.
    SourceAddress = 17, Up, "source_address";
    /// The TUN device refused the packet.
    TunWrite = 18, Up, "tun_write";
    /// The session is closed or paused.
    SessionState = 19, Up, "session_state";
    /// A packet from the TUN device that contradicts its header, or is not an IP packet.
    DownMalformed = 20, Down, "malformed";
    /// The destination is not the address of any session.
    NoSession = 21, Down, "no_session";
    /// The session has no keys: a handshake was started instead.
    NotConnected = 22, Down, "not_connected";
    /// The consumer's endpoint is not known.
    NoEndpoint = 23, Down, "no_endpoint";
    /// The UDP socket refused the datagrams.
    UdpSend = 24, Down, "udp_send";
    /// The session is closed or paused.
    DownSessionState = 25, Down, "session_state";
    /// Arrived at another worker than its session's, whose queue was full.
    DownWorkerQueueFull = 26, Down, "worker_queue_full";
    /// The first MAC of a handshake message does not fit the node's public key.
    GuardMac1 = 27, Xdp, "mac1";
    /// No session has this receiver index.
    GuardIndex = 28, Xdp, "unknown_index";
    /// The session is closed.
    GuardClosed = 29, Xdp, "closed";
    /// The session is paused, and this is beyond the rate of data that it may still send.
    GuardPaused = 30, Xdp, "paused";
    /// Too many initiations from one source (an IPv4 address or an IPv6 /64).
    GuardHandshakeSourceRate = 31, Xdp, "handshake_source_rate";
    /// The session's credit is used up, and this is not for the gateway.
    Credit = 32, Up, "credit";
    /// The session's credit is used up, and this is not from the gateway.
    DownCredit = 33, Down, "credit";
    /// Beyond the rate of the session, or its share of the node's.
    RateLimit = 34, Up, "rate_limit";
    /// Beyond the rate of the session, or its share of the node's.
    DownRateLimit = 35, Down, "rate_limit";
    /// The session begins more flows than it may.
    NewFlows = 36, Up, "new_flows";
    /// The session sends to more destinations than it may, as a scan does.
    Destinations = 37, Up, "destinations";
    /// An AF_XDP receive ring was full: its worker was too far behind.
    XskRingFull = 38, Udp, "xsk_ring_full";
    /// More initiations from all sources together than the guard passes on this CPU.
    GuardHandshakeCpuRate = 39, Xdp, "handshake_cpu_rate";
    /// Data from another address than the session's endpoint, beyond what a consumer that roams
    /// needs.
    GuardRoaming = 40, Xdp, "roaming_rate";
    /// More handshake responses and cookie replies than the session's handshakes can have.
    GuardResponses = 41, Xdp, "response_rate";
    /// Data from another address than the session's endpoint, beyond what a consumer that roams
    /// needs.
    Roaming = 42, Udp, "roaming_rate";
    /// The session is paused, and this is beyond the rate of data that it may still send.
    Paused = 43, Udp, "paused";
    /// More handshake responses and cookie replies than the session's handshakes can have.
    Responses = 44, Handshake, "response_rate";
    /// Too many initiations with one session's key.
    PeerInitiations = 45, Handshake, "peer_rate";
    /// The session is paused, and this is beyond the rate of answers from the gateway.
    DownPaused = 46, Down, "paused";
    /// The initiation is not newer than the newest one that its session has had.
    HandshakeReplay = 47, Handshake, "replay";
    /// The outer header is marked Congestion Experienced, and the inner packet cannot carry the mark
    /// (RFC 6040, section 4.2).
    Ecn = 48, Up, "ecn";
    /// Received over AF_XDP, from a source that the uplink's network cannot have (what the kernel
    /// calls a martian source).
    MartianSource = 49, Udp, "martian_source";
    /// The exit policy refuses the flow.
    Policy = 50, Up, "policy";
    /// The session has as many open flows as it may, or the flow table is full.
    FlowTable = 51, Up, "flow_table";
    /// No external port is left for the session.
    Ports = 52, Up, "ports";
    /// The packet's hop limit is used up.
    HopLimit = 53, Up, "hop_limit";
    /// A fragment of a packet whose first fragment is not known.
    Fragment = 54, Up, "fragment";
    /// Neither TCP, UDP nor an ICMP message that has a flow.
    Protocol = 55, Up, "protocol";
    /// Larger than the uplink's MTU.
    TooBig = 56, Up, "too_big";
    /// No route, or the next hop's link address is not known yet.
    NextHop = 57, Up, "next_hop";
    /// The uplink refused the packet.
    UplinkSend = 58, Up, "uplink_send";
    /// From the internet, to an external port that no flow has.
    DownNoFlow = 59, Down, "no_flow";
    /// From the internet, to a flow's port, but not from where the flow goes.
    DownFiltered = 60, Down, "filtered";
    /// The packet's hop limit is used up.
    DownHopLimit = 61, Down, "hop_limit";
    /// A fragment of a packet whose first fragment is not known.
    DownFragment = 62, Down, "fragment";
    /// Larger than the MTU inside the tunnel.
    DownTooBig = 63, Down, "too_big";
    /// From the internet, to an address and port of the exit's, while no worker takes it: the node
    /// is starting, or was killed.
    GuardNoWorker = 64, Xdp, "no_worker";
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
