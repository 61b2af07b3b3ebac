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

use rustix::net::xdp::{XdpDesc, XdpRingOffset};

use super::socket::FRAMES;
use crate::io::{cursor::Cursor, mmap::Mapping};

/// One end of a ring of [`FRAMES`] entries, of which the kernel has the other.
pub(super) struct Ring<T> {
    mapping: Mapping,
    producer: usize,
    consumer: usize,
    entries: usize,
    ours: Cursor,
    entry: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    pub(super) fn map(socket: &OwnedFd, at: u64, offsets: &XdpRingOffset) -> io::Result<Self> {
        let entries = offsets.desc as usize;
        let mapping = Mapping::offered(socket, at, entries + FRAMES as usize * size_of::<T>())?;
        let (producer, consumer) = (offsets.producer as usize, offsets.consumer as usize);
        let ours = Cursor::new(FRAMES);
        Ok(Self { mapping, producer, consumer, entries, ours, entry: PhantomData })
    }

    fn end(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the kernel says that an aligned 32-bit index is there, within the mapping, and
        // both sides access it atomically.
        unsafe { self.mapping.base().add(offset).cast::<AtomicU32>().as_ref() }
    }

    fn place(&self, ahead: u32) -> NonNull<T> {
        let place = self.ours.place(ahead);
        // SAFETY: the entries begin at this offset, and the mapping has room for all places.
        unsafe { self.mapping.base().add(self.entries).cast::<T>().add(place) }
    }
}

impl Ring<XdpDesc> {
    /// How many entries the kernel has put in that we have not released.
    pub(super) fn len(&self) -> u32 {
        self.ours.waiting(self.end(self.producer).load(Ordering::Acquire))
    }

    /// The entry `index` places behind the oldest; one of [`Ring::len`].
    pub(super) fn get(&self, index: u32) -> XdpDesc {
        // SAFETY: within the mapping. The kernel wrote it before it moved its end, which `len`
        // has seen, and writes it again only after we have moved ours.
        unsafe { self.place(index).read() }
    }

    pub(super) fn release(&mut self, count: u32) {
        self.ours.advance(count);
        self.end(self.consumer).store(self.ours.index(), Ordering::Release);
    }
}

impl Ring<u64> {
    /// Puts entries in. There is always room: there are as many places as frames.
    pub(super) fn put(&mut self, entries: impl Iterator<Item = u64>) {
        for entry in entries {
            // SAFETY: within the mapping. The kernel reads it only once our end, which the store
            // below moves, is past it.
            unsafe { self.place(0).write(entry) };
            self.ours.advance(1);
        }
        self.end(self.producer).store(self.ours.index(), Ordering::Release);
    }
}
