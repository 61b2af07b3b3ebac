//! What others hand to a worker: sessions that come and go, misdirected, initiations.

use std::{
    io,
    sync::{Arc, mpsc::SyncSender},
};

use bytes::Bytes;
use crossbeam::queue::{ArrayQueue, SegQueue};
use weir_common::Slot;

use crate::{peer::Peer, pipeline::Misdirected, waker::Waker};
use weir_accounts::Endpoint;
use weir_wireguard::identity::Identity;

/// Strays that may wait for one worker. There are few: a flow's first packets, and rekeys.
const MAX_MISDIRECTED: usize = 1024;
/// Initiations that may wait for one worker: at 0.3 ms each, a tenth of a second of work.
const MAX_INITIATIONS: usize = 256;

/// Orders of the control plane. They are never lost.
pub(crate) enum Command {
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

/// A worker's mailbox.
pub(crate) struct Mailbox {
    /// Orders.
    pub commands: SegQueue<Command>,
    /// Strays.
    pub misdirected: ArrayQueue<Misdirected>,
    /// Initiations.
    pub initiations: ArrayQueue<Initiation>,
    waker: Waker,
}

impl Mailbox {
    /// An empty mailbox.
    ///
    /// # Errors
    ///
    /// Fails when the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            commands: SegQueue::new(),
            misdirected: ArrayQueue::new(MAX_MISDIRECTED),
            initiations: ArrayQueue::new(MAX_INITIATIONS),
            waker: Waker::new()?,
        })
    }

    /// What wakes the worker.
    #[must_use]
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// The mailboxes of all workers.
pub(crate) type Mailboxes = Arc<[Arc<Mailbox>]>;
