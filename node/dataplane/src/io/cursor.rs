//! The arithmetic of rings that are shared with the kernel: indexes that count up for ever and wrap,
//! and places that are a power of two.

/// Our end of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Places of the ring: a power of two.
    places: u32,
    /// How many entries we have put in, or taken out, in all.
    count: u32,
}

impl Cursor {
    /// The end of an unused ring.
    pub(crate) const fn new(places: u32) -> Self {
        debug_assert!(places.is_power_of_two(), "an index is cut to a place by its low bits");
        Self { places, count: 0 }
    }

    /// The index as the other side reads it. A ring with 16-bit indexes has the low half of it.
    pub(crate) const fn index(self) -> u32 {
        self.count
    }

    /// The place of the entry that is `ahead` entries behind the next.
    pub(crate) const fn place(self, ahead: u32) -> usize {
        (self.count.wrapping_add(ahead) & (self.places - 1)) as usize
    }

    /// How many entries the other side, which puts them in, has put in and we have not taken out.
    /// Never more than there are places, whatever it says.
    pub(crate) const fn waiting(self, put: u32) -> u32 {
        let waiting = put.wrapping_sub(self.count);
        if waiting < self.places { waiting } else { self.places }
    }

    /// Goes on by `count` entries.
    pub(crate) const fn advance(&mut self, count: u32) {
        self.count = self.count.wrapping_add(count);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A ring as it lies in memory, with both ends, beside a plain queue of unbounded indexes.
    struct Model {
        memory: Vec<u64>,
        producer: Cursor,
        consumer: Cursor,
        queue: VecDeque<u64>,
        next: u64,
    }

    impl Model {
        fn new(places: u32, count: u32) -> Self {
            let end = Cursor { places, count };
            let memory = vec![u64::MAX; places as usize];
            Self { memory, producer: end, consumer: end, queue: VecDeque::new(), next: 0 }
        }

        fn put(&mut self, count: u32) {
            for ahead in 0..count {
                self.memory[self.producer.place(ahead)] = self.next;
                self.queue.push_back(self.next);
                self.next += 1;
            }
            self.producer.advance(count);
        }

        /// Takes up to `most`, and holds each entry against the queue.
        fn take(&mut self, most: u32) {
            let waiting = self.consumer.waiting(self.producer.index());
            assert_eq!(waiting as usize, self.queue.len());
            let count = waiting.min(most);
            for ahead in 0..count {
                assert_eq!(Some(self.memory[self.consumer.place(ahead)]), self.queue.pop_front());
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
            let places = 1 << bits;
            let mut model = Model::new(places, before.wrapping_sub(places));
            for (put, take) in steps {
                let room = places - model.queue.len() as u32;
                model.put(put.min(room));
                model.take(take);
            }
            model.take(u32::MAX);
            prop_assert!(model.queue.is_empty());
        }

        #[test]
        fn sixteen_bits_of_the_index_are_enough_for_the_place(bits in 0u32..16, count: u32) {
            let end = Cursor { places: 1 << bits, count };
            let half = u32::from(end.index() as u16);
            prop_assert_eq!(end.place(0), (half % end.places) as usize);
        }

        #[test]
        fn a_kernel_that_counts_wrongly_makes_nothing_larger_than_the_ring(
            bits in 0u32..12, count: u32, put: u32,
        ) {
            let end = Cursor { places: 1 << bits, count };
            prop_assert!(end.waiting(put) <= end.places);
            prop_assert!(end.place(put) < end.places as usize);
        }
    }
}
