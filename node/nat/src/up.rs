//! From a consumer to the internet.

use weir_common::{DropReason, Slot};
use weir_packet::headers::Version;

use crate::{
    answer::Answer,
    config::{FlowGate, V6},
    flow::{Direction, EXTERNAL_PREFIX, State, UpKey, ticks, words},
    fragments::{Followed, FragmentKey},
    icmp::{Quoted, translate_error},
    mss::clamp_mss,
    nat::Nat,
    open::refuse,
    parse::{Fragment, Ip, TcpFlags, Transport, Unfit},
    policy::{Policy, Protocol},
    refusal::Refusal,
    rewrite::{IpEdit, Side, edit_ip, edit_transport},
};

impl Nat {
    /// Translates a packet of a session to the internet in place: its source address and port, its
    /// checksums, its hop limit and the maximum segment size of a SYN.
    ///
    /// # Errors
    ///
    /// Why the packet does not leave. Its bytes are then unchanged.
    pub fn up(
        &mut self,
        packet: &mut [u8],
        slot: Slot,
        now: u64,
        policy: &dyn Policy,
        limits: &mut dyn FlowGate,
    ) -> Result<(), Refusal> {
        self.now = ticks(now);
        let ip = Ip::parse(packet)?;
        let v6 = ip.version == Version::V6;
        if self.session_index(slot).is_none() || self.inner_address(slot, v6) != Some(ip.source) {
            return Err(DropReason::SourceAddress.into());
        }
        if ip.hop_limit <= 1 {
            let answer = may_be_answered(packet, &ip).then_some(Answer::TimeExceeded);
            return Err(Refusal { reason: DropReason::HopLimit, answer });
        }
        if let Some(fragment) = ip.fragment.filter(|fragment| !fragment.is_first()) {
            return self.up_fragment(packet, &ip, &fragment, slot);
        }
        let key = |protocol, port, remote_port| UpKey {
            remote: words(ip.destination),
            slot: slot.0,
            port,
            remote_port,
            protocol,
            v6,
        };
        let (key, flags) = match Transport::parse(packet, &ip)? {
            Transport::Tcp { source, destination, flags } => {
                (key(Protocol::Tcp, source, destination), Some(flags))
            }
            Transport::Udp { source, destination, .. } => {
                (key(Protocol::Udp, source, destination), None)
            }
            Transport::EchoRequest { id } => (key(Protocol::Icmp, id, 0), None),
            Transport::Error => return self.up_error(packet, &ip, slot, policy),
            Transport::EchoReply { .. } | Transport::Other => {
                return Err(DropReason::Protocol.into());
            }
        };
        let index = self.flow_up(&key, flags, now, policy, limits)?;
        let flow = *self.table.at(index);
        let Some(address) = self.external_address(flow.external, slot) else {
            return Err(DropReason::NextHop.into());
        };
        let id = self.outgoing_id(packet, &ip, flow.external);
        if let Some(fragment) = ip.fragment {
            let followed = Followed {
                slot: slot.0,
                external: flow.external,
                id: id.unwrap_or(fragment.id),
                generation: self.generation,
            };
            self.begin_fragments(up_fragments(&ip, slot, &fragment), followed, &fragment)
                .ok_or(DropReason::Fragment)?;
        }
        match flags {
            Some(flags) if flags.rst() => self.reset(index),
            Some(flags) => self.touch(index, flow.state.after_segment(flags, Direction::Up)),
            None => self.touch(index, flow.state),
        }
        let edit = IpEdit { side: Side::Source, address, id, forwarded: true };
        let pseudo = edit_ip(packet, &ip, edit);
        edit_transport(packet, &ip, Side::Source, flow.external_port, pseudo);
        self.clamp(packet, &ip, flags);
        Ok(())
    }

    /// The flow of a packet: a new one if it may begin one.
    #[inline(always)]
    fn flow_up(
        &mut self,
        key: &UpKey,
        flags: Option<TcpFlags>,
        now: u64,
        policy: &dyn Policy,
        limits: &mut dyn FlowGate,
    ) -> Result<u32, Refusal> {
        let mut index = self.table.find_up(key);
        index = self.live(index);
        if index != 0 && flags.is_some_and(TcpFlags::begins) && self.table.at(index).state.is_over()
        {
            self.end_flow(index);
            index = 0;
        }
        if index != 0 {
            if !self.judge(index, policy) {
                return Err(refuse(DropReason::Policy, Answer::Prohibited));
            }
            return Ok(index);
        }
        let state = match flags {
            None => State::Unreplied,
            Some(flags) if flags.begins() => State::SynSent,
            Some(flags) => {
                if flags.rst() || flags.syn() || !self.may_pick_up(key) {
                    return Err(no_flow(flags));
                }
                // It is answered with a reset also where nothing holds it.
                return self.open(key, State::PickedUp, now, policy, limits).map_err(|refusal| {
                    if refusal.reason == DropReason::Ports { no_flow(flags) } else { refusal }
                });
            }
        };
        self.open(key, state, now, policy, limits)
    }

    /// Whether an unknown connection may be the session's. A session without blocks had none.
    fn may_pick_up(&self, key: &UpKey) -> bool {
        let session = self.session_index(Slot(key.slot)).and_then(|at| self.sessions.get(at));
        let has_block = session.is_some_and(|session| session.held(key.v6).count != 0);
        self.pick_up && (has_block || key.v6 && matches!(self.v6, V6::Prefix(..)))
    }

    /// A later fragment.
    fn up_fragment(
        &mut self,
        packet: &mut [u8],
        ip: &Ip,
        fragment: &Fragment,
        slot: Slot,
    ) -> Result<(), Refusal> {
        let key = up_fragments(ip, slot, fragment);
        let followed = self.follow_fragment(&key, fragment).ok_or(DropReason::Fragment)?;
        let Some(address) = self.external_address(followed.external, slot) else {
            return Err(DropReason::NextHop.into());
        };
        let id = Some(followed.id);
        edit_ip(packet, ip, IpEdit { side: Side::Source, address, id, forwarded: true });
        Ok(())
    }

    /// An error of the consumer about a packet that it received.
    #[cold]
    fn up_error(
        &mut self,
        packet: &mut [u8],
        ip: &Ip,
        slot: Slot,
        policy: &dyn Policy,
    ) -> Result<(), Refusal> {
        if ip.fragment.is_some() {
            return Err(DropReason::Protocol.into());
        }
        let quoted = Quoted::parse(packet, ip)?;
        if quoted.ip.source != ip.destination || quoted.ip.destination != ip.source {
            return Err(Unfit::Refused.into());
        }
        let key = UpKey {
            remote: words(ip.destination),
            slot: slot.0,
            port: quoted.destination,
            remote_port: quoted.source,
            protocol: quoted.protocol,
            v6: ip.version == Version::V6,
        };
        let found = self.table.find_up(&key);
        let index = self.live(found);
        if index == 0 {
            return Err(DropReason::Protocol.into());
        }
        if !self.judge(index, policy) {
            return Err(DropReason::Policy.into());
        }
        let flow = *self.table.at(index);
        let Some(address) = self.external_address(flow.external, slot) else {
            return Err(DropReason::NextHop.into());
        };
        let id = self.outgoing_id(packet, ip, flow.external);
        let edit = IpEdit { side: Side::Source, address, id, forwarded: true };
        translate_error(packet, ip, &quoted, edit, flow.external_port);
        Ok(())
    }

    /// The identification of a packet that may be or become fragments: those of two sessions could
    /// be the same behind one address.
    #[inline]
    fn outgoing_id(&mut self, packet: &[u8], ip: &Ip, external: u8) -> Option<u32> {
        const DONT_FRAGMENT: u8 = 0x40;
        let needs_one = match ip.version {
            Version::V4 => packet.get(6).is_some_and(|flags| flags & DONT_FRAGMENT == 0),
            Version::V6 => ip.fragment.is_some() && external != EXTERNAL_PREFIX,
        };
        needs_one.then(|| self.next_id(ip.version == Version::V6))
    }

    /// Lowers the maximum segment size of a SYN.
    #[inline]
    pub(crate) fn clamp(&self, packet: &mut [u8], ip: &Ip, flags: Option<TcpFlags>) {
        if let (Some([v4, v6]), Some(flags)) = (self.mss, flags)
            && flags.syn()
        {
            clamp_mss(packet, ip, if ip.version == Version::V4 { v4 } else { v6 });
        }
    }

    /// Notes the first fragment of a packet.
    pub(crate) fn begin_fragments(
        &mut self,
        key: FragmentKey,
        followed: Followed,
        fragment: &Fragment,
    ) -> Option<()> {
        let slot = Slot(followed.slot);
        let count = self.session_mut(slot)?.fragments;
        let ended = self.fragments.begin(key, followed, fragment, count, self.now).ok()?;
        self.fragments_ended(ended);
        self.session_mut(slot)?.fragments += 1;
        Some(())
    }

    /// What a later fragment follows, if the policy is still the same.
    pub(crate) fn follow_fragment(
        &mut self,
        key: &FragmentKey,
        fragment: &Fragment,
    ) -> Option<Followed> {
        let (followed, ended) = self.fragments.follow(key, fragment, self.now)?;
        self.fragments_ended(ended);
        (followed.generation == self.generation).then_some(followed)
    }
}

fn up_fragments(ip: &Ip, slot: Slot, fragment: &Fragment) -> FragmentKey {
    FragmentKey {
        remote: words(ip.destination),
        id: fragment.id,
        local: slot.0,
        protocol: if ip.version == Version::V4 { ip.protocol } else { 0 },
        v6: ip.version == Version::V6,
        is_down: false,
        is_prefix: false,
    }
}

/// Whether a packet may be answered with an ICMP error (RFC 1122, section 3.2.2; RFC 4443, 2.4).
fn may_be_answered(packet: &[u8], ip: &Ip) -> bool {
    let is_first = ip.fragment.is_none_or(|fragment| fragment.is_first());
    is_first && !matches!(Transport::parse(packet, ip), Ok(Transport::Error) | Err(_))
}

/// A segment of a connection that there is not: the consumer learns of it (RFC 9293, 3.10.7.1).
fn no_flow(flags: TcpFlags) -> Refusal {
    let answer = (!flags.rst()).then_some(Answer::Reset);
    Refusal { reason: DropReason::Protocol, answer }
}
