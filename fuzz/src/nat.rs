//! The flow table: packets of sessions and of the internet, true answers and errors among them.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use weir_common::{AddressPlan, Slot};
use weir_nat::{NatConfig, NewFlow, NoGate, Policy, Ports, V6};

use crate::Input;

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const EXTERNAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0);
/// The sessions.
const SESSIONS: u32 = 4;

/// Refuses what goes to ports of one remainder.
struct Every(u16);

impl Policy for Every {
    fn allows(&self, flow: &NewFlow) -> bool {
        flow.port % 7 != self.0
    }
}

/// The table, and what went through it.
struct Table {
    nat: weir_nat::Nat,
    plan: AddressPlan,
    policy: Every,
    now: u64,
    /// Packets that left, as they were then.
    left: Vec<Vec<u8>>,
    /// Where the sessions have sent to.
    asked: BTreeSet<(u32, Vec<u8>)>,
}

/// Translates packets from both sides. Nothing panics, and a refused packet stays as it was. A packet
/// that leaves has an external address. A packet that arrives has the address of a session that had
/// sent to its source. No translation makes a right checksum wrong, or a wrong one right.
pub fn nat(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut table = Table::new(input.byte());
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        let step = input.byte();
        match step & 3 {
            0 => {
                let slot = u32::from(input.byte()) % SESSIONS;
                let mut packet = input.bytes(2000).to_vec();
                table.repair(step, &mut packet, slot, true);
                table.up(packet, slot);
            }
            1 => {
                let mut packet = input.bytes(2000).to_vec();
                table.repair(step, &mut packet, 0, false);
                table.down(packet);
            }
            2 => {
                if let Some(sent) = table.left.get(usize::from(input.byte())) {
                    let mut packet = if step & 4 == 0 { answer(sent) } else { error(sent) };
                    if step & 8 != 0 && !packet.is_empty() {
                        let at = usize::from(input.half()) % packet.len();
                        packet[at] ^= input.byte();
                    }
                    table.down(packet);
                }
            }
            _ => table.change(step, &mut input),
        }
        table.check();
    }
}

impl Table {
    fn new(kind: u8) -> Self {
        let plan = AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 28, Ipv6Addr::LOCALHOST);
        let config = NatConfig {
            addresses_v4: vec![EXTERNAL],
            v6: if kind & 1 == 0 { V6::Address(EXTERNAL_V6) } else { V6::Prefix(PREFIX, 64) },
            ports: Arc::new(Ports::new(4096, 4096 + 127, 8)),
            plan,
            worker: 0,
            workers: 1,
            max_flows: 24,
            session_flows: 10,
            session_blocks: 3,
            pick_up: kind & 2 != 0,
            mss: (kind & 4 != 0).then_some([1200, 1180]),
            hash_keys: [1, 2],
        };
        let nat = weir_nat::Nat::new(config);
        let (left, asked) = (Vec::new(), BTreeSet::new());
        Self { nat, plan, policy: Every(0), now: 1 << 40, left, asked }
    }

    /// Most inputs would die at an address or at the length.
    fn repair(&self, step: u8, packet: &mut [u8], slot: u32, is_up: bool) {
        let len = packet.len();
        let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let (v4, v6) = if is_up {
            let inner = self.plan.address_v4(Slot(slot)).zip(self.plan.address_v6(Slot(slot)));
            inner.expect("a slot of the plan")
        } else {
            (EXTERNAL, EXTERNAL_V6)
        };
        let (address, length) = match (is_v6, is_up) {
            (false, true) => (12..16, 2),
            (false, false) => (16..20, 2),
            (true, true) => (8..24, 4),
            (true, false) => (24..40, 4),
        };
        let octets = if is_v6 { v6.octets().to_vec() } else { v4.octets().to_vec() };
        if step & 4 == 0
            && let Some(place) = packet.get_mut(address)
        {
            place.copy_from_slice(&octets);
        }
        let len = if is_v6 { len.saturating_sub(40) } else { len };
        if step & 8 == 0
            && let Some(place) = packet.get_mut(length..length + 2)
        {
            place.copy_from_slice(&(len as u16).to_be_bytes());
        }
        if step & 16 == 0 {
            make_right(packet);
        }
    }

    fn up(&mut self, packet: Vec<u8>, slot: u32) {
        let mut bytes = packet.clone();
        let done = self.nat.up(&mut bytes, Slot(slot), self.now, &self.policy, &mut NoGate);
        if done.is_err() {
            assert_eq!(bytes, packet, "a refused packet has changed");
            return;
        }
        assert_eq!(bytes.len(), packet.len());
        let source = address(&bytes, false);
        let own = source == EXTERNAL.octets()
            || source == EXTERNAL_V6.octets()
            || source.len() == 16 && source[..8] == PREFIX.octets()[..8];
        assert!(own, "a packet has left with another address");
        assert_eq!(address(&bytes, true), address(&packet, true));
        assert_eq!(sums(&bytes), sums(&packet));
        self.asked.insert((slot, address(&packet, true).to_vec()));
        self.left.push(bytes);
    }

    fn down(&mut self, packet: Vec<u8>) {
        let mut bytes = packet.clone();
        let Ok(slot) = self.nat.down(&mut bytes, self.now, &self.policy) else {
            assert_eq!(bytes, packet, "a dropped packet has changed");
            return;
        };
        assert_eq!(bytes.len(), packet.len());
        assert!(slot.0 < SESSIONS);
        let inner = address(&bytes, true);
        let v4 = self.plan.address_v4(slot).map(|v4| v4.octets().to_vec());
        let v6 = self.plan.address_v6(slot).map(|v6| v6.octets().to_vec());
        assert!(Some(inner) == v4.as_deref() || Some(inner) == v6.as_deref());
        assert_eq!(sums(&bytes), sums(&packet));
        let from = address(&packet, false).to_vec();
        if !is_error(&packet) {
            assert!(self.asked.contains(&(slot.0, from)), "it came from a stranger");
        }
    }

    fn change(&mut self, step: u8, input: &mut Input<'_>) {
        match step >> 2 & 7 {
            0 => self.now += u64::from(input.half()) << 24,
            1 => self.now += u64::from(input.byte()) << 32,
            2 => {
                self.policy = Every(u16::from(input.byte() % 8));
                self.nat.policy_changed();
            }
            3 => {
                let slot = u32::from(input.byte()) % SESSIONS;
                self.nat.remove_session(Slot(slot));
                self.asked.retain(|(of, _)| *of != slot);
                assert_eq!(self.nat.session_flows(Slot(slot)).total(), 0);
            }
            4 => {
                let v6 = if input.byte() & 1 == 0 { V6::None } else { V6::Address(EXTERNAL_V6) };
                self.nat.set_addresses(vec![EXTERNAL], v6);
            }
            5 => {
                let first = input.half();
                self.nat.restore_block(Slot(input.byte().into()), EXTERNAL.into(), first);
            }
            _ => self.nat.tick(self.now),
        }
    }

    fn check(&mut self) {
        let counts = (0..SESSIONS).map(|slot| self.nat.session_flows(Slot(slot)).total());
        let counts: Vec<u32> = counts.collect();
        assert!(counts.iter().all(|count| *count <= 10));
        assert_eq!(counts.iter().sum::<u32>(), self.nat.flows());
        assert!(self.nat.flows() <= self.nat.capacity());
        for event in self.nat.take_events() {
            assert!(event.block.first.is_multiple_of(8));
        }
    }
}

fn half(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// The source or the destination of a packet that was translated.
fn address(packet: &[u8], is_destination: bool) -> &[u8] {
    match (packet[0] >> 4, is_destination) {
        (4, false) => &packet[12..16],
        (4, true) => &packet[16..20],
        (_, false) => &packet[8..24],
        (_, true) => &packet[24..40],
    }
}

/// Where the transport header begins, and its protocol: without extension headers, and not of a
/// fragment.
fn transport(packet: &[u8]) -> Option<(usize, u8)> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 && half(packet, 6) & 0x3fff == 0 => {
            Some((usize::from(packet[0] & 0xf) * 4, packet[9]))
        }
        6 if packet.len() >= 40 => Some((40, packet[6])),
        _ => None,
    }
    .filter(|(at, _)| *at >= 20 && packet.len() >= at + 8)
}

fn is_error(packet: &[u8]) -> bool {
    let Some((at, protocol)) = transport(packet) else { return packet[0] >> 4 == 6 };
    protocol == 1 && packet[at] != 0 || protocol == 58 && packet[at] < 128 || protocol == 60
}

fn fold(bytes: &[u8], start: u64) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from);
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The offset of the transport checksum, and the pseudo-header's sum.
fn checksum(packet: &[u8]) -> Option<(usize, u64)> {
    let (at, protocol) = transport(packet)?;
    let offset = match protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return None,
    };
    if packet.len() < at + offset + 2 {
        return None;
    }
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let len = if protocol == 17 { usize::from(half(packet, at + 4)) } else { packet.len() - at };
    let pseudo = u64::from(fold(addresses, len as u64 + u64::from(protocol)));
    Some((at + offset, if protocol == 1 { 0 } else { pseudo }))
}

/// Whether the checksums of a packet are right: that of its IPv4 header, and that of its transport
/// header, where it has one.
fn sums(packet: &[u8]) -> (bool, Option<bool>) {
    let is_v4 = packet[0] >> 4 == 4;
    let header = if is_v4 { usize::from(packet[0] & 0xf) * 4 } else { 0 };
    let ip = fold(&packet[..header], 0) == 0xffff;
    let transport = checksum(packet).and_then(|(at, pseudo)| {
        let (start, protocol) = transport(packet)?;
        if protocol == 17 && half(packet, at) == 0 {
            return None;
        }
        let end = if protocol == 17 {
            start + usize::from(half(packet, start + 4))
        } else {
            packet.len()
        };
        Some(fold(packet.get(start..end)?, pseudo) == 0xffff)
    });
    (ip, transport)
}

/// Makes the checksums right.
fn make_right(packet: &mut [u8]) {
    let Some((start, protocol)) = transport(packet) else { return };
    if packet[0] >> 4 == 4 && start <= packet.len() {
        packet[10..12].fill(0);
        let sum = !fold(&packet[..start], 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let Some((at, pseudo)) = checksum(packet) else { return };
    let end =
        if protocol == 17 { start + usize::from(half(packet, start + 4)) } else { packet.len() };
    packet[at..at + 2].fill(0);
    if let Some(bytes) = packet.get(start..end) {
        let sum = !fold(bytes, pseudo);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The true answer to a packet.
fn answer(sent: &[u8]) -> Vec<u8> {
    let mut packet = sent.to_vec();
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let middle = addresses.len() / 2;
    packet[addresses].rotate_left(middle);
    if let Some((at, protocol)) = transport(sent) {
        match (protocol, sent[at]) {
            (1, 8) => packet[at] = 0,
            (58, 128) => packet[at] = 129,
            (6 | 17, _) => packet[at..at + 4].rotate_left(2),
            _ => {}
        }
    }
    make_right(&mut packet);
    packet
}

/// What a router says of a packet that it does not pass on.
fn error(sent: &[u8]) -> Vec<u8> {
    let mut packet = if sent[0] >> 4 == 4 {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0, 45, 9, 9, 9];
        header.extend(&sent[12..16]);
        header.extend([11, 0, 0, 0, 0, 0, 0, 0]);
        header
    } else {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, 58, 64, 0x2a, 0x0a, 0, 9, 0, 0, 0, 0];
        header.extend([0; 8]);
        header.extend(&sent[8..24]);
        header.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        header
    };
    packet.extend(&sent[..sent.len().min(500)]);
    let len = packet.len();
    if sent[0] >> 4 == 4 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    }
    make_right(&mut packet);
    packet
}
