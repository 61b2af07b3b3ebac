//! What the exit policy is asked: once for each flow.

use std::net::IpAddr;

/// The transport protocol of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// ICMP or ICMPv6: echo.
    Icmp = 1,
    /// TCP.
    Tcp = 6,
    /// UDP.
    #[default]
    Udp = 17,
}

/// The first packet of a flow, or a packet of a flow that was judged by an older policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// Where it goes.
    pub address: IpAddr,
    /// To which port. 0 for ICMP.
    pub port: u16,
    /// By which protocol.
    pub protocol: Protocol,
}

/// The exit policy. It counts itself what it refuses, by rule.
pub trait Policy: Send + Sync {
    /// Whether the flow may leave.
    fn allows(&self, flow: &NewFlow) -> bool;
}

/// Allows every flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn allows(&self, _: &NewFlow) -> bool {
        true
    }
}
