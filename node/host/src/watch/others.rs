//! What is not weir's own, and is named or followed.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::anyhow;
use tracing::warn;

use super::{
    Condition, Part, Watch,
    view::{self, View},
};
use crate::nft::Site;

impl Watch {
    pub(super) fn look_at_others(&mut self) {
        let parts = [
            Part::Tunnel,
            Part::Offloads,
            Part::Firewall,
            Part::Uplink,
            Part::DefaultRoute,
            Part::Mtu,
            Part::Address,
        ];
        let view = match View::read() {
            Ok(view) => view,
            Err(error) => return warn!(%error, "cannot read this machine's interfaces"),
        };
        self.expected.learn(&view);
        let mut found = self.expected.judge(&view);
        found.extend(self.firewalls());
        found.extend(self.tunnel(&view));
        found.extend(self.offloads());
        self.conditions.set(&parts, found);
        self.follow_addresses(&view);
        match view.interface(self.uplink.index) {
            Some(uplink) => self.follow(uplink),
            // An interface that comes back under its name is another one: the guard, the sockets
            // and the rules of this run are not on it.
            None => self.break_off(anyhow!(
                "the uplink {} is gone. Fix: connect it; weir waits for it when it is started",
                self.uplink.name
            )),
        }
    }

    /// Other programs' chains that refuse what the node needs.
    pub(super) fn firewalls(&self) -> Vec<Condition> {
        let site = Site { is_forwarded: self.host.forwards, ..self.policy.site() };
        view::firewalls(&site).unwrap_or_else(|error| {
            warn!(%error, "cannot look for other programs' firewalls");
            Vec::new()
        })
    }

    pub(super) fn look_at_resolver(&self) {
        self.conditions.set(&[Part::Resolver], Vec::from_iter(self.resolver()));
    }

    /// Tells when this machine's addresses are other ones.
    fn follow_addresses(&mut self, view: &View) {
        let all = view.interfaces.iter().flat_map(|interface| interface.addresses.iter().copied());
        let now: BTreeSet<IpAddr> = all.collect();
        if now != self.addresses {
            (self.listeners.addresses)();
            self.addresses = now;
        }
    }

    /// Tells of the uplink's addresses and MTU when they are other ones.
    fn follow(&mut self, now: &view::Interface) {
        let mut uplink = self.uplink.clone();
        uplink.mtu = now.mtu;
        let told = now.addresses.iter().filter(|address| view::is_told(address));
        (uplink.v4, uplink.v6) = (Vec::new(), Vec::new());
        for address in told {
            match address {
                IpAddr::V4(address) => uplink.v4.push(*address),
                IpAddr::V6(address) => uplink.v6.push(*address),
            }
        }
        if uplink != self.uplink {
            (self.listeners.uplink)(&uplink);
            self.uplink = uplink;
        }
    }

    fn resolver(&self) -> Option<Condition> {
        let read = self.listeners.resolver.as_ref()?;
        let problem = match read() {
            Ok(servers) if servers.is_empty() => {
                "this machine has no DNS server in /etc/resolv.conf".to_owned()
            }
            Ok(_) => return None,
            Err(error) => format!("cannot read /etc/resolv.conf: {error}"),
        };
        Some(Condition::new(
            Part::Resolver,
            format!("{problem}: the gateway cannot resolve names for consumers"),
            "name one there, set dns.upstreams, or dns.enabled = false",
        ))
    }
}
