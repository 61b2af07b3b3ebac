//! What user space tells the eBPF programs, and how they count.

use crate::{
    AddressPlan, DropReason, Slot, SlotPermutation,
    gcra::Rate,
    mac1::Mac1Keys,
    packet::{Class, Rules, Verdict},
    slot::PeerIndex,
};

/// The names of the programs and maps in the object, as the loader finds them.
pub mod name {
    /// The XDP guard, for frames in one piece or several (kernel 5.18 and later).
    pub const GUARD: &str = "weir_guard";
    /// The XDP guard for older kernels: frames in one piece only.
    pub const GUARD_LINEAR: &str = "weir_guard_linear";
    /// The choice of a UDP socket by receiver index.
    pub const REUSEPORT: &str = "weir_reuseport";
    /// The choice of a TUN queue by inner destination.
    pub const STEER: &str = "weir_steer";
    /// The map of one [`crate::Account`] for each slot.
    pub const ACCOUNTS: &str = "ACCOUNTS";
    /// The map whose one entry is a [`super::GuardConfig`].
    pub const CONFIG: &str = "CONFIG";
    /// The map of [`super::Tally`]s, indexed by [`super::verdict_index`].
    pub const VERDICTS: &str = "VERDICTS";
    /// The map of UDP sockets, indexed by [`super::GuardConfig::socket_index`].
    pub const SOCKETS: &str = "SOCKETS";
    /// The map of the sockets for the XSK fast path, by receive queue.
    pub const XSKS: &str = "XSKS";
    /// The map of initiations' buckets, by [`crate::packet::Decision::source`].
    pub const SOURCES: &str = "SOURCES";
    /// The map of the buckets of all initiations of a CPU, by [`super::Lane`].
    pub const CEILINGS: &str = "CEILINGS";
    /// The map whose one entry is a [`crate::exit::ExitConfig`].
    pub const EXIT: &str = "EXIT";
    /// The bitmap of external ports, in [`crate::exit::PORT_WORDS`] words.
    pub const PORTS: &str = "PORTS";
    /// The map of first fragments, by [`crate::exit::FragmentKey`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
}

/// The parameters of the eBPF programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardConfig {
    /// The node's inner addresses.
    pub plan: AddressPlan,
    /// How peer indexes hide slots.
    pub permutation: SlotPermutation,
    /// How many workers there are, at least 1.
    pub workers: u32,
    /// How many slots there are. Never more than the accounts.
    pub slots: u32,
    /// The node's UDP port.
    pub port: u16,
    /// 1 if the guard may see several datagrams merged into one frame, otherwise 0.
    pub super_packets: u16,
    /// The keys that handshake messages must be for.
    pub mac1: Mac1Keys,
    /// How many initiations one source may send.
    pub initiations: Rate,
    /// How many initiations of all sources together pass on each CPU: so many without a cookie, and
    /// so many with one.
    pub ceiling: Rate,
}

/// Which bucket of the ceiling an initiation takes from. Whether a cookie is right, user space
/// tells; a flood that does not even pretend to have one takes nothing from those who do.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Of initiations whose second MAC is zero.
    WithoutCookie = 0,
    /// Of those that have a second MAC.
    WithCookie = 1,
}

impl Lane {
    /// How many there are.
    pub const COUNT: usize = 2;
}

/// How many sources' buckets the guard remembers; the ones that were silent longest are forgotten.
pub const SOURCES: u32 = 16384;

/// Length of a [`GuardConfig`] in memory.
pub const GUARD_CONFIG_LEN: usize = size_of::<GuardConfig>();
const _: () = assert!(GUARD_CONFIG_LEN == 144);

impl GuardConfig {
    /// What the parser must know of it.
    #[must_use]
    #[inline(always)]
    pub const fn rules(&self) -> Rules {
        Rules { port: self.port, super_packets: self.super_packets != 0 }
    }

    /// The slot that a receiver index belongs to, or `None` if it is nobody's.
    #[must_use]
    #[inline(always)]
    pub const fn slot_of(&self, receiver_index: u32) -> Option<Slot> {
        let slot = self.permutation.slot_of(PeerIndex::of_receiver_index(receiver_index));
        if slot.0 < self.slots { Some(slot) } else { None }
    }

    /// The config as bytes in memory order, as the map takes them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; GUARD_CONFIG_LEN] {
        let (v6_prefix, v4_base, capacity) = self.plan.words();
        let [k0, k1, k2, k3] = self.permutation.keys;
        let ports = if cfg!(target_endian = "little") {
            u32::from(self.port) | u32::from(self.super_packets) << 16
        } else {
            u32::from(self.port) << 16 | u32::from(self.super_packets)
        };
        let Mac1Keys { live, keys: [one, two] } = self.mac1;
        let words = [v4_base, capacity, k0, k1, k2, k3, self.workers, self.slots, ports, live];
        let mut bytes = [0; GUARD_CONFIG_LEN];
        let (first, rest) = bytes.split_at_mut(8);
        let (rest, rates) = rest.split_at_mut(GUARD_CONFIG_LEN - 8 - 32);
        first.copy_from_slice(&v6_prefix.to_ne_bytes());
        let words = words.into_iter().chain(one.words).chain(two.words);
        for (place, word) in rest.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let longs = [self.initiations, self.ceiling].map(|rate| [rate.interval, rate.window]);
        for (place, long) in rates.chunks_exact_mut(8).zip(longs.as_flattened()) {
            place.copy_from_slice(&long.to_ne_bytes());
        }
        bytes
    }
}

/// A counter of the guard.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames.
    pub datagrams: u64,
    /// [`crate::packet::Decision::bytes`] of these.
    pub bytes: u64,
}

/// How many [`Tally`]s the guard has.
pub const VERDICTS: usize = Class::COUNT + DropReason::COUNT;

/// The place of a verdict's [`Tally`].
#[must_use]
#[inline(always)]
pub const fn verdict_index(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass(class) => class as u32,
        Verdict::Drop(reason) => Class::COUNT as u32 + reason as u32,
    }
}

#[cfg(test)]
mod tests {
    use core::{
        mem::offset_of,
        net::{Ipv4Addr, Ipv6Addr},
    };

    use super::*;
    use crate::mac1::Mac1Key;

    #[test]
    fn bytes_are_in_the_order_of_memory() {
        let config = GuardConfig {
            plan: AddressPlan::new(Ipv4Addr::new(10, 1, 0, 0), 16, Ipv6Addr::LOCALHOST),
            permutation: SlotPermutation { keys: [1, 2, 3, 4] },
            workers: 5,
            slots: 6,
            port: 7,
            super_packets: 1,
            mac1: Mac1Keys::both(Mac1Key::new(&[8; 32]), Mac1Key::new(&[9; 32])),
            initiations: Rate { interval: 10, window: 11 },
            ceiling: Rate { interval: 12, window: 13 },
        };
        let bytes = config.to_bytes();
        let word = |at: usize| {
            bytes[at..].first_chunk().copied().map(u32::from_ne_bytes).expect("within the config")
        };
        let half = |at: usize| {
            bytes[at..].first_chunk().copied().map(u16::from_ne_bytes).expect("within the config")
        };
        assert_eq!(offset_of!(GuardConfig, plan), 0);
        assert_eq!(word(8), 0x0a01_0000);
        assert_eq!(word(12), 65533);
        assert_eq!(word(offset_of!(GuardConfig, permutation) + 12), 4);
        assert_eq!(word(offset_of!(GuardConfig, workers)), 5);
        assert_eq!(word(offset_of!(GuardConfig, slots)), 6);
        assert_eq!(half(offset_of!(GuardConfig, port)), 7);
        assert_eq!(half(offset_of!(GuardConfig, super_packets)), 1);
        let mac1 = offset_of!(GuardConfig, mac1);
        assert_eq!(word(mac1 + offset_of!(Mac1Keys, live)), 2);
        let keys = mac1 + offset_of!(Mac1Keys, keys);
        assert_eq!(word(keys), config.mac1.keys[0].words[0]);
        assert_eq!(word(keys + 60), config.mac1.keys[1].words[7]);
        let rate = offset_of!(GuardConfig, initiations);
        let long = |at: usize| {
            bytes[at..].first_chunk().copied().map(u64::from_ne_bytes).expect("within the config")
        };
        assert_eq!(long(rate + offset_of!(Rate, interval)), 10);
        assert_eq!(long(rate + offset_of!(Rate, window)), 11);
    }

    #[test]
    fn every_verdict_has_a_tally_of_its_own() {
        let passes = Class::ALL.iter().map(|&class| Verdict::Pass(class));
        let drops = DropReason::ALL.iter().map(|&reason| Verdict::Drop(reason));
        let indexes = passes.chain(drops).map(verdict_index);
        assert!(indexes.eq(0..VERDICTS as u32));
    }
}
