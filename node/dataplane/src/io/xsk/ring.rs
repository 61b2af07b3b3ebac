//! One end of a ring that an `AF_XDP` socket shares with the kernel
//! (Documentation/networking/af_xdp.rst, "Rings").

#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::{
    io,
    marker::PhantomData,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::net::xdp::XdpRingOffset;

use crate::io::{cursor::Cursor, mmap::Mapping};

/// One end of a ring. The kernel has the other.
pub(super) struct Ring<T> {
    mapping: Mapping,
    /// The offsets of the two counts and of the entries.
    producer: usize,
    consumer: usize,
    entries: usize,
    cursor: Cursor,
    /// The number of entries that we know the kernel has put in, and that we have not released.
    waiting: u32,
    entry: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    /// Maps the ring of `len` entries that the kernel offers at an offset of the socket. `len` must
    /// be the power of two that the socket was given.
    pub(super) fn map(
        socket: &OwnedFd,
        at: u64,
        offsets: &XdpRingOffset,
        len: u32,
    ) -> io::Result<Self> {
        let entries = offsets.desc as usize;
        let mapping = Mapping::offered(socket, at, entries + len as usize * size_of::<T>())?;
        let (producer, consumer) = (offsets.producer as usize, offsets.consumer as usize);
        Self::new(mapping, producer, consumer, entries, len)
    }

    /// A ring in `mapping`, whose counts and entries begin at these offsets.
    fn new(
        mapping: Mapping,
        producer: usize,
        consumer: usize,
        entries: usize,
        len: u32,
    ) -> io::Result<Self> {
        let fits = |offset: usize, size: usize, align: usize| {
            offset.is_multiple_of(align)
                && offset.checked_add(size).is_some_and(|end| end <= mapping.len())
        };
        let whole = fits(producer, size_of::<u32>(), align_of::<u32>())
            && fits(consumer, size_of::<u32>(), align_of::<u32>())
            && fits(entries, len as usize * size_of::<T>(), align_of::<T>())
            && len.is_power_of_two();
        if !whole {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel describes an AF_XDP ring that is not within its own mapping",
            ));
        }
        let cursor = Cursor::new(len);
        Ok(Self { mapping, producer, consumer, entries, cursor, waiting: 0, entry: PhantomData })
    }

    fn count_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: aligned and within the mapping, as `new` has checked. Both sides access the count
        // atomically.
        unsafe { self.mapping.base().add(offset).cast::<AtomicU32>().as_ref() }
    }

    fn entry(&self, ahead: u32) -> NonNull<T> {
        let index = self.cursor.index(ahead);
        // SAFETY: the index is below the number of entries, all of which are within the mapping, as
        // `new` has checked.
        unsafe { self.mapping.base().add(self.entries).cast::<T>().add(index) }
    }
}

/// The receive and completion rings: the kernel produces, and we consume.
impl<T: Copy> Ring<T> {
    /// Whether the kernel has put in entries that we have not released.
    pub(super) fn is_empty(&self) -> bool {
        self.cursor.waiting(self.count_at(self.producer).load(Ordering::Acquire)) == 0
    }

    /// Looks how many entries the kernel has put in that we have not released.
    pub(super) fn peek(&mut self) -> u32 {
        let produced = self.count_at(self.producer).load(Ordering::Acquire);
        self.waiting = self.cursor.waiting(produced);
        self.waiting
    }

    /// The entry `ahead` entries behind the oldest. `None` beyond those that [`Ring::peek`] counted.
    #[inline]
    pub(super) fn get(&self, ahead: u32) -> Option<T> {
        // SAFETY: within the mapping. The kernel wrote the entry before it moved its count, which
        // `peek` has seen, and writes it again only after we have moved ours.
        (ahead < self.waiting).then(|| unsafe { self.entry(ahead).read() })
    }

    /// Gives the `count` oldest entries back to the kernel, or fewer if there are not so many.
    pub(super) fn release(&mut self, count: u32) {
        let count = count.min(self.waiting);
        self.waiting -= count;
        self.cursor.advance(count);
        self.count_at(self.consumer).store(self.cursor.count(), Ordering::Release);
    }
}

/// The fill and transmit rings: we produce, and the kernel consumes.
impl<T: Copy> Ring<T> {
    /// Whether the kernel has taken all entries.
    pub(super) fn is_taken(&self) -> bool {
        self.count_at(self.consumer).load(Ordering::Acquire) == self.cursor.count()
    }

    /// Puts entries in.
    ///
    /// # Safety
    ///
    /// The entries must be chunks that nobody borrows, each of them at most once in the ring, so that
    /// there is always room: the ring has as many entries as there are chunks for it.
    pub(super) unsafe fn put(&mut self, entries: impl Iterator<Item = T>) {
        for entry in entries {
            // SAFETY: within the mapping. The kernel reads the entry only once our count, which the
            // store below moves, is past it.
            unsafe { self.entry(0).write(entry) };
            self.cursor.advance(1);
        }
        self.count_at(self.producer).store(self.cursor.count(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use rustix::net::xdp::{XdpDesc, XdpDescOptions};

    use super::*;

    const LEN: u32 = 8;
    const PRODUCER: usize = 0;
    const CONSUMER: usize = 64;
    const ENTRIES: usize = 128;

    /// A ring in memory of this process, with counts that have gone on to `before`.
    fn ring<T: Copy>(before: u32) -> Ring<T> {
        let len = ENTRIES + LEN as usize * size_of::<T>();
        let mapping = Mapping::anonymous(len).expect("memory");
        let mut ring = Ring::new(mapping, PRODUCER, CONSUMER, ENTRIES, LEN).expect("it fits");
        ring.cursor.advance(before);
        ring.count_at(PRODUCER).store(before, Ordering::Relaxed);
        ring.count_at(CONSUMER).store(before, Ordering::Relaxed);
        ring
    }

    /// The kernel's side of the receive ring.
    fn produce(ring: &Ring<XdpDesc>, addr: u64) {
        let producer = ring.count_at(PRODUCER);
        let count = producer.load(Ordering::Relaxed);
        let index = (count % LEN) as usize;
        let descriptor = XdpDesc { addr, len: 1, options: XdpDescOptions::empty() };
        // SAFETY: within the mapping, and nobody reads it meanwhile.
        unsafe { ring.mapping.base().add(ENTRIES).cast::<XdpDesc>().add(index).write(descriptor) };
        producer.store(count.wrapping_add(1), Ordering::Release);
    }

    proptest! {
        #[test]
        fn what_the_kernel_puts_in_is_read_once_and_in_order(
            before in prop_oneof![Just(0), Just(u32::MAX - 2), any::<u32>()],
            steps in prop::collection::vec((0u32..12, 0u32..12), 1..100),
        ) {
            let mut ring = ring::<XdpDesc>(before);
            let mut queue = VecDeque::new();
            let mut next = 0;
            for (put, take) in steps {
                for _ in 0..put.min(LEN - queue.len() as u32) {
                    produce(&ring, next);
                    queue.push_back(next);
                    next += 1;
                }
                prop_assert_eq!(ring.is_empty(), queue.is_empty());
                prop_assert_eq!(ring.peek() as usize, queue.len());
                prop_assert!(ring.get(queue.len() as u32).is_none(), "beyond what is there");
                let count = take.min(queue.len() as u32);
                for ahead in 0..count {
                    prop_assert_eq!(ring.get(ahead).map(|entry| entry.addr), queue.pop_front());
                }
                // More than there are: no more are released.
                ring.release(if queue.is_empty() { take + 1 } else { count });
                let taken = before.wrapping_add((next as u32).wrapping_sub(queue.len() as u32));
                prop_assert_eq!(ring.count_at(CONSUMER).load(Ordering::Acquire), taken);
            }
        }

        #[test]
        fn the_kernel_finds_the_chunks_that_were_put_in(
            before in prop_oneof![Just(0), Just(u32::MAX - 2), any::<u32>()],
            steps in prop::collection::vec(0u64..8, 1..50),
        ) {
            let mut ring = ring::<u64>(before);
            let (mut consumed, mut next) = (before, 0);
            for count in steps {
                // SAFETY: the kernel has taken all that were put in before.
                unsafe { ring.put(next..next + count) };
                while consumed != ring.count_at(PRODUCER).load(Ordering::Acquire) {
                    let index = (consumed % LEN) as usize;
                    // SAFETY: within the mapping, and nobody writes it meanwhile.
                    let entry = unsafe {
                        ring.mapping.base().add(ENTRIES).cast::<u64>().add(index).read()
                    };
                    prop_assert_eq!(entry, next);
                    consumed = consumed.wrapping_add(1);
                    next += 1;
                }
            }
        }
    }

    #[test]
    fn a_kernel_that_counts_wrongly_makes_nothing_larger_than_the_ring() {
        let mut ring = ring::<XdpDesc>(5);
        for produced in [4, 5 + LEN + 1, u32::MAX] {
            ring.count_at(PRODUCER).store(produced, Ordering::Relaxed);
            assert_eq!(ring.peek(), LEN);
        }
    }

    #[test]
    fn a_ring_that_is_not_within_its_mapping_is_refused() {
        for (producer, consumer, entries) in
            [(4096, 64, 128), (0, 4094, 128), (0, 64, 4096 - 8), (2, 64, 128), (0, usize::MAX, 128)]
        {
            let mapping = Mapping::anonymous(4096).expect("memory");
            assert!(Ring::<XdpDesc>::new(mapping, producer, consumer, entries, LEN).is_err());
        }
    }
}
