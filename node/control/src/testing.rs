//! What tests show and serve.

use weir_accounts::{Boundaries, Boundary, Drops, GuardCount};
use weir_config::limits::EachSession;
use weir_sessions::limits::{LimitsNow, QuotaNow};

use crate::flows::{Egress, FlowView, NatTotals, SessionFlows};
use crate::market::view::{MarketState, MarketView, RelayState, RelayView};
use crate::view::{HostCondition, HostRestored, NodeView, Status};

/// A node that always looks the same.
#[derive(Debug)]
pub struct StillNode;

impl NodeView for StillNode {
    fn purchases(&self) -> Option<crate::purchase::PurchaseCounts> {
        Some(crate::purchase::Counts::default().now())
    }

    fn status(&self) -> Status {
        let batches = [2, 0, 0, 0, 0, 0, 8, 0];
        let boundary = Boundary { super_packets: 10, packets: 440, batches };
        Status {
            version: "0.1.0".to_owned(),
            uptime_seconds: 12.5,
            uplink: "eth0".to_owned(),
            uplink_mtu: 1500,
            xdp_mode: "native".to_owned(),
            receive: "af_xdp".to_owned(),
            egress: self.egress(),
            nat: self.totals(),
            io: "uring".to_owned(),
            sandbox: "off".to_owned(),
            offloads: vec!["UDP GRO on".to_owned()],
            worker_cores: vec![0, 1],
            public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned(),
            endpoint: "192.0.2.1:51820".to_owned(),
            interface: "weir0".to_owned(),
            mtu: 1420,
            sessions: 1,
            max_sessions: 4096,
            limits: LimitsNow {
                rate_down: 200_000_000,
                share_down: 50_000_000,
                each_session: EachSession {
                    session_new_flows: 200,
                    session_destinations: 1000,
                    session_flows: 2048,
                },
                paused_for: Some("quota".to_owned()),
                month: QuotaNow { bytes: 2_000_000_000_000, used: 1_500_000_000_000, resets: 9 },
                ..LimitsNow::default()
            },
            boundaries: Boundaries { udp_receive: boundary, ..Boundaries::default() },
            drops: vec![Drops {
                stage: "crypto".to_owned(),
                reason: "replay".to_owned(),
                packets: u64::MAX,
            }],
            guard: vec![GuardCount { message: "data".to_owned(), datagrams: 440, bytes: u64::MAX }],
            worker_busy_ratio: vec![0.25, 0.5],
            worker_busy_seconds: vec![3.125, 6.25],
            bytes_up: 1 << 30,
            bytes_down: 3 << 30,
            handshakes: 3,
            cookies: 7,
            ledger_age_seconds: 0.5,
            unpaid_bytes: 12_345,
            earned_wei: "1500000000000000000".to_owned(),
            host: vec![HostCondition {
                part: "default_route".to_owned(),
                problem: "IPv4 has no default route".to_owned(),
                fix: "ip -4 route add default via ROUTER dev eth0".to_owned(),
            }],
            restored: vec![HostRestored { part: "policy".to_owned(), times: 2 }],
            host_looks: 60,
            ledger_error: None,
            fleet: Some("connected".to_owned()),
        }
    }

    fn host_parts(&self) -> &'static [&'static str] {
        &["policy", "default_route"]
    }

    fn market(&self) -> Option<MarketView> {
        Some(MarketView {
            state: MarketState::Published,
            key: "ab".repeat(32),
            listing: None,
            event: None,
            published_at: Some(1_800_000_000),
            expires_at: Some(1_800_010_800),
            notes: Vec::new(),
            relays: vec![RelayView {
                url: "wss://registry.example/".to_owned(),
                state: RelayState::Accepted,
                answer: String::new(),
                answered_at: Some(1_800_000_001),
                next_try: None,
                accepted: 3,
                refused: 1,
                failed: 2,
            }],
        })
    }
}

impl FlowView for StillNode {
    fn egress(&self) -> Egress {
        Egress { mode: "bypass".to_owned(), reason: "the uplink allows it".to_owned() }
    }

    fn totals(&self) -> Option<NatTotals> {
        Some(NatTotals {
            tcp: 40,
            udp: 2,
            icmp: 1,
            flow_capacity: 262_144,
            ports_used: 96,
            ports: 28_672,
        })
    }

    fn sessions(&self) -> Vec<SessionFlows> {
        let (one, two) = ("00000000000000a1".to_owned(), "00000000000000a2".to_owned());
        vec![
            SessionFlows { session: one, tcp: 40, blocks: 2, ..SessionFlows::default() },
            SessionFlows { session: two, udp: 2, icmp: 1, blocks: 1, ..SessionFlows::default() },
        ]
    }
}
