//! What follows from the keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_common::AddressPlan;

use super::{Config, Payment, Tunnel};
use crate::{Protocol, kinds::Auto};

impl Tunnel {
    /// The arithmetic of the addresses inside the tunnel.
    #[must_use]
    pub fn plan(&self) -> AddressPlan {
        let (v4, v6) = (self.pool_v4, self.pool_v6);
        AddressPlan::new(v4.network(), v4.prefix_len(), v6.network())
    }
}

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// A port at the gateway's addresses that consumers reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// By this protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// What consumers are told where the node resolves no names itself.
const PUBLIC_DNS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe)),
];

impl Config {
    /// The node's own services, at the gateway's addresses inside the tunnel. The exit policy and
    /// `weir policy test` both are made from this list.
    #[must_use]
    pub fn services(&self) -> Vec<Service> {
        let pay = self.has_payments().then_some((Protocol::Tcp, self.payment.port));
        let page = self.has_page().then_some((Protocol::Tcp, self.voucher.page_port));
        let dns = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, DNS_PORT));
        let dns = self.dns.enabled.then_some(dns).into_iter().flatten();
        let all = pay.into_iter().chain(page).chain(dns);
        all.map(|(protocol, port)| Service { protocol, port }).collect()
    }

    /// Whether consumers can pay inside the tunnel, in one way or another.
    #[must_use]
    pub fn has_payments(&self) -> bool {
        self.payment.enabled || self.takes_prepayment()
    }

    /// Whether consumers can pay in advance, with a voucher or a token.
    #[must_use]
    pub fn takes_prepayment(&self) -> bool {
        self.voucher.enabled || !self.cashu.mints.is_empty()
    }

    /// Whether there is a page inside the tunnel.
    #[must_use]
    pub fn has_page(&self) -> bool {
        self.voucher.page && self.takes_prepayment()
    }

    /// The DNS servers that consumers are told.
    #[must_use]
    pub fn dns_servers(&self) -> Vec<IpAddr> {
        let plan = self.tunnel.plan();
        match &self.tunnel.dns {
            Auto::Set(servers) => servers.clone(),
            Auto::Auto if self.dns.enabled => {
                vec![plan.gateway_v4().into(), plan.gateway_v6().into()]
            }
            Auto::Auto => PUBLIC_DNS.to_vec(),
        }
    }
}

impl Payment {
    /// The lowest price of a GiB that is taken, in wei.
    #[must_use]
    pub fn least_per_gib(&self) -> u128 {
        self.floor_per_gib.set().unwrap_or(&self.per_gib).0
    }

    /// The lowest price of an hour that is taken, in wei.
    #[must_use]
    pub fn least_per_hour(&self) -> u128 {
        self.floor_per_hour.set().unwrap_or(&self.per_hour).0
    }

    /// The bytes that a new prepaid session has for nothing.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        if self.enabled { u64::from(self.free_mib) << 20 } else { 0 }
    }
}
