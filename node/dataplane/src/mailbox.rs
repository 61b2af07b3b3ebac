//! What other threads hand to a worker: commands, parcels, misdirected packets, initiations.

use std::{
    io,
    sync::{Arc, mpsc::SyncSender},
};

use bytes::Bytes;
use crossbeam::queue::{ArrayQueue, SegQueue};
use weir_common::Slot;

use crate::{
    exit::Exit,
    peer::Peer,
    pipeline::{Misdirected, parcel::Parcel},
    waker::Waker,
};
use weir_accounts::Endpoint;
use weir_wireguard::identity::Identity;

/// The maximum number of misdirected packets that wait for one worker. There are few: the first
/// packets from the gateway, and rekeys.
const MAX_MISDIRECTED: usize = 1024;
/// The maximum number of parcels that wait for one worker.
const MAX_PARCELS: usize = 64;
/// The maximum number of initiations that wait for one worker: a tenth of a second of work, at 0.3 ms
/// each.
const MAX_INITIATIONS: usize = 256;

/// A command of the control plane. None is ever lost.
pub(crate) enum Command {
    /// Adds a peer.
    Add(Box<Peer>),
    /// Removes a slot's peer, and reports when it is gone.
    Remove(Slot, SyncSender<()>),
    /// Changes or asks the worker's exit.
    Exit(Box<dyn FnOnce(&mut Exit) + Send>),
    /// Ends the worker.
    Stop,
}

/// An authenticated initiation.
pub struct Initiation {
    /// The slot of the session that sent it.
    pub slot: Slot,
    /// Its source.
    pub from: Endpoint,
    /// The key of the node that it is for.
    pub identity: Identity,
    /// The message.
    pub message: Bytes,
}

/// A worker's mailbox.
pub(crate) struct Mailbox {
    /// The commands.
    pub commands: SegQueue<Command>,
    /// The misdirected packets.
    pub misdirected: ArrayQueue<Misdirected>,
    /// Parcels, with the number of the worker that sent each.
    pub parcels: ArrayQueue<(u32, Parcel)>,
    /// The worker's own parcels, which come back when they are empty.
    pub returned: ArrayQueue<Parcel>,
    /// The initiations.
    pub initiations: ArrayQueue<Initiation>,
    waker: Waker,
}

impl Mailbox {
    /// Creates an empty mailbox.
    ///
    /// # Errors
    ///
    /// Fails if the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            commands: SegQueue::new(),
            misdirected: ArrayQueue::new(MAX_MISDIRECTED),
            parcels: ArrayQueue::new(MAX_PARCELS),
            returned: ArrayQueue::new(MAX_PARCELS),
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
