//! The transmit half of an `AF_XDP` socket: many frames in one system call, past the queueing
//! discipline. In copy mode the call itself sends them (`xsk_generic_xmit` in net/xdp/xsk.c). In
//! zero-copy mode it wakes the driver, which takes them in its own time.

#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    sockopt,
    xdp::{
        XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XdpDesc, XdpDescOptions, XdpMmapOffsets,
    },
};
use weir_common::xsk::XSK_CHUNK;

use super::{ring::Ring, umem::Umem};

/// The number of frames that the kernel can have at once. A power of two.
pub(super) const FRAMES: u32 = 2048;
/// The system calls that one flush makes at most. Each takes 32 frames (`TX_BATCH_SIZE`), so that
/// these are more than enough for all.
const MAX_CALLS: u32 = 2 * FRAMES / 32;

/// The rings by which the kernel gets frames, and gives their chunks back.
pub(super) struct Transmit {
    queued: Ring<XdpDesc>,
    completed: Ring<u64>,
    /// The addresses of the chunks that the kernel does not have.
    free: Vec<u64>,
    /// Whether frames were queued since the last flush.
    is_dirty: bool,
}

impl Transmit {
    /// Sets the sizes of the rings, before the socket is bound.
    pub(super) fn prepare(socket: &OwnedFd) -> io::Result<()> {
        sockopt::set_xdp_umem_completion_ring_size(socket, FRAMES)?;
        sockopt::set_xdp_tx_ring_size(socket, FRAMES)?;
        Ok(())
    }

    /// Maps the rings. The chunks from number `first` on are for transmission.
    pub(super) fn map(socket: &OwnedFd, offsets: &XdpMmapOffsets, first: u32) -> io::Result<Self> {
        let queued = Ring::map(socket, XDP_PGOFF_TX_RING, &offsets.tx, FRAMES)?;
        let completed = Ring::map(socket, XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, FRAMES)?;
        let free = (first..first + FRAMES).map(Umem::chunk).collect();
        Ok(Self { queued, completed, free, is_dirty: false })
    }

    /// Queues a frame, whose parts come one behind the other. Returns whether it was taken.
    pub(super) fn push<'a>(
        &mut self,
        umem: &mut Umem,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        if self.free.is_empty() {
            self.reclaim();
        }
        let Some(address) = self.free.pop() else { return false };
        let descriptor = |len: usize| XdpDesc {
            addr: address,
            len: len as u32,
            options: XdpDescOptions::empty(),
        };
        // SAFETY: the chunk is free: neither the kernel nor anybody else has it.
        let chunk = unsafe { umem.frame(descriptor(XSK_CHUNK)) };
        let mut len = 0;
        for part in parts {
            let Some(room) = chunk.get_mut(len..len + part.len()) else {
                self.free.push(address);
                return false;
            };
            room.copy_from_slice(part);
            len += part.len();
        }
        // SAFETY: the chunk is in no ring, and there is room: the ring has as many entries as there
        // are chunks for transmission.
        unsafe { self.queued.put(std::iter::once(descriptor(len))) };
        self.is_dirty = true;
        true
    }

    /// Has the kernel send what is queued.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        for _ in 0..MAX_CALLS {
            // SAFETY: no memory is handed over.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            // EAGAIN: there are more, or no memory for now. What stays goes with the next flush.
            let has_more =
                sent < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
            if !has_more || self.queued.is_taken() {
                break;
            }
        }
        self.is_dirty = !self.queued.is_taken();
        self.reclaim();
    }

    fn reclaim(&mut self) {
        let count = self.completed.peek();
        self.free.extend((0..count).filter_map(|ahead| self.completed.get(ahead)));
        self.completed.release(count);
    }
}
