//! The address of a consumer. Its `Debug` output does not reveal it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::atomic::Ordering::Relaxed,
};

use weir_common::account::WorkerState;

/// The address of a consumer, and our address that it sends to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The consumer's address and port. IPv4 is never IPv4-mapped here.
    pub remote: SocketAddr,
    /// Our address on which it reached us, from which we answer.
    pub local: Option<IpAddr>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Endpoint(..)")
    }
}

impl Endpoint {
    /// Saves the address in the account, for a node that starts after this one died.
    pub fn save(&self, to: &WorkerState) {
        let address = match self.remote.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let bits = address.to_bits();
        to.address[0].store((bits >> 64) as u64, Relaxed);
        to.address[1].store(bits as u64, Relaxed);
        let scope = match self.remote {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        to.scope.store(scope, Relaxed);
        to.port.store(u32::from(self.remote.port()), Relaxed);
    }

    /// Loads the address that [`Endpoint::save`] saved, if there is one.
    #[must_use]
    pub fn load(from: &WorkerState) -> Option<Self> {
        let port = u16::try_from(from.port.load(Relaxed)).ok().filter(|port| *port != 0)?;
        let [high, low] = [&from.address[0], &from.address[1]].map(|half| half.load(Relaxed));
        let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        let remote = match address.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), port),
            None => SocketAddrV6::new(address, port, 0, from.scope.load(Relaxed)).into(),
        };
        Some(Self { remote, local: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_kept_and_found_again() {
        for text in ["1.2.3.4:5", "[2a00::1]:65535", "[fe80::1%3]:7"] {
            let remote: SocketAddr = text.parse().expect("an address");
            let state = WorkerState::default();
            assert_eq!(Endpoint::load(&state), None);
            Endpoint { remote, local: None }.save(&state);
            assert_eq!(Endpoint::load(&state).map(|e| e.remote), Some(remote));
        }
    }

    #[test]
    fn says_nothing_when_printed() {
        let remote = "1.2.3.4:5".parse().expect("an address");
        assert_eq!(format!("{:?}", Endpoint { remote, local: None }), "Endpoint(..)");
    }
}
