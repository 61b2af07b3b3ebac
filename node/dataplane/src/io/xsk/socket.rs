//! An `AF_XDP` socket that only receives, in copy mode (Documentation/networking/af_xdp.rst).
//!
//! Not zero-copy: that would put every frame of the queue into our memory, and those of the
//! internet's answers, which are for the stack, would be copied out of it again.

#![expect(unsafe_code, reason = "rings and frames in memory that is shared with the kernel")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt,
    xdp::{
        SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc,
        XdpUmemReg, XdpUmemRegFlags,
    },
};
use weir_common::direct::DIRECT_CHUNK;

use super::{ReceiveQueue, ring::Ring};
use crate::io::mmap::Mapping;

/// Frames that can wait: some milliseconds of a fast line. A power of two.
pub(super) const FRAMES: u32 = 2048;
/// The kernel wants a ring for what was sent, which is nothing.
const UNUSED: u32 = 64;

/// The socket, bound to one receive queue of an interface.
pub struct Xsk {
    // Dropped in this order: the kernel lets go of the memory when the socket is closed.
    socket: OwnedFd,
    received: Ring<XdpDesc>,
    free: Ring<u64>,
    frames: Mapping,
    queue: u32,
    /// Frames of the latest [`Xsk::take`], which the kernel did not have meanwhile.
    latest: u32,
    /// Whether every frame was in use since [`Xsk::newly_lost`] asked.
    full: bool,
    lost: u64,
}

impl Xsk {
    /// Opens a socket at a receive queue of an interface. Frames come once it is in the guard's map.
    ///
    /// # Errors
    ///
    /// Fails without CAP_NET_RAW, on kernels without `AF_XDP`, where there is no such queue, and
    /// where the locked memory is not allowed.
    pub fn open(interface: u32, queue: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)?;
        let frames = Mapping::anonymous(FRAMES as usize * DIRECT_CHUNK)?;
        let memory = XdpUmemReg {
            addr: frames.base().as_ptr() as u64,
            len: frames.len() as u64,
            chunk_size: DIRECT_CHUNK as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&socket, memory)?;
        sockopt::set_xdp_umem_fill_ring_size(&socket, FRAMES)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, UNUSED)?;
        sockopt::set_xdp_rx_ring_size(&socket, FRAMES)?;
        let offsets = sockopt::xdp_mmap_offsets(&socket)?;
        let received = Ring::map(&socket, XDP_PGOFF_RX_RING, &offsets.rx)?;
        let mut free = Ring::map(&socket, XDP_UMEM_PGOFF_FILL_RING, &offsets.fr)?;
        free.put((0..FRAMES).map(|frame| u64::from(frame) * DIRECT_CHUNK as u64));
        bind(&socket, &SocketAddrXdp::new(SocketAddrXdpFlags::XDP_COPY, interface, queue))?;
        Ok(Self { socket, received, free, frames, queue, latest: 0, full: false, lost: 0 })
    }

    /// The queue that it is bound to.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// The frame that a descriptor is of; nothing where the memory does not have it.
    fn frame(&self, descriptor: XdpDesc) -> &[u8] {
        let (at, len) = (descriptor.addr as usize, descriptor.len as usize);
        if at.checked_add(len).is_none_or(|end| end > self.frames.len()) {
            return &[];
        }
        // SAFETY: within the mapping, which lives as long as `self`. The kernel has handed the
        // frame over and writes to it only once it is in the ring of free ones again.
        unsafe { std::slice::from_raw_parts(self.frames.base().add(at).as_ptr(), len) }
    }
}

impl ReceiveQueue for Xsk {
    fn is_ready(&self) -> bool {
        self.received.len() > 0
    }

    fn take(&mut self, most: u32, mut take: impl FnMut(&[u8])) -> u32 {
        let waiting = self.received.len();
        self.full |= waiting + self.latest >= FRAMES;
        let count = waiting.min(most);
        for index in 0..count {
            take(self.frame(self.received.get(index)));
        }
        self.latest = count;
        // The chunk that a frame is in, wherever in it the frame began.
        let chunk = |address: u64| address - address % DIRECT_CHUNK as u64;
        let received = &self.received;
        self.free.put((0..count).map(|index| chunk(received.get(index).addr)));
        self.received.release(count);
        count
    }

    /// A system call, but only when all frames were in use.
    fn newly_lost(&mut self) -> u64 {
        if !std::mem::take(&mut self.full) {
            return 0;
        }
        let Ok(statistics) = sockopt::xdp_statistics(&self.socket) else { return 0 };
        let lost = statistics.rx_dropped + statistics.rx_ring_full.unwrap_or(0);
        let newly = lost.saturating_sub(self.lost);
        self.lost = lost;
        newly
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
