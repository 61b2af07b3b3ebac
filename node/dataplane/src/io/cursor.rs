//! The arithmetic of rings that are shared with the kernel. Indexes count up for ever and wrap, and
//! the number of entries is a power of two.

/// Our side of a ring: how many entries we have produced or consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The number of entries in the ring, a power of two.
    len: u32,
    /// The number of entries that we have put in or taken out since the start.
    count: u32,
}

impl Cursor {
    /// The cursor of an unused ring of `len` entries, which must be a power of two.
    pub(crate) const fn new(len: u32) -> Self {
        debug_assert!(len.is_power_of_two(), "an index is the low bits of a count");
        Self { len, count: 0 }
    }

    /// The count as the other side reads it. A ring with 16-bit counts has the low half of it.
    #[inline(always)]
    pub(crate) const fn count(self) -> u32 {
        self.count
    }

    /// The index of the entry that is `ahead` entries behind the next.
    #[inline(always)]
    pub(crate) const fn index(self, ahead: u32) -> usize {
        (self.count.wrapping_add(ahead) & (self.len - 1)) as usize
    }

    /// The number of entries that we can take out, if the other side has put in `put` entries since
    /// the start. Never more than the ring has, whatever the other side says.
    #[inline(always)]
    pub(crate) const fn waiting(self, put: u32) -> u32 {
        let waiting = put.wrapping_sub(self.count);
        if waiting < self.len { waiting } else { self.len }
    }

    /// Moves on by `count` entries.
    #[inline(always)]
    pub(crate) const fn advance(&mut self, count: u32) {
        self.count = self.count.wrapping_add(count);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A ring in memory with both cursors, beside a plain queue.
    struct Model {
        memory: Vec<u64>,
        producer: Cursor,
        consumer: Cursor,
        queue: VecDeque<u64>,
        next: u64,
    }

    impl Model {
        fn new(len: u32, count: u32) -> Self {
            let end = Cursor { len, count };
            let memory = vec![u64::MAX; len as usize];
            Self { memory, producer: end, consumer: end, queue: VecDeque::new(), next: 0 }
        }

        fn put(&mut self, count: u32) {
            for ahead in 0..count {
                self.memory[self.producer.index(ahead)] = self.next;
                self.queue.push_back(self.next);
                self.next += 1;
            }
            self.producer.advance(count);
        }

        /// Takes up to `most`, and holds each entry against the queue.
        fn take(&mut self, most: u32) {
            let waiting = self.consumer.waiting(self.producer.count());
            assert_eq!(waiting as usize, self.queue.len());
            let count = waiting.min(most);
            for ahead in 0..count {
                assert_eq!(Some(self.memory[self.consumer.index(ahead)]), self.queue.pop_front());
            }
            self.consumer.advance(count);
        }
    }

    proptest! {
        /// Also over the point where indexes wrap, of 32 bits and of 16.
        #[test]
        fn a_ring_gives_back_what_was_put_in_and_in_that_order(
            bits in 0u32..12,
            before in prop_oneof![Just(u32::MAX), Just(u32::from(u16::MAX)), any::<u32>()],
            steps in prop::collection::vec((0u32..5000, 0u32..5000), 1..200),
        ) {
            let len = 1 << bits;
            let mut model = Model::new(len, before.wrapping_sub(len));
            for (put, take) in steps {
                let room = len - model.queue.len() as u32;
                model.put(put.min(room));
                model.take(take);
            }
            model.take(u32::MAX);
            prop_assert!(model.queue.is_empty());
        }

        #[test]
        fn sixteen_bits_of_the_index_are_enough_for_the_place(bits in 0u32..16, count: u32) {
            let end = Cursor { len: 1 << bits, count };
            let half = u32::from(end.count() as u16);
            prop_assert_eq!(end.index(0), (half % end.len) as usize);
        }

        #[test]
        fn a_kernel_that_counts_wrongly_makes_nothing_larger_than_the_ring(
            bits in 0u32..12, count: u32, put: u32,
        ) {
            let end = Cursor { len: 1 << bits, count };
            prop_assert!(end.waiting(put) <= end.len);
            prop_assert!(end.index(put) < end.len as usize);
        }
    }
}
