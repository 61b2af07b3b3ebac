//! A ring of buffers that the kernel takes from and we give back (io_uring_register_buf_ring(3)).

#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

use super::{cursor::Cursor, mmap::Mapping};

/// The buffers of one group. Must outlive the ring that it is registered with.
pub(crate) struct BufferRing {
    entries: Mapping,
    buffers: Mapping,
    count: u16,
    /// Bytes that the kernel may write to a buffer.
    offered: usize,
    /// Bytes from one buffer to the next.
    stride: usize,
    tail: Cursor,
}

impl BufferRing {
    /// `count` buffers (a power of two) of which the kernel may fill `offered` bytes, with `slack`
    /// bytes behind.
    ///
    /// # Errors
    ///
    /// Fails when the memory cannot be had.
    pub(crate) fn new(count: u16, offered: usize, slack: usize) -> io::Result<Self> {
        let stride = (offered + slack).next_multiple_of(64);
        let entries = Mapping::anonymous(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::anonymous(usize::from(count) * stride)?;
        let mut ring =
            Self { entries, buffers, count, offered, stride, tail: Cursor::new(count.into()) };
        for id in 0..count {
            ring.give_back(id);
        }
        Ok(ring)
    }

    /// Lets `uring` take from the buffers, as group `group`.
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

    /// The buffer that the kernel has filled and handed over in a completion, with its slack.
    pub(crate) fn filled(&mut self, id: u16) -> &mut [u8] {
        let index = usize::from(id % self.count);
        // SAFETY: within the mapping. The kernel does not touch a buffer between the completion
        // that hands it over and `give_back`, and `&mut self` keeps others of ours away.
        unsafe {
            let start = self.buffers.base().add(index * self.stride);
            std::slice::from_raw_parts_mut(start.as_ptr(), self.stride)
        }
    }

    /// Lets the kernel fill a buffer again.
    pub(crate) fn give_back(&mut self, id: u16) {
        let index = usize::from(id % self.count);
        let slot = self.tail.place(0);
        // SAFETY: within both mappings. The kernel reads an entry only once the tail is past it,
        // which the release store below says; the tail overlays a field of the first entry that
        // the setters do not write.
        unsafe {
            let address = self.buffers.base().add(index * self.stride);
            let first = self.entries.base().cast::<BufRingEntry>();
            let mut entry = first.add(slot);
            entry.as_mut().set_addr(address.as_ptr() as u64);
            entry.as_mut().set_len(self.offered as u32);
            entry.as_mut().set_bid(id);
            self.tail.advance(1);
            let tail = BufRingEntry::tail(first.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail.index() as u16, Ordering::Release);
        }
    }
}
