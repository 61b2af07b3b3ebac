//! An `AF_XDP` socket (Documentation/networking/af_xdp.rst).
//!
//! In zero-copy mode the driver receives every frame of the queue into our UMEM, and copies those
//! out that are for the host. So there must be chunks for the host's frames even while as many
//! frames wait for us as can: see [`XskMode::chunks`].

#![expect(unsafe_code, reason = "frames in memory that is shared with the kernel")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt,
    xdp::{
        SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc,
    },
};

use super::{
    Frame, ReceiveQueue,
    ring::Ring,
    transmit::{self, Transmit},
    umem::Umem,
};

/// The number of frames that can wait: some milliseconds of a fast line. A power of two.
const FRAMES: u32 = 2048;

/// Who puts frames into our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XskMode {
    /// The network card, where its driver supports that.
    ZeroCopy,
    /// The kernel copies them.
    Copy,
}

impl XskMode {
    /// The chunks for received frames. A power of two.
    const fn chunks(self) -> u32 {
        match self {
            Self::Copy => FRAMES,
            // At most half of them wait for us or are with us. The driver always has the rest.
            Self::ZeroCopy => 2 * FRAMES,
        }
    }

    const fn flags(self) -> SocketAddrXdpFlags {
        match self {
            Self::Copy => SocketAddrXdpFlags::XDP_COPY,
            Self::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
        }
    }
}

/// The socket, bound to one receive queue of an interface.
pub struct Xsk {
    // Dropped in this order: the kernel lets go of the memory when the socket is closed.
    socket: OwnedFd,
    received: Ring<XdpDesc>,
    free: Ring<u64>,
    transmit: Transmit,
    umem: Umem,
    queue: u32,
    mode: XskMode,
    /// The number of frames of the latest [`Xsk::take`], which the kernel did not have meanwhile.
    latest: u32,
    /// Whether every frame was in use since the last [`Xsk::newly_lost`].
    full: bool,
    lost: u64,
}

impl Xsk {
    /// Opens a socket at a receive queue of an interface. It receives once it is in the guard's map.
    ///
    /// # Errors
    ///
    /// Fails without CAP_NET_RAW, on kernels without `AF_XDP`, if there is no such queue, if the
    /// driver does not support the mode, and if the limit on locked memory is too low.
    pub fn open(interface: u32, queue: u32, mode: XskMode) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)?;
        let chunks = mode.chunks();
        let umem = Umem::new(chunks + transmit::FRAMES)?;
        sockopt::set_xdp_umem_reg(&socket, umem.registration())?;
        sockopt::set_xdp_umem_fill_ring_size(&socket, chunks)?;
        Transmit::prepare(&socket)?;
        sockopt::set_xdp_rx_ring_size(&socket, FRAMES)?;
        let offsets = sockopt::xdp_mmap_offsets(&socket)?;
        let received = Ring::map(&socket, XDP_PGOFF_RX_RING, &offsets.rx, FRAMES)?;
        let mut free = Ring::map(&socket, XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, chunks)?;
        // SAFETY: each chunk once, and nobody has borrowed any.
        unsafe { free.put((0..chunks).map(Umem::chunk)) };
        let transmit = Transmit::map(&socket, &offsets, chunks)?;
        bind(&socket, &SocketAddrXdp::new(mode.flags(), interface, queue))?;
        let (latest, full, lost) = (0, false, 0);
        Ok(Self { socket, received, free, transmit, umem, queue, mode, latest, full, lost })
    }

    /// Queues a frame for transmission, whose parts come one behind the other. Returns whether it was
    /// taken. It leaves with the next [`Xsk::flush`].
    pub fn push<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        self.transmit.push(&mut self.umem, parts)
    }

    /// Has the kernel send what is queued.
    pub fn flush(&mut self) {
        self.transmit.flush(self.socket.as_fd());
    }

    /// The receive queue that the socket is bound to.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// The mode that the socket is bound in.
    #[must_use]
    pub fn mode(&self) -> XskMode {
        self.mode
    }
}

impl ReceiveQueue for Xsk {
    fn is_ready(&self) -> bool {
        !self.received.is_empty()
    }

    fn take(&mut self, most: u32, group: usize, mut take: impl FnMut(&mut [Frame<'_>])) -> u32 {
        let waiting = self.received.peek();
        self.full |= waiting + self.latest >= FRAMES;
        let count = waiting.min(most);
        let received = &self.received;
        let descriptors = || (0..count).filter_map(|index| received.get(index));
        for first in (0..count as usize).step_by(group.max(1)) {
            let batch = descriptors().skip(first).take(group);
            // SAFETY: the descriptors are in the receive ring, in which the kernel has no chunk twice,
            // and their chunks go back below.
            let mut frames = unsafe { self.umem.frames(batch) };
            take(&mut frames);
        }
        self.latest = count;
        // SAFETY: the kernel has handed over these chunks, and nobody borrows them any more.
        unsafe {
            self.free.put(descriptors().map(|descriptor| Umem::chunk_of(descriptor.addr)));
        }
        self.received.release(count);
        count
    }

    /// Makes a system call, but only if all frames were in use.
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
