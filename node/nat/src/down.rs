//! From the internet to a consumer.

use weir_common::{DropReason, Slot};
use weir_packet::headers::Version;

use crate::{
    flow::{Direction, DownKey, EXTERNAL_PREFIX, ticks, words},
    fragments::{Followed, FragmentKey},
    icmp::{Quoted, translate_error},
    nat::Nat,
    parse::{Address, Fragment, Ip, Transport, Unfit},
    policy::{Policy, Protocol},
    rewrite::{IpEdit, Side, edit_ip, edit_transport},
};

/// Whose packet it is, by its destination address.
#[derive(Clone, Copy, Debug)]
struct Local {
    external: u8,
    /// 0 unless each session has an address of its own.
    slot: u32,
}

impl Nat {
    /// Translates a packet from the internet in place, and returns the session that it goes to. The
    /// packet is an IP packet without what may follow it in its frame.
    ///
    /// # Errors
    ///
    /// Why the packet goes to no session. Its bytes are then unchanged.
    pub fn down(
        &mut self,
        packet: &mut [u8],
        now: u64,
        policy: &dyn Policy,
    ) -> Result<Slot, DropReason> {
        self.now = ticks(now);
        let ip = Ip::parse(packet).map_err(Unfit::down)?;
        let local = self.local(&ip).ok_or(DropReason::NoSession)?;
        if let Some(fragment) = ip.fragment.filter(|fragment| !fragment.is_first()) {
            return self.down_fragment(packet, &ip, &fragment, local);
        }
        let (protocol, port, remote_port, flags) =
            match Transport::parse(packet, &ip).map_err(Unfit::down)? {
                Transport::Tcp { source, destination, flags } => {
                    (Protocol::Tcp, destination, source, Some(flags))
                }
                Transport::Udp { source, destination, .. } => {
                    (Protocol::Udp, destination, source, None)
                }
                Transport::EchoReply { id } => (Protocol::Icmp, id, 0, None),
                Transport::Error => return self.down_error(packet, &ip, local, policy),
                Transport::EchoRequest { .. } | Transport::Other => {
                    return Err(DropReason::DownNoFlow);
                }
            };
        let key = local.key(ip.source, protocol, port, remote_port);
        let index = self.flow_down(&key, policy)?;
        if ip.hop_limit <= 1 {
            return Err(DropReason::DownHopLimit);
        }
        let flow = *self.table.at(index);
        let slot = Slot(flow.slot);
        let address = self.inner_address(slot, flow.v6).ok_or(DropReason::NoSession)?;
        if let Some(fragment) = ip.fragment {
            let generation = self.generation;
            let followed =
                Followed { slot: slot.0, external: flow.external, id: fragment.id, generation };
            self.begin_fragments(local.fragments(&ip, &fragment), followed, &fragment)
                .ok_or(DropReason::DownFragment)?;
        }
        let state = match flags {
            Some(flags) => flow.state.after_segment(flags, Direction::Down),
            None => flow.state.after_datagram(Direction::Down),
        };
        self.touch(index, state);
        let edit = IpEdit { side: Side::Destination, address, id: None, forwarded: true };
        let pseudo = edit_ip(packet, &ip, edit);
        edit_transport(packet, &ip, Side::Destination, flow.port, pseudo);
        self.clamp(packet, &ip, flags);
        Ok(slot)
    }

    /// Whose address a packet goes to.
    #[inline]
    fn local(&self, ip: &Ip) -> Option<Local> {
        let v6 = ip.version == Version::V6;
        if v6 && let Some(slot) = self.slot_of_prefix(ip.destination) {
            return Some(Local { external: EXTERNAL_PREFIX, slot: slot?.0 });
        }
        Some(Local { external: self.pool.find(ip.destination, v6)?, slot: 0 })
    }

    /// The flow that a packet belongs to.
    #[inline]
    fn flow_down(&mut self, key: &DownKey, policy: &dyn Policy) -> Result<u32, DropReason> {
        let found = self.table.find_down(key);
        let index = self.live(found);
        if index == 0 {
            return Err(if self.pool.is_used(key.external, key.protocol, key.port) {
                DropReason::DownFiltered
            } else {
                DropReason::DownNoFlow
            });
        }
        if !self.judge(index, policy) {
            return Err(DropReason::DownNoFlow);
        }
        Ok(index)
    }

    /// A later fragment.
    fn down_fragment(
        &mut self,
        packet: &mut [u8],
        ip: &Ip,
        fragment: &Fragment,
        local: Local,
    ) -> Result<Slot, DropReason> {
        if ip.hop_limit <= 1 {
            return Err(DropReason::DownHopLimit);
        }
        let key = local.fragments(ip, fragment);
        let followed = self.follow_fragment(&key, fragment).ok_or(DropReason::DownFragment)?;
        let slot = Slot(followed.slot);
        let v6 = ip.version == Version::V6;
        let address = self.inner_address(slot, v6).ok_or(DropReason::NoSession)?;
        let edit = IpEdit { side: Side::Destination, address, id: None, forwarded: true };
        edit_ip(packet, ip, edit);
        Ok(slot)
    }

    /// An error of a router or of the other side about a packet of a consumer. The source may be
    /// anybody: the quoted packet shows that it was seen.
    #[cold]
    fn down_error(
        &mut self,
        packet: &mut [u8],
        ip: &Ip,
        local: Local,
        policy: &dyn Policy,
    ) -> Result<Slot, DropReason> {
        if ip.fragment.is_some() {
            return Err(DropReason::DownFragment);
        }
        let quoted = Quoted::parse(packet, ip).map_err(Unfit::down)?;
        if quoted.ip.source != ip.destination {
            return Err(DropReason::DownNoFlow);
        }
        let remote = quoted.ip.destination;
        let key = local.key(remote, quoted.protocol, quoted.source, quoted.destination);
        let index = self.flow_down(&key, policy)?;
        if ip.hop_limit <= 1 {
            return Err(DropReason::DownHopLimit);
        }
        let flow = *self.table.at(index);
        let slot = Slot(flow.slot);
        let address = self.inner_address(slot, flow.v6).ok_or(DropReason::NoSession)?;
        let edit = IpEdit { side: Side::Destination, address, id: None, forwarded: true };
        translate_error(packet, ip, &quoted, edit, flow.port);
        Ok(slot)
    }
}

impl Local {
    #[inline]
    fn key(&self, remote: Address, protocol: Protocol, port: u16, remote_port: u16) -> DownKey {
        let Self { external, slot } = *self;
        DownKey { remote: words(remote), slot, port, remote_port, protocol, external }
    }

    fn fragments(&self, ip: &Ip, fragment: &Fragment) -> FragmentKey {
        let is_prefix = self.external == EXTERNAL_PREFIX;
        FragmentKey {
            remote: words(ip.source),
            id: fragment.id,
            local: if is_prefix { self.slot } else { u32::from(self.external) },
            protocol: if ip.version == Version::V4 { ip.protocol } else { 0 },
            v6: ip.version == Version::V6,
            is_down: true,
            is_prefix,
        }
    }
}
