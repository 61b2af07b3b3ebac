//! How packets reach a worker and leave it. Nearly all `unsafe` code of this crate is below here.
//!
//! [`uring`] and [`syscall`] are the two backends. Both receive from [`xsk`] too, gather their output
//! with [`tx`], and read and write the ancillary data of [`cmsg`].

pub(crate) mod buf_ring;
pub(crate) mod cmsg;
pub(crate) mod cursor;
pub(crate) mod mmap;
pub(crate) mod syscall;
pub(crate) mod tx;
pub(crate) mod udp;
pub(crate) mod uplink;
pub(crate) mod uring;
pub(crate) mod xsk;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use self::udp::Sockets;
use crate::pipeline::{Pipeline, outlet::Device};

/// What a worker reads from and writes to.
pub(crate) struct WorkerIo {
    /// The UDP sockets.
    pub(crate) sockets: Sockets,
    /// The queue of the TUN device.
    pub(crate) tun: OwnedFd,
    /// The socket by which frames leave on the uplink. `None` if all packets go to the TUN device.
    pub(crate) uplink: Option<OwnedFd>,
}

impl WorkerIo {
    /// What packets for a device are written to.
    pub(crate) fn file(&self, device: Device) -> Option<BorrowedFd<'_>> {
        match device {
            Device::Tun => Some(self.tun.as_fd()),
            Device::Uplink => self.uplink.as_ref().map(AsFd::as_fd),
        }
    }

    /// The UDP sockets: IPv4, and IPv6 if the host has it.
    pub(crate) fn udp_sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.sockets.v4.as_fd()).chain(self.sockets.v6.as_ref().map(AsFd::as_fd))
    }
}

/// The I/O of a worker.
///
/// An iteration calls [`Backend::rx`], [`Backend::tx`] and [`Backend::wait`] in this order. The
/// pipeline's output stays as it is from `tx` until `wait` returns.
pub(crate) trait Backend {
    /// Hands what has arrived to the pipeline, as much as the iteration has room for. Returns how
    /// many frames were taken from `AF_XDP` rings.
    ///
    /// # Errors
    ///
    /// Fails if the TUN device was removed.
    fn rx(&mut self, pipeline: &mut Pipeline) -> io::Result<u32>;

    /// Puts out what the finished iteration has to write and send, or begins to.
    ///
    /// # Errors
    ///
    /// Fails if the kernel takes no operations. No packet can cause this.
    fn tx(&mut self, pipeline: &mut Pipeline) -> io::Result<()>;

    /// Whether the kernel still has output of this iteration.
    fn has_output(&self) -> bool;

    /// Whether something has arrived for the next iteration.
    fn has_input(&self) -> bool;

    /// Waits until the kernel has taken all output and something has arrived, but after the output
    /// no longer than `timeout`. `None` waits without a limit.
    ///
    /// # Errors
    ///
    /// Fails if waiting fails or the TUN device was removed. No packet can cause either.
    fn wait(&mut self, pipeline: &mut Pipeline, timeout: Option<Duration>) -> io::Result<()>;

    /// Makes the kernel let go of the buffers.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not.
    fn close(&mut self) -> io::Result<()>;
}

/// Why a worker ends whose TUN queue no longer belongs to a device. The kernel returns EBADFD then.
pub(crate) fn tun_is_gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the TUN device was removed while weir ran. Fix: find what removed it (`ip link delete`, \
         a network manager), and start weir again.",
    )
}
