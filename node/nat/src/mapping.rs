//! Endpoint-independent mappings of UDP ports and of ICMP identifiers (RFC 4787, REQ-1; RFC 5508,
//! REQ-1): whatever an inner port sends to, its external port is the same. A mapping lives as long as
//! a flow of it does.

use crate::{hash::Keys, policy::Protocol};

/// What a mapping is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappingKey {
    pub(crate) slot: u32,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) v6: bool,
}

/// An inner port and its external port.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mapping {
    slot: u32,
    /// The next one in its chain, or in the list of free entries.
    next: u32,
    /// How many flows it has.
    pub(crate) flows: u32,
    port: u16,
    pub(crate) external_port: u16,
    pub(crate) external: u8,
    protocol: Protocol,
    v6: bool,
}

impl Mapping {
    fn key(&self) -> MappingKey {
        MappingKey { slot: self.slot, port: self.port, protocol: self.protocol, v6: self.v6 }
    }
}

/// All mappings of a worker. Entry 0 is never used.
#[derive(Debug)]
pub(crate) struct Mappings {
    entries: Vec<Mapping>,
    heads: Box<[u32]>,
    free: u32,
    capacity: u32,
    keys: Keys,
    none: Mapping,
}

impl Mappings {
    pub(crate) fn new(capacity: u32, keys: Keys) -> Self {
        let capacity = capacity.clamp(1, 1 << 28);
        let mut entries = Vec::with_capacity(capacity as usize + 1);
        entries.push(Mapping::default());
        Self {
            entries,
            heads: vec![0; capacity.next_power_of_two() as usize].into_boxed_slice(),
            free: 0,
            capacity,
            keys,
            none: Mapping::default(),
        }
    }

    /// The bytes that it has allocated.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.entries.capacity() * size_of::<Mapping>() + self.heads.len() * 4
    }

    pub(crate) fn at(&self, index: u32) -> &Mapping {
        self.entries.get(index as usize).unwrap_or(&self.none)
    }

    pub(crate) fn at_mut(&mut self, index: u32) -> &mut Mapping {
        self.entries.get_mut(index as usize).unwrap_or(&mut self.none)
    }

    fn head_mut(&mut self, key: &MappingKey) -> Option<&mut u32> {
        let kind = u64::from(key.protocol as u8) << 8 | u64::from(key.v6);
        let hash = self.keys.pair(u64::from(key.slot) << 16 | u64::from(key.port), kind);
        let bucket = hash as usize & self.heads.len().wrapping_sub(1);
        self.heads.get_mut(bucket)
    }

    /// The mapping of an inner port, or 0.
    pub(crate) fn find(&mut self, key: &MappingKey) -> u32 {
        let mut index = self.head_mut(key).map_or(0, |head| *head);
        while index != 0 && self.at(index).key() != *key {
            index = self.at(index).next;
        }
        index
    }

    /// Adds a mapping without flows. Returns its index, or 0 if there is no room.
    pub(crate) fn insert(&mut self, key: &MappingKey, external: u8, external_port: u16) -> u32 {
        let next = self.head_mut(key).map_or(0, |head| *head);
        let MappingKey { slot, port, protocol, v6 } = *key;
        let mapping = Mapping { slot, next, flows: 0, port, external_port, external, protocol, v6 };
        let index = if self.free != 0 {
            let index = self.free;
            self.free = self.at(index).next;
            *self.at_mut(index) = mapping;
            index
        } else if self.entries.len() <= self.capacity as usize {
            self.entries.push(mapping);
            self.entries.len() as u32 - 1
        } else {
            return 0;
        };
        if let Some(head) = self.head_mut(key) {
            *head = index;
        }
        index
    }

    pub(crate) fn remove(&mut self, index: u32) {
        let mapping = *self.at(index);
        if index == 0 {
            return;
        }
        let mut at = 0;
        if let Some(head) = self.head_mut(&mapping.key()) {
            if *head == index {
                *head = mapping.next;
            } else {
                at = *head;
            }
        }
        while at != 0 {
            let next = self.at(at).next;
            if next == index {
                self.at_mut(at).next = mapping.next;
            }
            at = if next == index { 0 } else { next };
        }
        *self.at_mut(index) = Mapping { next: self.free, ..Mapping::default() };
        self.free = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mapping_is_found_until_it_is_removed() {
        let mut mappings = Mappings::new(32, Keys::new([3, 4]));
        let key = |number: u32| MappingKey {
            slot: number % 3,
            port: number as u16,
            protocol: if number.is_multiple_of(2) { Protocol::Udp } else { Protocol::Icmp },
            v6: number.is_multiple_of(5),
        };
        let mut live: Vec<(u32, u32)> = Vec::new();
        for number in 0..10_000u32 {
            // More come than go, and then more go than come.
            if number.wrapping_mul(0x9e37_79b9) >> 30 < 1 + (number >> 6 & 1) * 2 {
                let index = mappings.insert(&key(number), 0, number as u16);
                assert_eq!(index == 0, live.len() == 32);
                if index != 0 {
                    live.push((number, index));
                }
            } else if !live.is_empty() {
                let (number, index) = live.swap_remove(number as usize % live.len());
                mappings.remove(index);
                assert_eq!(mappings.find(&key(number)), 0);
            }
            for (number, index) in &live {
                assert_eq!(mappings.find(&key(*number)), *index);
                assert_eq!(mappings.at(*index).external_port, *number as u16);
            }
        }
    }
}
