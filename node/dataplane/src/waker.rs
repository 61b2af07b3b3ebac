//! Wakes a thread that waits for file descriptors (eventfd(2)).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a thread that waits for descriptors.
#[derive(Debug)]
pub(crate) struct Waker(OwnedFd);

impl Waker {
    /// A waker that has not rung.
    ///
    /// # Errors
    ///
    /// Fails when the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        // It can only fail when it has rung 2^64 times unheard, and then it is ringing.
        rustix::io::write(&self.0, &1u64.to_ne_bytes()).ok();
    }

    /// Stops ringing.
    pub(crate) fn drain(&self) {
        // Nothing to read means that it does not ring.
        rustix::io::read(&self.0, &mut [0u8; 8]).ok();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
