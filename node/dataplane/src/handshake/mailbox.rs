//! What other threads hand to the handshake thread.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;

use super::Limits;
use crate::waker::Waker;
use weir_accounts::Endpoint;

/// The maximum number of initiations that wait for the thread: a tenth of a second of its work.
const QUEUE: usize = 1024;

/// The mailbox of the handshake thread.
pub struct HandshakeMailbox {
    pub(super) queue: ArrayQueue<(Bytes, Endpoint)>,
    pub(super) waker: Waker,
    pub(super) stop: AtomicBool,
    /// The latest change of the limits, if the thread has not seen it yet.
    pub(super) limits: ArrayQueue<Limits>,
}

impl HandshakeMailbox {
    /// Creates an empty mailbox.
    ///
    /// # Errors
    ///
    /// Fails if the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(QUEUE),
            waker: Waker::new()?,
            stop: AtomicBool::new(false),
            limits: ArrayQueue::new(1),
        })
    }

    /// Hands over an initiation. Returns `false` if the queue is full.
    pub fn push(&self, message: Bytes, from: Endpoint) -> bool {
        self.queue.push((message, from)).is_ok()
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Changes the limits. Returns at once.
    pub fn set_limits(&self, limits: Limits) {
        // A change that the thread has not seen yet is void.
        let _earlier: Option<Limits> = self.limits.force_push(limits);
        self.waker.wake();
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.waker.wake();
    }
}
