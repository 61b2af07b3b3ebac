//! What others hand to a worker: sessions that come and go, strays, initiations.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc::SyncSender},
};

use bytes::Bytes;
use crossbeam::queue::{ArrayQueue, SegQueue};
use rustix::event::{EventfdFlags, eventfd};
use weir_common::Slot;

use crate::{peer::Peer, pipeline::Stray};
use weir_accounts::Endpoint;
use weir_wireguard::identity::Identity;

/// Strays that may wait for one worker. There are few: a flow's first packets, and rekeys.
const STRAYS: usize = 1024;
/// Initiations that may wait for one worker: at 0.3 ms each, a tenth of a second of work.
const INITIATIONS: usize = 256;

/// Orders of the control plane. They are never lost.
pub enum Order {
    /// Serve this peer.
    Add(Box<Peer>),
    /// Serve it no more, and say when that is so.
    Remove(Slot, SyncSender<()>),
    /// End.
    Stop,
}

/// An initiation, and whose it is.
pub struct Initiation {
    /// The peer.
    pub slot: Slot,
    /// Where it came from.
    pub from: Endpoint,
    /// Which of the node's keys it is for.
    pub identity: Identity,
    /// The message.
    pub message: Bytes,
}

/// A worker's inbox.
pub struct Inbox {
    /// Orders.
    pub orders: SegQueue<Order>,
    /// Strays.
    pub strays: ArrayQueue<Stray>,
    /// Initiations.
    pub initiations: ArrayQueue<Initiation>,
    bell: Bell,
}

impl Inbox {
    /// An empty inbox.
    ///
    /// # Errors
    ///
    /// Fails when the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            orders: SegQueue::new(),
            strays: ArrayQueue::new(STRAYS),
            initiations: ArrayQueue::new(INITIATIONS),
            bell: Bell::new()?,
        })
    }

    /// What wakes the worker.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// The inboxes of all workers.
pub type Inboxes = Arc<[Arc<Inbox>]>;

/// Wakes a thread that waits for descriptors.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    ///
    /// Fails when the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Wakes the thread.
    pub fn ring(&self) {
        // It can only fail when it has rung 2^64 times unheard, and then it is ringing.
        rustix::io::write(&self.0, &1u64.to_ne_bytes()).ok();
    }

    /// Stops ringing.
    pub fn silence(&self) {
        // Nothing to read means that it does not ring.
        rustix::io::read(&self.0, &mut [0u8; 8]).ok();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
