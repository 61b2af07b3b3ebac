//! Wakes a thread that waits for file descriptors (eventfd(2)).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the thread that waits for its descriptor.
#[derive(Debug)]
pub(crate) struct Waker(OwnedFd);

impl Waker {
    /// Creates a waker.
    ///
    /// # Errors
    ///
    /// Fails if the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        // The write fails only if the counter is at its maximum, and then the thread wakes anyway.
        rustix::io::write(&self.0, &1u64.to_ne_bytes()).ok();
    }

    /// Makes the descriptor unreadable until the next [`Waker::wake`].
    pub(crate) fn drain(&self) {
        // The read fails if the counter is 0.
        rustix::io::read(&self.0, &mut [0u8; 8]).ok();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
