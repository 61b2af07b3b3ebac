//! The memory that an `AF_XDP` socket shares with the kernel for its frames.

#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::{io, ptr::NonNull};

use rustix::net::xdp::{XdpDesc, XdpUmemReg, XdpUmemRegFlags};
use smallvec::SmallVec;
use weir_common::xsk::XSK_CHUNK;

use super::Frame;
use crate::{io::mmap::Mapping, pipeline::GROUP};

/// The UMEM: chunks of [`XSK_CHUNK`] bytes, one for each frame.
pub(super) struct Umem {
    frames: Mapping,
}

impl Umem {
    /// Allocates `frames` chunks.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory.
    pub(super) fn new(frames: u32) -> io::Result<Self> {
        Ok(Self { frames: Mapping::anonymous(frames as usize * XSK_CHUNK)? })
    }

    /// What the kernel is told of the memory.
    pub(super) fn registration(&self) -> XdpUmemReg {
        XdpUmemReg {
            addr: self.frames.base().as_ptr() as u64,
            len: self.frames.len() as u64,
            chunk_size: XSK_CHUNK as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        }
    }

    /// The address of the chunk with this number.
    pub(super) const fn chunk(number: u32) -> u64 {
        number as u64 * XSK_CHUNK as u64
    }

    /// The address of the chunk that has this address in it, wherever in it the frame began.
    pub(super) const fn chunk_of(address: u64) -> u64 {
        address - address % XSK_CHUNK as u64
    }

    /// The memory of a descriptor's frame, from its beginning to the end of its chunk. Empty if the
    /// frame is not within one chunk.
    ///
    /// # Safety
    ///
    /// The kernel must have handed over the descriptor's chunk, and the chunk must not be given back
    /// while the frame is borrowed.
    pub(super) unsafe fn frame(&mut self, descriptor: XdpDesc) -> &mut [u8] {
        let (start, room) = self.place(descriptor);
        // SAFETY: within the mapping, which lives as long as `self`. By the caller, the kernel does
        // not write there, and nobody else has borrowed the chunk.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), room) }
    }

    /// The frames of `descriptors`, as of [`Umem::frame`]. More than [`GROUP`] are on the heap.
    ///
    /// # Safety
    ///
    /// As of [`Umem::frame`] for each of them, and no two may be in the same chunk.
    pub(super) unsafe fn frames(
        &mut self,
        descriptors: impl Iterator<Item = XdpDesc>,
    ) -> SmallVec<[Frame<'_>; GROUP]> {
        let frame = |descriptor: XdpDesc| {
            let (start, room) = self.place(descriptor);
            // SAFETY: within the mapping, which lives as long as `self`. By the caller, the kernel
            // does not write there, and no other frame is in the chunk.
            let memory = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), room) };
            Frame { memory, len: room.min(descriptor.len as usize) }
        };
        descriptors.map(frame).collect()
    }

    /// Where a descriptor's frame begins, and the bytes from there to the end of its chunk: none if
    /// the frame is not within one chunk.
    fn place(&self, descriptor: XdpDesc) -> (NonNull<u8>, usize) {
        let (at, len) = (descriptor.addr as usize, descriptor.len as usize);
        let room = XSK_CHUNK - at % XSK_CHUNK;
        if len > room || at.checked_add(room).is_none_or(|end| end > self.frames.len()) {
            return (self.frames.base(), 0);
        }
        // SAFETY: within the mapping, as was just checked.
        (unsafe { self.frames.base().add(at) }, room)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::xdp::XdpDescOptions;

    use super::*;

    #[test]
    fn a_descriptor_beyond_the_memory_has_no_frame() {
        let mut umem = Umem::new(2).expect("memory");
        let len = XSK_CHUNK;
        for (addr, frame_len, wanted) in [
            (0, len, len),
            (1, len, 0),
            (1, len - 1, len - 1),
            (2 * len as u64, 0, 0),
            (len as u64 + 7, 100, len - 7),
            (u64::MAX, 1, 0),
            (u64::MAX - 1, 100, 0),
        ] {
            let descriptor =
                XdpDesc { addr, len: frame_len as u32, options: XdpDescOptions::empty() };
            // SAFETY: no kernel has the memory.
            let frames = unsafe { umem.frames(std::iter::once(descriptor)) };
            assert_eq!(frames[0].memory.len(), wanted, "{addr} {frame_len}");
            assert_eq!(frames[0].bytes().len(), if wanted > 0 { frame_len } else { 0 });
            drop(frames);
            // SAFETY: as above.
            assert_eq!(unsafe { umem.frame(descriptor) }.len(), wanted);
        }
    }

    #[test]
    fn a_frame_goes_back_as_its_whole_chunk() {
        for number in [0, 1, 2047] {
            let chunk = Umem::chunk(number);
            for offset in [0, 1, 256, XSK_CHUNK as u64 - 1] {
                assert_eq!(Umem::chunk_of(chunk + offset), chunk);
            }
        }
    }
}
