//! A ring of buffers that the kernel fills and we give back (io_uring_register_buf_ring(3)).

#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

use super::{cursor::Cursor, mmap::Mapping};

/// The buffers of one group. Must outlive the io_uring that it is registered with.
pub(crate) struct BufferRing {
    entries: Mapping,
    buffers: Mapping,
    count: u16,
    /// The number of bytes that the kernel may write to a buffer.
    offered: usize,
    /// The distance between two buffers in bytes.
    stride: usize,
    tail: Cursor,
}

impl BufferRing {
    /// Creates `count` buffers, which must be a power of two. The kernel may fill `offered` bytes of
    /// each. There are `tailroom` bytes behind them.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory.
    pub(crate) fn new(count: u16, offered: usize, tailroom: usize) -> io::Result<Self> {
        let stride = (offered + tailroom).next_multiple_of(64);
        let entries = Mapping::anonymous(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::anonymous(usize::from(count) * stride)?;
        let mut ring =
            Self { entries, buffers, count, offered, stride, tail: Cursor::new(count.into()) };
        for id in 0..count {
            ring.give_back(id);
        }
        Ok(ring)
    }

    /// Registers the buffers with `uring`, as group `group`.
    ///
    /// # Safety
    ///
    /// `self` must live until `uring` is dropped.
    ///
    /// # Errors
    ///
    /// Fails on kernels before 5.19.
    pub(crate) unsafe fn register(&self, uring: &IoUring, group: u16) -> io::Result<()> {
        let address = self.entries.base().as_ptr() as u64;
        // SAFETY: the entries are page-aligned, `count` long, and live as long as the caller says.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, self.count, group, 0) }
    }

    /// A buffer that the kernel has filled, with its tailroom. Dropping it gives it back.
    ///
    /// # Safety
    ///
    /// A completion must have handed over buffer `id` of this ring, and it must not have been given
    /// back since.
    pub(crate) unsafe fn filled(&mut self, id: u16) -> Filled<'_> {
        Filled { ring: self, id }
    }

    /// The offset of a buffer in the mapping.
    fn offset(&self, id: u16) -> usize {
        usize::from(id % self.count) * self.stride
    }

    /// Lets the kernel fill a buffer again. Nobody may use the buffer from now on.
    fn give_back(&mut self, id: u16) {
        let offset = self.offset(id);
        let slot = self.tail.index(0);
        // SAFETY: within both mappings. The kernel reads an entry only once the tail is past it,
        // which the release store below says; the tail overlays a field of the first entry that
        // the setters do not write.
        unsafe {
            let address = self.buffers.base().add(offset);
            let first = self.entries.base().cast::<BufRingEntry>();
            let mut entry = first.add(slot);
            entry.as_mut().set_addr(address.as_ptr() as u64);
            entry.as_mut().set_len(self.offered as u32);
            entry.as_mut().set_bid(id);
            self.tail.advance(1);
            let tail = BufRingEntry::tail(first.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail.count() as u16, Ordering::Release);
        }
    }
}

/// A buffer that is ours: see [`BufferRing::filled`].
pub(crate) struct Filled<'a> {
    ring: &'a mut BufferRing,
    id: u16,
}

impl Filled<'_> {
    /// Does not give the buffer back, so that [`BufferRing::filled`] may return it again.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Deref for Filled<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let offset = self.ring.offset(self.id);
        // SAFETY: within the mapping. The kernel does not touch the buffer before `drop` gives it
        // back, and we have the ring to ourselves.
        unsafe {
            let start = self.ring.buffers.base().add(offset);
            std::slice::from_raw_parts(start.as_ptr(), self.ring.stride)
        }
    }
}

impl DerefMut for Filled<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let offset = self.ring.offset(self.id);
        // SAFETY: as for `deref`.
        unsafe {
            let start = self.ring.buffers.base().add(offset);
            std::slice::from_raw_parts_mut(start.as_ptr(), self.ring.stride)
        }
    }
}

impl Drop for Filled<'_> {
    #[inline]
    fn drop(&mut self) {
        self.ring.give_back(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, ptr::NonNull};

    use proptest::prelude::*;

    use super::*;

    const COUNT: u16 = 8;
    const OFFERED: usize = 100;

    /// The kernel's side: takes entries in the order in which they were put in.
    struct Kernel {
        head: u16,
    }

    impl Kernel {
        /// The identifiers and addresses of the buffers that may be filled and were not taken yet.
        fn offered(&mut self, ring: &BufferRing) -> Vec<(u16, usize, u32)> {
            let first: NonNull<BufRingEntry> = ring.entries.base().cast();
            // SAFETY: within the mapping, which nobody writes meanwhile.
            let (tail, entries) = unsafe {
                let tail = *BufRingEntry::tail(first.as_ptr());
                (tail, std::slice::from_raw_parts(first.as_ptr(), usize::from(ring.count)))
            };
            let mut offered = Vec::new();
            while self.head != tail {
                let entry = &entries[usize::from(self.head % ring.count)];
                offered.push((entry.bid(), entry.addr() as usize, entry.len()));
                self.head = self.head.wrapping_add(1);
            }
            offered
        }
    }

    proptest! {
        /// The order in which buffers are given back is the order in which the kernel finds them,
        /// also where the 16-bit tail wraps.
        #[test]
        fn the_kernel_finds_the_buffers_that_were_given_back_and_no_others(
            before in prop_oneof![Just(0u32), Just(u32::from(u16::MAX) - 3)],
            steps in prop::collection::vec((0usize..8, any::<bool>()), 1..300),
        ) {
            let mut ring = BufferRing::new(COUNT, OFFERED, 28).expect("memory");
            let base = ring.buffers.base().as_ptr() as usize;
            let mut kernel = Kernel { head: 0 };
            prop_assert_eq!(kernel.offered(&ring).len(), usize::from(COUNT));
            // So many were filled and given back before.
            (0..before).for_each(|_| ring.give_back(0));
            kernel.head = ring.tail.count() as u16;
            let mut ours: Vec<u16> = (0..COUNT).collect();
            let mut free = VecDeque::new();
            for (pick, keep) in steps {
                if ours.is_empty() {
                    ours.extend(free.drain(..));
                }
                let id = ours[pick % ours.len()];
                // SAFETY: the buffer is among ours.
                let mut filled = unsafe { ring.filled(id) };
                prop_assert_eq!(filled.as_ptr() as usize, base + usize::from(id) * 128);
                filled.fill(id as u8);
                if keep {
                    filled.keep();
                    prop_assert!(kernel.offered(&ring).is_empty());
                } else {
                    drop(filled);
                    ours.retain(|own| *own != id);
                    free.push_back(id);
                    let address = base + usize::from(id) * 128;
                    prop_assert_eq!(kernel.offered(&ring), [(id, address, OFFERED as u32)]);
                }
            }
        }
    }
}
