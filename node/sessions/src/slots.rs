//! Which slot a new session gets.

use std::collections::{BTreeSet, VecDeque};

use weir_common::Slot;

/// The free slots. A slot that was never used comes first, the lowest first; then the one that
/// has been free longest, so that late datagrams of its former session have died out.
#[derive(Debug)]
pub(super) struct Slots {
    len: u32,
    fresh: u32,
    freed: VecDeque<Slot>,
    /// Left by their sessions, but something of these may be in the kernel still.
    left: Vec<Slot>,
}

impl Slots {
    /// The free ones among `len` slots, when `live` are taken and `freed` were once, longest free
    /// first.
    pub(super) fn new(len: u32, live: &BTreeSet<Slot>, freed: Vec<Slot>) -> Self {
        let used = live.iter().chain(&freed).map(|slot| slot.0.saturating_add(1)).max();
        let fresh = used.unwrap_or(0).min(len);
        let known: BTreeSet<_> = freed.iter().copied().collect();
        let skipped = (0..fresh).map(Slot).filter(|s| !live.contains(s) && !known.contains(s));
        let again = freed.iter().copied().filter(|s| s.0 < len && !live.contains(s));
        Self { len, fresh, freed: skipped.chain(again).collect(), left: Vec::new() }
    }

    /// Takes a slot, or `None` when all are taken.
    pub(super) fn take(&mut self) -> Option<Slot> {
        if self.fresh < self.len {
            let slot = Slot(self.fresh);
            self.fresh += 1;
            return Some(slot);
        }
        self.freed.pop_front()
    }

    /// Whether [`Slots::take`] has one to give.
    pub(super) fn has_free(&self) -> bool {
        self.fresh < self.len || !self.freed.is_empty()
    }

    /// Undoes a [`Slots::take`] of which nothing came.
    pub(super) fn put_back(&mut self, slot: Slot) {
        self.freed.push_front(slot);
    }

    /// A session has left its slot, which is not given to another before it is
    /// [freed](Slots::free).
    pub(super) fn leave(&mut self, slot: Slot) {
        self.left.push(slot);
    }

    /// The slots that were left. The caller frees them, or has them left again.
    pub(super) fn take_left(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.left)
    }

    /// Nothing is left of a slot's former session.
    pub(super) fn free(&mut self, slot: Slot) {
        self.freed.push_back(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_used_slots_come_first_then_the_longest_free() {
        let mut slots = Slots::new(4, &BTreeSet::from([Slot(1)]), vec![Slot(2), Slot(0)]);
        assert_eq!(slots.take(), Some(Slot(3)));
        assert_eq!(slots.take(), Some(Slot(2)));
        slots.free(Slot(1));
        assert_eq!(slots.take(), Some(Slot(0)));
        assert_eq!(slots.take(), Some(Slot(1)));
        assert_eq!(slots.take(), None);
    }

    #[test]
    fn a_slot_that_was_left_is_given_once_it_is_freed() {
        let mut slots = Slots::new(1, &BTreeSet::from([Slot(0)]), Vec::new());
        slots.leave(Slot(0));
        assert_eq!(slots.take(), None);
        assert_eq!(slots.take_left(), [Slot(0)]);
        assert_eq!((slots.take(), slots.take_left()), (None, Vec::new()));
        slots.free(Slot(0));
        assert_eq!(slots.take(), Some(Slot(0)));
    }

    #[test]
    fn slots_beyond_a_lowered_limit_are_never_given() {
        let mut slots = Slots::new(2, &BTreeSet::from([Slot(0)]), vec![Slot(9), Slot(1)]);
        assert_eq!(slots.take(), Some(Slot(1)));
        assert_eq!(slots.take(), None);
    }
}
