//! Which worker has the flow of a packet from the internet: by its external port, or, where every
//! session has an address of its own, by that.

use weir_common::Slot;

use crate::{
    flow::words,
    fragments::FragmentKey,
    icmp::Quoted,
    nat::Nat,
    parse::{Ip, Transport},
};

/// The number of fragmented packets whose worker is remembered. A power of two.
const ENTRIES: usize = 256;

/// The workers of fragmented packets: only the first fragment has a port.
#[derive(Debug)]
pub(crate) struct Owners(Box<[Option<(FragmentKey, u32)>]>);

impl Default for Owners {
    fn default() -> Self {
        Self(vec![None; ENTRIES].into_boxed_slice())
    }
}

impl Nat {
    /// The worker that has the flow of a packet, which arrived at this one. `None` if no worker has:
    /// it is no packet of a flow, or a later fragment that came before its first one.
    pub fn worker_of(&mut self, packet: &[u8]) -> Option<u32> {
        let ip = Ip::parse(packet).ok()?;
        if let Some(slot) = self.prefix_slot(ip.destination) {
            return slot.map(|slot: Slot| slot.worker(self.workers));
        }
        let Some(fragment) = ip.fragment else {
            return Some(self.pool.worker_of(external_port(packet, &ip)?));
        };
        let key = FragmentKey {
            remote: words(ip.source),
            id: fragment.id,
            local: 0,
            protocol: ip.protocol,
            v6: false,
            is_down: true,
            is_prefix: false,
        };
        let place = (key.id ^ key.id >> 16) as usize % ENTRIES;
        if !fragment.is_first() {
            let known = self.owners.0.get(place).copied().flatten();
            return known.filter(|(known, _)| *known == key).map(|(_, worker)| worker);
        }
        let worker = self.pool.worker_of(external_port(packet, &ip)?);
        if let Some(entry) = self.owners.0.get_mut(place) {
            *entry = Some((key, worker));
        }
        Some(worker)
    }
}

/// The external port, or the identifier of an echo, that a packet is for.
fn external_port(packet: &[u8], ip: &Ip) -> Option<u16> {
    match Transport::parse(packet, ip).ok()? {
        Transport::Tcp { destination, .. } | Transport::Udp { destination, .. } => {
            Some(destination)
        }
        Transport::EchoReply { id } => Some(id),
        // It quotes a packet of ours.
        Transport::Error => Quoted::parse(packet, ip).ok().map(|quoted| quoted.source),
        Transport::EchoRequest { .. } | Transport::Other => None,
    }
}
