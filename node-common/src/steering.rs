//! Which worker a packet goes to: the arithmetic behind the socket's and the TUN queue's choice.

use crate::{
    Slot,
    guard::GuardConfig,
    slot::PeerIndex,
    wire::{Message, message_type},
};

/// The IP version of a packet on the outside of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which of a family's UDP sockets a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The handshake thread's.
    Handshake,
    /// That of the worker with this number.
    Worker(u32),
}

impl GuardConfig {
    /// Who reads the message with these first bytes; shorter ones have zeros at their end. The
    /// length is not looked at: several datagrams may have been merged by then.
    #[must_use]
    #[inline(always)]
    pub const fn reader_of(&self, prefix: &[u8; Message::PREFIX]) -> Reader {
        let [kind, _, _, _, a0, a1, a2, a3, b0, b1, b2, b3] = *prefix;
        let receiver_index = match kind {
            message_type::INITIATION => return Reader::Handshake,
            message_type::RESPONSE => u32::from_le_bytes([b0, b1, b2, b3]),
            message_type::COOKIE_REPLY | message_type::DATA => u32::from_le_bytes([a0, a1, a2, a3]),
            _ => return Reader::Worker(0),
        };
        // An index that is nobody's goes by the same arithmetic: a flood of them is shared.
        let slot = self.permutation.slot_of(PeerIndex::of_receiver_index(receiver_index));
        Reader::Worker(self.worker_of(slot))
    }

    /// The place of a reader's socket in the map: each family has the workers' and then the
    /// handshake thread's.
    #[must_use]
    #[inline(always)]
    pub const fn socket_index(&self, family: Family, reader: Reader) -> u32 {
        let within = match reader {
            Reader::Handshake => self.workers,
            Reader::Worker(worker) => worker,
        };
        match family {
            Family::V4 => within,
            Family::V6 => self.workers + 1 + within,
        }
    }

    /// The worker that serves an inner IPv4 destination; the first one for nobody's.
    #[must_use]
    #[inline(always)]
    pub const fn worker_of_v4(&self, destination: [u8; 4]) -> u32 {
        match self.plan.slot_of_v4(destination) {
            Some(slot) => self.worker_of(slot),
            None => 0,
        }
    }

    /// The worker that serves an inner IPv6 destination; the first one for nobody's.
    #[must_use]
    #[inline(always)]
    pub const fn worker_of_v6(&self, destination: [u8; 16]) -> u32 {
        match self.plan.slot_of_v6(destination) {
            Some(slot) => self.worker_of(slot),
            None => 0,
        }
    }

    #[inline(always)]
    const fn worker_of(&self, slot: Slot) -> u32 {
        // Without a division that could panic: eBPF has no panics.
        match slot.0.checked_rem(self.workers) {
            Some(worker) => worker,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::{AddressPlan, SlotPermutation};

    const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0);

    fn config(workers: u32) -> GuardConfig {
        GuardConfig {
            plan: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 16, V6),
            permutation: SlotPermutation { keys: [9, 8, 7, 6] },
            workers,
            slots: 100,
            port: 51820,
            super_packets: 0,
            mac1: Default::default(),
            initiations: Default::default(),
            ceiling: Default::default(),
        }
    }

    fn prefix(kind: u8, first: u32, second: u32) -> [u8; 12] {
        let mut prefix = [0; 12];
        prefix[0] = kind;
        prefix[4..8].copy_from_slice(&first.to_le_bytes());
        prefix[8..].copy_from_slice(&second.to_le_bytes());
        prefix
    }

    #[test]
    fn each_message_goes_to_the_worker_of_its_slot() {
        let config = config(3);
        for slot in 0..100 {
            let index = config.permutation.index_of(Slot(slot)).get() << 8 | 0x5a;
            let owner = Reader::Worker(slot % 3);
            assert_eq!(config.reader_of(&prefix(4, index, 0)), owner);
            assert_eq!(config.reader_of(&prefix(3, index, 0)), owner);
            assert_eq!(config.reader_of(&prefix(2, 0, index)), owner);
        }
        assert_eq!(config.reader_of(&prefix(1, 0, 0)), Reader::Handshake);
        assert_eq!(config.reader_of(&prefix(0, 7, 7)), Reader::Worker(0));
        assert_eq!(config.reader_of(&prefix(9, 7, 7)), Reader::Worker(0));
    }

    #[test]
    fn inner_destinations_go_to_the_worker_of_their_slot() {
        let config = config(4);
        for slot in 0..1000 {
            let v4 = config.plan.address_v4(Slot(slot)).expect("within the plan");
            let v6 = config.plan.address_v6(Slot(slot)).expect("within the plan");
            assert_eq!(config.worker_of_v4(v4.octets()), slot % 4);
            assert_eq!(config.worker_of_v6(v6.octets()), slot % 4);
        }
        assert_eq!(config.worker_of_v4([192, 0, 2, 7]), 0);
        assert_eq!(config.worker_of_v6(Ipv6Addr::LOCALHOST.octets()), 0);
    }

    #[test]
    fn every_reader_has_a_socket_of_its_own() {
        let config = config(3);
        let readers = [Reader::Worker(0), Reader::Worker(1), Reader::Worker(2), Reader::Handshake];
        let index = |family| readers.map(|reader| config.socket_index(family, reader));
        assert_eq!(index(Family::V4), [0, 1, 2, 3]);
        assert_eq!(index(Family::V6), [4, 5, 6, 7]);
    }
}
