//! How consumers' packets leave, and the flows that the node translates: how many, never where to.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use toml::value::{Datetime, Offset};
use weir_ledger::{BlockEvent, BlockSpan};
use weir_sessions::limits::calendar::first_of;

/// How consumers' packets leave, and why so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// `bypass` (the node's own NAT, past the kernel's network stack) or `kernel`.
    pub mode: String,
    /// Why, in words.
    pub reason: String,
}

impl Egress {
    /// Every mode that there can be.
    pub const MODES: [&str; 2] = ["bypass", "kernel"];
}

/// The use of the node's flow table and of its external ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatTotals {
    /// Open TCP flows.
    pub tcp: u64,
    /// Open UDP flows.
    pub udp: u64,
    /// Open ICMP flows.
    pub icmp: u64,
    /// How many flows there can be.
    pub flow_capacity: u64,
    /// External ports in blocks that sessions hold, of all addresses together.
    pub ports_used: u64,
    /// External ports that there are, of all addresses together.
    pub ports: u64,
}

impl NatTotals {
    /// All open flows.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.tcp.saturating_add(self.udp).saturating_add(self.icmp)
    }
}

/// The open flows of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFlows {
    /// The session's identifier.
    pub session: String,
    /// Open TCP flows.
    pub tcp: u64,
    /// Open UDP flows.
    pub udp: u64,
    /// Open ICMP flows.
    pub icmp: u64,
    /// Blocks of external ports that it holds.
    pub blocks: u64,
}

impl SessionFlows {
    /// All its open flows.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.tcp.saturating_add(self.udp).saturating_add(self.icmp)
    }
}

/// The answer to `GET /v1/flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsView {
    /// How consumers' packets leave.
    pub egress: Egress,
    /// The use of the node's table; `None` where the kernel translates.
    pub nat: Option<NatTotals>,
    /// The sessions that have flows or blocks; none where the kernel translates.
    pub sessions: Vec<SessionFlows>,
}

/// Reads the flows that the node translates.
pub trait FlowView: Send + Sync {
    /// How consumers' packets leave now.
    fn egress(&self) -> Egress;

    /// The use of the flow table; `None` where the kernel translates. Cheap: each look at the
    /// status asks.
    fn totals(&self) -> Option<NatTotals>;

    /// The sessions that have flows or blocks, in any order.
    fn sessions(&self) -> Vec<SessionFlows>;

    /// Whether [`FlowView::take_block_events`] would return any.
    fn has_block_events(&self) -> bool {
        false
    }

    /// The blocks of ports that sessions have taken and given back since the last call, in order:
    /// for the ledger, about once a second. None where the kernel translates.
    fn take_block_events(&self) -> Vec<BlockEvent> {
        Vec::new()
    }
}

/// A shared [`FlowView`].
pub type SharedFlowView = Arc<dyn FlowView>;

/// Who held a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOwner {
    /// The session's identifier.
    pub session: String,
    /// The external address.
    pub address: IpAddr,
    /// The first port of the block.
    pub first_port: u16,
    /// The last port of the block.
    pub last_port: u16,
    /// The second in which the session took the block, since 1970.
    pub since: u64,
    /// The second in which it gave the block back; `None` while it holds it.
    pub until: Option<u64>,
}

impl From<BlockSpan> for PortOwner {
    fn from(span: BlockSpan) -> Self {
        let last = u32::from(span.ports.first).saturating_add(span.ports.length.saturating_sub(1));
        Self {
            session: span.session.to_string(),
            address: span.ports.address,
            first_port: span.ports.first,
            last_port: u16::try_from(last).unwrap_or(u16::MAX),
            since: span.since,
            until: span.until,
        }
    }
}

/// The answer to `GET /v1/flows/owner`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOwners {
    /// Who held the port at that time, the first first. None: nobody, or nobody that the ledger
    /// still knows of. Two: the block went from one to the other within that second.
    pub owners: Vec<PortOwner>,
}

/// Why a text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time: write it with its time zone, for example 2026-11-29T13:45:10Z or \
     2026-11-29T14:45:10+01:00, or in seconds since 1970"
)]
pub struct NotATime(String);

/// Reads a time (RFC 3339, or seconds since 1970) as seconds since 1970. A fraction of a second is
/// cut off.
///
/// # Errors
///
/// When it is neither, or has no time zone.
pub fn read_time(text: &str) -> Result<u64, NotATime> {
    let wrong = || NotATime(text.to_owned());
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong());
    }
    let Ok(Datetime { date: Some(date), time: Some(time), offset: Some(offset) }) = text.parse()
    else {
        return Err(wrong());
    };
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let seconds = i64::from(time.hour) * 3600
        + i64::from(time.minute) * 60
        + i64::from(time.second.unwrap_or(0));
    let days = first_of(date.year.into(), date.month.into()) + i64::from(date.day) - 1;
    u64::try_from(days * 86_400 + seconds - minutes * 60).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone() {
        for (text, seconds) in [
            ("0", 0),
            ("1700000000", 1_700_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14 22:13:20.999Z", 1_700_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000),
            ("2023-11-14T16:43:20-05:30", 1_700_000_000),
            ("2024-03-01T00:00:00Z", 1_709_251_200),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(read_time(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_refused_and_so_is_what_is_none() {
        for text in [
            "",
            "-5",
            "yesterday",
            "2023-11-14",
            "22:13:20",
            "2023-11-14T22:13:20",
            "2023-13-14T22:13:20Z",
            "2023-11-14T25:13:20Z",
            "1969-12-31T23:59:59Z",
            "99999999999999999999",
        ] {
            let error = read_time(text).expect_err(text).to_string();
            assert!(error.contains("with its time zone"), "{error}");
        }
    }

    #[test]
    fn the_last_port_of_a_block_is_its_own() {
        let span = |first, length| BlockSpan {
            session: weir_ledger::SessionId::new(7).expect("not zero"),
            ports: weir_ledger::Ports { address: [192, 0, 2, 1].into(), first, length },
            since: 1,
            until: None,
        };
        assert_eq!(PortOwner::from(span(4096, 32)).last_port, 4127);
        assert_eq!(PortOwner::from(span(0, 65536)).last_port, 65535);
        assert_eq!(PortOwner::from(span(4096, 32)).session, "0000000000000007");
    }
}
