//! Slots and the numbers that are derived from them.

/// The number of a session's place: everything that the packet path knows of a session is found
/// by arithmetic on it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// The most slots that a node can have: the peer index has 24 bits, and most of its values
    /// must mean nothing, so that guessing is rarely right.
    pub const MAX_COUNT: u32 = 1 << 20;

    /// The worker that owns the slot.
    #[must_use]
    #[inline(always)]
    pub const fn worker(self, workers: u32) -> u32 {
        self.0 % workers
    }
}

/// The upper 24 bits of a WireGuard receiver index. The lowest 8 bits count the peer's keypairs.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// The peer index within a receiver index (bytes 4 to 8, or 8 to 12, of a message).
    #[must_use]
    #[inline(always)]
    pub const fn of_receiver_index(receiver_index: u32) -> Self {
        Self(receiver_index >> 8)
    }

    /// The number itself, below 2^24.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A secret permutation of the 24-bit numbers, by which a peer index reveals nothing of its slot:
/// a Feistel network of four rounds over two halves of 12 bits. It hides the number of sessions
/// from a passer-by; it does not protect traffic, which the cipher does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotPermutation {
    /// The round keys: random, new at every start.
    pub keys: [u32; 4],
}

const HALF: u32 = 0xfff;

impl SlotPermutation {
    /// The peer index of a slot.
    #[must_use]
    #[inline(always)]
    pub const fn index_of(&self, slot: Slot) -> PeerIndex {
        let [k0, k1, k2, k3] = self.keys;
        let (l, r) = (slot.0 >> 12 & HALF, slot.0 & HALF);
        let l = l ^ round(r, k0);
        let r = r ^ round(l, k1);
        let l = l ^ round(r, k2);
        let r = r ^ round(l, k3);
        PeerIndex(l << 12 | r)
    }

    /// The slot of a peer index. It may be beyond the node's slots: then the index is nobody's.
    #[must_use]
    #[inline(always)]
    pub const fn slot_of(&self, index: PeerIndex) -> Slot {
        let [k0, k1, k2, k3] = self.keys;
        let (l, r) = (index.0 >> 12 & HALF, index.0 & HALF);
        let r = r ^ round(l, k3);
        let l = l ^ round(r, k2);
        let r = r ^ round(l, k1);
        let l = l ^ round(r, k0);
        Slot(l << 12 | r)
    }
}

#[inline(always)]
const fn round(half: u32, key: u32) -> u32 {
    let mixed = (half ^ key).wrapping_mul(0x9e37_79b1);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca77) ^ key;
    (mixed ^ mixed >> 13) >> 12 & HALF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_an_index_of_its_own_and_is_found_by_it() {
        let permutation = SlotPermutation { keys: [0x1234_5678, 0x9abc_def0, 7, 0xffff_ffff] };
        for slot in (0..1 << 24).step_by(97) {
            let index = permutation.index_of(Slot(slot));
            assert!(index.get() < 1 << 24);
            assert_eq!(permutation.slot_of(index), Slot(slot));
        }
    }

    #[test]
    fn neighbouring_slots_have_scattered_indexes() {
        let permutation = SlotPermutation { keys: [1, 2, 3, 4] };
        let near = (0..1000u32)
            .filter(|&slot| {
                let one = permutation.index_of(Slot(slot)).get();
                one.abs_diff(permutation.index_of(Slot(slot + 1)).get()) < 1 << 12
            })
            .count();
        assert!(near < 20, "{near} of 1000 neighbours are near each other");
    }
}
