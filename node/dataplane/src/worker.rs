//! A worker: one thread, pinned to one core, that moves the packets of its sessions.

mod moderation;

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use bytes::BytesMut;
use weir_common::DropReason;

use self::moderation::Moderation;
use crate::{
    handshake::mailbox::HandshakeMailbox,
    io::Backend,
    mailbox::{Command, Mailbox, Mailboxes},
    now::{Now, thread_cpu_nanos},
    pipeline::{Handled, Misdirected, Owner, Pipeline, TAILROOM},
};

/// The interval between two ticks in nanoseconds. Each tick serves a quarter of the peers.
const TICK_INTERVAL: u64 = 250_000_000;
/// The number of initiations in one iteration. Each takes 0.3 ms, and established sessions would
/// feel more of them.
const INITIATIONS_PER_ITERATION: usize = 2;

/// A worker without its I/O.
pub(crate) struct Worker {
    pipeline: Pipeline,
    mailbox: Arc<Mailbox>,
    workers: Mailboxes,
    handshakes: Arc<HandshakeMailbox>,
    /// When the iteration began, in nanoseconds.
    now: u64,
    /// When the next tick is due, in nanoseconds.
    next_tick: u64,
    is_stopped: bool,
    moderation: Moderation,
}

impl Worker {
    /// Creates the worker that reads `mailbox`.
    #[must_use]
    pub(super) fn new(
        pipeline: Pipeline,
        mailbox: Arc<Mailbox>,
        workers: Mailboxes,
        handshakes: Arc<HandshakeMailbox>,
    ) -> Self {
        Self {
            pipeline,
            mailbox,
            workers,
            handshakes,
            now: 0,
            next_tick: 0,
            is_stopped: false,
            moderation: Moderation::default(),
        }
    }

    /// Runs on the calling thread until [`Command::Stop`].
    ///
    /// # Errors
    ///
    /// Fails if waiting fails or the TUN device was removed. No packet can cause either.
    pub(super) fn run(mut self, mut backend: impl Backend) -> io::Result<()> {
        loop {
            let now = Now::read();
            self.now = now.nanos;
            self.pipeline.begin(now);
            let frames = backend.rx(&mut self.pipeline)?;
            let handed = self.process_commands();
            self.moderation.iteration(self.now, frames + handed);
            self.pipeline.finish();
            self.hand_over();
            backend.tx(&mut self.pipeline)?;
            if self.is_stopped && !backend.has_output() {
                return backend.close();
            }
            let timeout = match self.timeout() {
                _ if self.is_stopped || backend.has_input() => Some(Duration::ZERO),
                timeout => timeout,
            };
            backend.wait(&mut self.pipeline, timeout)?;
            // By the kernel way, the buffers for packets from the TUN device would overflow.
            if self.moderation.is_quick()
                && self.moderation.is_due(Now::read().nanos)
                && !self.is_stopped
                && self.pipeline.exit().is_some()
            {
                thread::sleep(moderation::DELAY);
            }
        }
    }

    /// How long the worker may wait, from the beginning of its iteration. `None` if only a packet or
    /// a command must wake it.
    fn timeout(&self) -> Option<Duration> {
        let has_more = !self.mailbox.initiations.is_empty() || !self.mailbox.parcels.is_empty();
        if has_more || self.pipeline.has_resumptions() {
            return Some(Duration::ZERO);
        }
        let waits = self.pipeline.wants_ticks();
        waits.then(|| Duration::from_nanos(self.next_tick.saturating_sub(self.now)))
    }

    /// Takes commands, initiations and what other workers send from the mailbox, and runs the timers.
    /// Returns the number of packets.
    fn process_commands(&mut self) -> u32 {
        while let Some(command) = self.mailbox.commands.pop() {
            match command {
                Command::Add(peer) => self.pipeline.add(peer),
                Command::Remove(slot, done) => {
                    self.pipeline.remove(slot);
                    // The sender of the command may have stopped waiting.
                    done.try_send(()).ok();
                }
                Command::Exit(change) => {
                    if let Some(exit) = self.pipeline.exit() {
                        change(exit);
                    }
                }
                Command::Stop => self.is_stopped = true,
            }
        }
        for _ in 0..INITIATIONS_PER_ITERATION {
            let Some(initiation) = self.mailbox.initiations.pop() else { break };
            self.pipeline.handle_initiation(&initiation);
        }
        while let Some(misdirected) = self.mailbox.misdirected.pop() {
            match misdirected {
                Misdirected::Datagram(datagram, outer) => {
                    self.pipeline.handle_datagram(outer, &datagram);
                }
                Misdirected::TunPacket(mut packet) => {
                    let len = packet.len().saturating_sub(TAILROOM);
                    if self.pipeline.handle_tun_packet(&mut packet, len) == Handled::NextIteration {
                        self.put_back(packet);
                        break;
                    }
                }
            }
        }
        let packets = self.take_parcels();
        self.pipeline.resume();
        self.pipeline.release_held();
        if self.now >= self.next_tick && self.pipeline.wants_ticks() {
            self.next_tick = self.now + TICK_INTERVAL;
            self.pipeline.tick();
            self.pipeline.stats().cpu_nanos.store(thread_cpu_nanos(), Relaxed);
        }
        packets
    }

    /// Takes parcels, as far as there is room in this iteration, and gives their memory back.
    fn take_parcels(&mut self) -> u32 {
        let mut packets = 0;
        while self.pipeline.has_room_for_parcel()
            && let Some((from, mut parcel)) = self.mailbox.parcels.pop()
        {
            packets += self.pipeline.handle_parcel(&mut parcel);
            parcel.clear();
            if let Some(sender) = self.workers.get(from as usize) {
                // Too many are on their way back. This one is dropped.
                sender.returned.push(parcel).ok();
            }
        }
        packets
    }

    fn put_back(&mut self, packet: BytesMut) {
        if self.mailbox.misdirected.push(Misdirected::TunPacket(packet)).is_err() {
            self.pipeline.stats().refuse(DropReason::DownWorkerQueueFull);
        }
        // The next iteration has room for it, and must begin at once.
        self.mailbox.waker().wake();
    }

    /// Hands what belongs to other threads to them.
    fn hand_over(&mut self) {
        let stats = Arc::clone(self.pipeline.stats());
        let mut wake_handshakes = false;
        let mut wake = 0u64;
        while let Some(parcel) = self.mailbox.returned.pop() {
            self.pipeline.reuse(parcel);
        }
        let number = self.pipeline.worker();
        for (owner, parcel) in self.pipeline.take_parcels() {
            wake |= 1 << (owner % 64);
            let Some(mailbox) = self.workers.get(owner as usize) else { continue };
            if let Err((_, parcel)) = mailbox.parcels.push((number, parcel)) {
                parcel.reasons().for_each(|reason| stats.refuse(reason));
            }
        }
        for (owner, misdirected) in self.pipeline.take_misdirected() {
            let (taken, reason) = match (owner, misdirected) {
                (Owner::Handshakes, Misdirected::Datagram(message, outer)) => {
                    wake_handshakes = true;
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
                    wake |= 1 << (worker % 64);
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
        if wake_handshakes {
            self.handshakes.wake();
        }
        if wake != 0 {
            for (index, mailbox) in self.workers.iter().enumerate() {
                if wake & 1 << (index % 64) != 0 {
                    mailbox.waker().wake();
                }
            }
        }
    }
}
