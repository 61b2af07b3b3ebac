//! Identifies the peer of each handshake initiation, on a thread of its own. Forged, rate-limited and
//! unknown-peer initiations are dropped here and never reach a worker, so they cost established
//! sessions nothing. The checks are those of the WireGuard whitepaper, sections 5.1 to 5.4.

pub(crate) mod directory;
pub(crate) mod mailbox;
pub(crate) mod source_limit;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use boringtun::noise::{Packet, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter};
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use weir_common::{
    DropReason, PeerIndex, SlotPermutation,
    account::add_single_writer,
    gcra::Rate,
    wire::{COOKIE_REPLY_LEN, INITIATION_LEN, Message},
};

use self::{directory::Directory, mailbox::HandshakeMailbox, source_limit::SourceLimiter};
use crate::{
    io::udp::{Sockets, receive_one, send_one},
    limit::meters::InitiationMeters,
    mailbox::{Initiation, Mailboxes},
    now::Now,
    outer::Outer,
    pipeline::Misdirected,
    stats::WorkerStats,
};
use weir_accounts::Accounts;
use weir_wireguard::{
    identity::{Identities, Identity},
    initiation::Claim,
};

/// The most that one receive call returns, in bytes.
const SUPER_PACKET: usize = 65_536;
/// The maximum number of super-packets from a socket, and of initiations from the queue, before the
/// other sources are served and the clock is read again.
const BATCH: usize = 64;
/// The interval, in nanoseconds, in which handshakes are counted towards cookies.
const COOKIE_COUNT_INTERVAL: u64 = 1_000_000_000;

/// The limits on handshakes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The rate of one source.
    pub per_source: Rate,
    /// The number of initiations per second, from all sources, above which cookies are required.
    pub before_cookies: u32,
}

/// One of the node's keys, with its cookie limiter.
struct Responder {
    identity: Identity,
    cookies: RateLimiter,
}

/// The thread's state.
pub(crate) struct Handshakes {
    identities: Arc<Identities>,
    responders: Vec<Responder>,
    /// [`Identities::changes`] when the responders were made.
    changes: u64,
    before_cookies: u32,
    permutation: SlotPermutation,
    directory: Arc<Directory>,
    accounts: Arc<Accounts>,
    workers: Mailboxes,
    mailbox: Arc<HandshakeMailbox>,
    sockets: Sockets,
    /// Whether eBPF steers initiations to `sockets`. Otherwise they only send.
    listens: bool,
    stats: Arc<WorkerStats>,
    sources: SourceLimiter,
    peers: InitiationMeters,
    /// Whether an initiation came since the last count began, and when that was in nanoseconds.
    counted: bool,
    counted_since: u64,
}

/// What the handshake thread is built from.
pub(crate) struct Parts {
    /// The node's keys.
    pub identities: Arc<Identities>,
    /// The secret permutation of slots to peer indexes.
    pub permutation: SlotPermutation,
    /// The keys of the sessions.
    pub directory: Arc<Directory>,
    /// The accounts, which keep the newest initiation of each slot.
    pub accounts: Arc<Accounts>,
    /// The workers.
    pub workers: Mailboxes,
    /// Its own mailbox.
    pub mailbox: Arc<HandshakeMailbox>,
    /// Its sockets.
    pub sockets: Sockets,
    /// Whether initiations arrive at these sockets.
    pub listens: bool,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// The limits.
    pub limits: Limits,
}

impl Handshakes {
    /// Creates the state of the thread.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            identities, permutation, directory, accounts, workers, mailbox, sockets, ..
        } = parts;
        let sources = SourceLimiter::new(parts.limits.per_source);
        let mut handshakes = Self {
            identities,
            responders: Vec::new(),
            changes: 0,
            before_cookies: parts.limits.before_cookies,
            permutation,
            directory,
            accounts,
            workers,
            mailbox,
            sockets,
            listens: parts.listens,
            stats: parts.stats,
            sources,
            peers: InitiationMeters::default(),
            counted: false,
            counted_since: 0,
        };
        handshakes.update_responders();
        handshakes
    }

    /// Takes over the current identities. Keeps the limiters of those that stay.
    fn update_responders(&mut self) {
        self.changes = self.identities.changes();
        let mut old = std::mem::take(&mut self.responders);
        for identity in self.identities.get().iter() {
            let kept =
                old.iter().position(|responder| responder.identity.public() == identity.public());
            let limit = u64::from(self.before_cookies);
            self.responders.push(kept.map_or_else(
                || Responder {
                    identity: identity.clone(),
                    cookies: RateLimiter::new(identity.public(), limit),
                },
                |at| old.swap_remove(at),
            ));
        }
    }

    /// Runs until [`HandshakeMailbox::stop`].
    ///
    /// # Errors
    ///
    /// Fails if waiting fails. No packet can cause this.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0u8; SUPER_PACKET];
        while !self.mailbox.stop.load(Relaxed) {
            self.wait()?;
            self.batch(&mut buffer, Now::read().nanos);
        }
        Ok(())
    }

    /// Takes some of what has arrived by `now`, in nanoseconds of a monotonic clock.
    fn batch(&mut self, buffer: &mut [u8], now: u64) {
        if now.saturating_sub(self.counted_since) >= COOKIE_COUNT_INTERVAL {
            self.responders.iter().for_each(|responder| responder.cookies.reset_count());
            (self.counted, self.counted_since) = (false, now);
        }
        self.mailbox.waker.drain();
        if let Some(limits) = self.mailbox.limits.pop() {
            self.limit(limits);
        }
        for _ in 0..BATCH {
            let Some((message, from)) = self.mailbox.queue.pop() else { break };
            self.counted = true;
            self.take(&message, &from.into(), now);
        }
        if self.listens {
            self.counted |= self.drain(buffer, now);
        }
        for worker in self.workers.iter() {
            if !worker.initiations.is_empty() {
                worker.waker().wake();
            }
        }
    }

    /// Changes the limits. All sources get a full burst, and cookies given out are void.
    fn limit(&mut self, limits: Limits) {
        let Limits { per_source, before_cookies } = limits;
        self.before_cookies = before_cookies;
        self.responders.clear();
        self.update_responders();
        self.sources = SourceLimiter::new(per_source);
    }

    /// Waits for input, but not beyond the interval if a count must be reset.
    fn wait(&self) -> io::Result<()> {
        if !self.mailbox.queue.is_empty() {
            // The last batch has left some, for which no wake-up comes.
            return Ok(());
        }
        let mut fds = vec![PollFd::new(&self.mailbox.waker, PollFlags::IN)];
        if self.listens {
            fds.push(PollFd::new(&self.sockets.v4, PollFlags::IN));
            fds.extend(self.sockets.v6.as_ref().map(|v6| PollFd::new(v6, PollFlags::IN)));
        }
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut fds, self.counted.then_some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn drain(&mut self, buffer: &mut [u8], now: u64) -> bool {
        let mut any = false;
        for v6 in [false, true] {
            for _ in 0..BATCH {
                let Some(socket) = self.socket(v6) else { break };
                let Some((len, received)) = receive_one(socket, buffer) else { break };
                any = true;
                let payload = buffer.get(..len).unwrap_or_default();
                for message in payload.chunks(received.segment.unwrap_or(len).max(1)) {
                    self.take(message, &received.outer(), now);
                }
            }
        }
        any
    }

    fn socket(&self, v6: bool) -> Option<BorrowedFd<'_>> {
        if v6 { self.sockets.v6.as_ref().map(AsFd::as_fd) } else { Some(self.sockets.v4.as_fd()) }
    }

    fn take(&mut self, message: &[u8], outer: &Outer<'static>, now: u64) {
        if let Err(reason) = self.judge(message, outer, now) {
            self.stats.refuse(reason);
        }
    }

    fn judge(
        &mut self,
        message: &[u8],
        outer: &Outer<'static>,
        now: u64,
    ) -> Result<(), DropReason> {
        let from = outer.from;
        match Message::parse(message).map_err(|_| DropReason::MalformedMessage)? {
            Message::Initiation => {}
            Message::Response { receiver_index }
            | Message::CookieReply { receiver_index }
            | Message::Data { receiver_index } => {
                return self.pass_on(receiver_index, message, outer);
            }
        }
        if self.changes != self.identities.changes() {
            self.update_responders();
        }
        let source = from.remote.ip();
        let mut cookie = [0; COOKIE_REPLY_LEN];
        let mut found = None;
        for responder in &self.responders {
            match responder.cookies.verify_packet(Some(source), message, &mut cookie) {
                Ok(Packet::HandshakeInit(_)) => {
                    found = Some(responder.identity.clone());
                    break;
                }
                Err(TunnResult::WriteToNetwork(reply)) => {
                    if let Some(socket) = self.socket(from.remote.is_ipv6()) {
                        send_one(socket, &from, reply).ok();
                    }
                    add_single_writer(&self.stats.cookies, 1);
                    return Ok(());
                }
                // It may be for the other key.
                Err(TunnResult::Err(WireGuardError::InvalidMac)) => {}
                Ok(_) | Err(_) => return Err(DropReason::HandshakeInvalid),
            }
        }
        let identity = found.ok_or(DropReason::Mac1)?;
        // After the cookie, so that spoofed sources do not use up the buckets of real ones.
        if !self.sources.allow(source, now) {
            return Err(DropReason::HandshakeSourceRate);
        }
        let claim = Claim::read(&identity, message).ok_or(DropReason::HandshakeInvalid)?;
        let slot = self.directory.authenticate(&claim, &identity, &self.accounts)?;
        if !self.peers.take(slot, now) {
            return Err(DropReason::PeerInitiations);
        }
        let worker = slot.worker(self.workers.len() as u32) as usize;
        let worker = self.workers.get(worker).ok_or(DropReason::UnknownPeer)?;
        debug_assert_eq!(message.len(), INITIATION_LEN);
        let initiation =
            Initiation { slot, from, identity, message: Bytes::copy_from_slice(message) };
        worker.initiations.push(initiation).map_err(|_| DropReason::HandshakeQueueFull)
    }

    /// Hands on a message that the kernel coalesced behind an initiation.
    fn pass_on(
        &self,
        receiver: u32,
        message: &[u8],
        outer: &Outer<'static>,
    ) -> Result<(), DropReason> {
        let slot = self.permutation.slot_of(PeerIndex::of_receiver_index(receiver));
        let worker = slot.worker(self.workers.len() as u32) as usize;
        let worker = self.workers.get(worker).ok_or(DropReason::UnknownIndex)?;
        let misdirected = Misdirected::Datagram(Bytes::copy_from_slice(message), *outer);
        worker.misdirected.push(misdirected).map_err(|_| DropReason::WorkerQueueFull)?;
        worker.waker().wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
