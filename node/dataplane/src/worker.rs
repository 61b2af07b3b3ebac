//! A worker's iteration, whichever way its packets come and go.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::BytesMut;
use weir_common::DropReason;

use crate::{
    handshake::mailbox::HandshakeMailbox,
    io::udp::Sockets,
    mailbox::{Command, Mailbox, Mailboxes},
    now::{Now, thread_cpu_nanos},
    pipeline::{Handled, Misdirected, Owner, Pipeline, TAILROOM},
};

/// Nanoseconds between two ticks; each serves a quarter of the peers.
const TICK: u64 = 250_000_000;
/// Initiations per iteration: at 0.3 ms each, more would be felt by established sessions.
const INITIATIONS_PER_ITERATION: usize = 2;

/// What a worker reads from and writes to.
pub(super) struct WorkerIo {
    /// Its UDP sockets.
    pub(super) sockets: Sockets,
    /// Its queue of the TUN device.
    pub(super) tun: OwnedFd,
}

/// Why a worker ends whose TUN queue belongs to no device any more (the kernel says EBADFD then).
pub(super) fn tun_is_gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the TUN device was removed while weir ran. Fix: find what removed it (`ip link delete`, \
         a network manager), and start weir again.",
    )
}

/// A worker without its I/O.
pub(super) struct Worker {
    /// Its sessions and buffers.
    pub(super) pipeline: Pipeline,
    mailbox: Arc<Mailbox>,
    workers: Mailboxes,
    handshakes: Arc<HandshakeMailbox>,
    /// When the iteration began, and when the next tick is due, in nanoseconds.
    now: u64,
    next_tick: u64,
    stopped: bool,
}

impl Worker {
    /// The worker that reads `mailbox`.
    #[must_use]
    pub(super) fn new(
        pipeline: Pipeline,
        mailbox: Arc<Mailbox>,
        workers: Mailboxes,
        handshakes: Arc<HandshakeMailbox>,
    ) -> Self {
        Self { pipeline, mailbox, workers, handshakes, now: 0, next_tick: 0, stopped: false }
    }

    /// Begins a iteration at `now`.
    pub(super) fn begin(&mut self, now: Now) {
        self.now = now.nanos;
        self.pipeline.begin(now);
    }

    /// What wakes the worker.
    #[must_use]
    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// How long the worker may wait for packets, from the beginning of its iteration; `None` for as long
    /// as there are none.
    #[must_use]
    pub(super) fn timeout(&self) -> Option<Duration> {
        if self.pipeline.has_resumptions() || !self.mailbox.initiations.is_empty() {
            return Some(Duration::ZERO);
        }
        let waits = self.pipeline.wants_ticks();
        waits.then(|| Duration::from_nanos(self.next_tick.saturating_sub(self.now)))
    }

    /// Everything of a iteration that is not packets from the sockets or the TUN device. Call it
    /// between [`Worker::begin`] and `finish`, and `hand_over` after that. Returns whether to go on.
    pub(super) fn process_commands(&mut self) -> bool {
        while let Some(order) = self.mailbox.commands.pop() {
            match order {
                Command::Add(peer) => self.pipeline.add(peer),
                Command::Remove(slot, done) => {
                    self.pipeline.remove(slot);
                    // Whoever asked may have gone.
                    done.try_send(()).ok();
                }
                Command::Stop => self.stopped = true,
            }
        }
        for _ in 0..INITIATIONS_PER_ITERATION {
            let Some(initiation) = self.mailbox.initiations.pop() else { break };
            self.pipeline.handle_initiation(&initiation);
        }
        while let Some(misdirected) = self.mailbox.misdirected.pop() {
            match misdirected {
                Misdirected::Datagram(datagram, outer) => {
                    self.pipeline.handle_datagram(outer, &datagram)
                }
                Misdirected::TunPacket(mut frame) => {
                    let len = frame.len().saturating_sub(TAILROOM);
                    if self.pipeline.handle_tun_packet(&mut frame, len) == Handled::NextIteration {
                        self.put_back(frame);
                        break;
                    }
                }
            }
        }
        self.pipeline.resume();
        if self.now >= self.next_tick && self.pipeline.wants_ticks() {
            self.next_tick = self.now + TICK;
            self.pipeline.tick();
            self.pipeline.stats().cpu_nanos.store(thread_cpu_nanos(), Relaxed);
        }
        !self.stopped
    }

    fn put_back(&mut self, frame: BytesMut) {
        if self.mailbox.misdirected.push(Misdirected::TunPacket(frame)).is_err() {
            self.pipeline.stats().refuse(DropReason::DownWorkerQueueFull);
        }
        // It is there already: only the iteration must end before it fits.
        self.mailbox.waker().wake();
    }

    /// Hands misdirected to their owners.
    pub(super) fn hand_over(&mut self) {
        let stats = Arc::clone(self.pipeline.stats());
        let mut ring_handshakes = false;
        let mut ring = 0u64;
        for (owner, misdirected) in self.pipeline.take_misdirected() {
            let (taken, reason) = match (owner, misdirected) {
                (Owner::Handshakes, Misdirected::Datagram(message, outer)) => {
                    ring_handshakes = true;
                    (self.handshakes.push(message, outer.from), DropReason::HandshakeQueueFull)
                }
                (Owner::Handshakes, Misdirected::TunPacket(_)) => {
                    (false, DropReason::DownMalformed)
                }
                (Owner::Worker(worker), misdirected) => {
                    let reason = match misdirected {
                        Misdirected::Datagram(..) => DropReason::WorkerQueueFull,
                        Misdirected::TunPacket(_) => DropReason::DownWorkerQueueFull,
                    };
                    ring |= 1 << (worker % 64);
                    let mailbox = self.workers.get(worker as usize);
                    (
                        mailbox
                            .is_some_and(|mailbox| mailbox.misdirected.push(misdirected).is_ok()),
                        reason,
                    )
                }
            };
            if !taken {
                stats.refuse(reason);
            }
        }
        if ring_handshakes {
            self.handshakes.wake();
        }
        if ring != 0 {
            for (index, mailbox) in self.workers.iter().enumerate() {
                if ring & 1 << (index % 64) != 0 {
                    mailbox.waker().wake();
                }
            }
        }
    }
}
