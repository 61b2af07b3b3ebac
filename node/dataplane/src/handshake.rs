//! The handshake thread: finds out whose an initiation is before any worker hears of it. What is
//! forged, too frequent or of nobody ends here, and costs established sessions nothing.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use boringtun::{
    noise::{Packet, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter},
    x25519::SharedSecret,
};
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use weir_common::{
    DropReason, PeerIndex, Slot, SlotPermutation,
    account::add_single_writer,
    gcra::Rate,
    wire::{COOKIE_REPLY_LEN, INITIATION_LEN, Message},
};

use crate::{
    inbox::{Bell, Inboxes, Initiation},
    limiter::SourceLimiter,
    message::{receive_one, send_one},
    meters::InitiationMeters,
    now::Now,
    outer::Outer,
    pipeline::Stray,
    stats::WorkerStats,
    udp::Sockets,
};
use weir_accounts::Accounts;
use weir_accounts::Endpoint;
use weir_wireguard::{
    identity::{Identities, Identity},
    initiation::{Claim, agree},
};

/// Initiations that may wait for the thread: a tenth of a second of its work.
const QUEUE: usize = 1024;
/// The most that a receive can bring.
const SUPER_PACKET: usize = 65_536;
/// Super-packets taken from a socket, and initiations from the queue, before the others get their
/// turn and the clock is read again.
const BATCH: usize = 64;
/// After so many nanoseconds handshakes are counted anew.
const COUNTED_FOR: u64 = 1_000_000_000;

/// Which session has which static key.
#[derive(Default)]
pub struct Directory(RwLock<Keys>);

/// Both ways, so that no change looks at the keys of others.
#[derive(Default)]
struct Keys {
    known: HashMap<[u8; 32], Known>,
    of_slot: HashMap<Slot, [u8; 32]>,
}

/// A session, as the handshake thread knows it.
struct Known {
    slot: Slot,
    /// What the key shares with each of the node's that it was used for, at most two: working it
    /// out costs a scalar multiplication.
    shared: Mutex<Vec<([u8; 32], Arc<SharedSecret>)>>,
}

impl Known {
    fn shared(&self, identity: &Identity, key: [u8; 32]) -> Option<Arc<SharedSecret>> {
        let node = identity.public().to_bytes();
        let mut kept = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shared)) = kept.iter().find(|(of, _)| *of == node) {
            return Some(Arc::clone(shared));
        }
        let shared = Arc::new(agree(identity, key)?);
        if kept.len() >= 2 {
            kept.remove(0);
        }
        kept.push((node, Arc::clone(&shared)));
        Some(shared)
    }
}

impl Directory {
    /// Knows a slot's key from now on, in place of the one that it had.
    pub fn insert(&self, key: [u8; 32], slot: Slot) {
        let known = Known { slot, shared: Mutex::default() };
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = keys.of_slot.insert(slot, key) {
            keys.known.remove(&before);
        }
        keys.known.insert(key, known);
    }

    /// Knows the key of a slot no more. Nothing that [`Directory::authenticate`] has begun for it
    /// goes on afterwards.
    pub fn remove(&self, slot: Slot) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = keys.of_slot.remove(&slot) else { return };
        // Another slot may have it by now.
        if keys.known.get(&key).is_some_and(|known| known.slot == slot) {
            keys.known.remove(&key);
        }
    }

    /// Finds out whether an initiation is of the key that it names, and newer than all that its
    /// session has had, and makes it the newest one if so.
    ///
    /// # Errors
    ///
    /// Says that no session has the key, that the sender does not have it, or that the initiation
    /// is a replay.
    fn authenticate(
        &self,
        claim: &Claim,
        identity: &Identity,
        accounts: &Accounts,
    ) -> Result<Slot, DropReason> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = keys.known.get(&claim.static_public).ok_or(DropReason::UnknownPeer)?;
        let shared = known.shared(identity, claim.static_public);
        let timestamp = shared.and_then(|shared| claim.prove(&shared));
        let timestamp = timestamp.ok_or(DropReason::HandshakeInvalid)?;
        let account = accounts.get(known.slot).ok_or(DropReason::UnknownPeer)?;
        let newest = &account.whereabouts.newest_initiation;
        if !timestamp.is_after(newest) {
            return Err(DropReason::HandshakeReplay);
        }
        timestamp.save(newest);
        Ok(known.slot)
    }
}

/// What workers hand to the handshake thread.
pub struct HandshakeInbox {
    queue: ArrayQueue<(Bytes, Endpoint)>,
    bell: Bell,
    stop: AtomicBool,
    /// The latest change of the limits that the thread has not seen yet.
    limits: ArrayQueue<Limits>,
}

impl HandshakeInbox {
    /// An empty inbox.
    ///
    /// # Errors
    ///
    /// Fails when the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(QUEUE),
            bell: Bell::new()?,
            stop: AtomicBool::new(false),
            limits: ArrayQueue::new(1),
        })
    }

    /// Hands over an initiation; `false` if the queue is full.
    pub fn push(&self, message: Bytes, from: Endpoint) -> bool {
        self.queue.push((message, from)).is_ok()
    }

    /// Wakes the thread.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Changes how many handshakes are let through. Returns at once.
    pub fn set_limits(&self, limits: Limits) {
        // One that it had not seen yet is void.
        let _earlier: Option<Limits> = self.limits.force_push(limits);
        self.bell.ring();
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.bell.ring();
    }
}

/// How many handshakes are let through.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one source.
    pub per_source: Rate,
    /// Of all sources, per second, before cookies are asked for.
    pub before_cookies: u32,
}

/// One of the node's keys, and what is counted for it.
struct Door {
    identity: Identity,
    cookies: RateLimiter,
}

/// The thread's state.
pub struct Handshakes {
    identities: Arc<Identities>,
    doors: Vec<Door>,
    /// Of the identities, when the doors were made.
    changes: u64,
    before_cookies: u32,
    permutation: SlotPermutation,
    directory: Arc<Directory>,
    accounts: Arc<Accounts>,
    workers: Inboxes,
    inbox: Arc<HandshakeInbox>,
    sockets: Sockets,
    /// Whether initiations arrive at `sockets` (by eBPF); else they are only sent from.
    listens: bool,
    stats: Arc<WorkerStats>,
    sources: SourceLimiter,
    peers: InitiationMeters,
    /// Something came since handshakes were counted anew, and when that was.
    counted: bool,
    counted_since: u64,
}

/// What the handshake thread is made of.
pub struct Parts {
    /// The node's keys.
    pub identities: Arc<Identities>,
    /// How peer indexes hide slots.
    pub permutation: SlotPermutation,
    /// Whose keys are known.
    pub directory: Arc<Directory>,
    /// The accounts of all slots, which keep the newest initiation of each.
    pub accounts: Arc<Accounts>,
    /// The workers.
    pub workers: Inboxes,
    /// Its own inbox.
    pub inbox: Arc<HandshakeInbox>,
    /// Its sockets.
    pub sockets: Sockets,
    /// Whether initiations arrive at these sockets.
    pub listens: bool,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// How much it lets through.
    pub limits: Limits,
}

impl Handshakes {
    /// The state of a thread that has seen nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { identities, permutation, directory, accounts, workers, inbox, sockets, .. } =
            parts;
        let sources = SourceLimiter::new(parts.limits.per_source);
        let mut handshakes = Self {
            identities,
            doors: Vec::new(),
            changes: 0,
            before_cookies: parts.limits.before_cookies,
            permutation,
            directory,
            accounts,
            workers,
            inbox,
            sockets,
            listens: parts.listens,
            stats: parts.stats,
            sources,
            peers: InitiationMeters::default(),
            counted: false,
            counted_since: 0,
        };
        handshakes.open_doors();
        handshakes
    }

    /// Takes over the identities as they are now. What was counted for those that stay is kept.
    fn open_doors(&mut self) {
        self.changes = self.identities.changes();
        let mut old = std::mem::take(&mut self.doors);
        for identity in self.identities.get().iter() {
            let kept = old.iter().position(|door| door.identity.public() == identity.public());
            let limit = u64::from(self.before_cookies);
            self.doors.push(kept.map_or_else(
                || Door {
                    identity: identity.clone(),
                    cookies: RateLimiter::new(identity.public(), limit),
                },
                |at| old.swap_remove(at),
            ));
        }
    }

    /// Runs until [`HandshakeInbox::stop`].
    ///
    /// # Errors
    ///
    /// Fails when waiting fails, which no packet can cause.
    pub fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0u8; SUPER_PACKET];
        while !self.inbox.stop.load(Relaxed) {
            self.wait()?;
            self.batch(&mut buffer, Now::read().nanos);
        }
        Ok(())
    }

    /// Takes some of what has come by `now`, in nanoseconds of a clock that does not go backwards.
    fn batch(&mut self, buffer: &mut [u8], now: u64) {
        if now.saturating_sub(self.counted_since) >= COUNTED_FOR {
            self.doors.iter().for_each(|door| door.cookies.reset_count());
            (self.counted, self.counted_since) = (false, now);
        }
        self.inbox.bell.silence();
        if let Some(limits) = self.inbox.limits.pop() {
            self.limit(limits);
        }
        for _ in 0..BATCH {
            let Some((message, from)) = self.inbox.queue.pop() else { break };
            self.counted = true;
            self.take(&message, &from.into(), now);
        }
        if self.listens {
            self.counted |= self.drain(buffer, now);
        }
        for worker in self.workers.iter() {
            if !worker.initiations.is_empty() {
                worker.bell().ring();
            }
        }
    }

    /// Every source begins anew, and cookies given out are void.
    fn limit(&mut self, limits: Limits) {
        let Limits { per_source, before_cookies } = limits;
        self.before_cookies = before_cookies;
        self.doors.clear();
        self.open_doors();
        self.sources = SourceLimiter::new(per_source);
    }

    /// Waits for something to do; not longer than a second if something must be counted anew.
    fn wait(&self) -> io::Result<()> {
        if !self.inbox.queue.is_empty() {
            // The last batch has left some, for which nobody rings again.
            return Ok(());
        }
        let mut fds = vec![PollFd::new(&self.inbox.bell, PollFlags::IN)];
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
            self.open_doors();
        }
        let source = from.remote.ip();
        let mut cookie = [0; COOKIE_REPLY_LEN];
        let mut found = None;
        for door in &self.doors {
            match door.cookies.verify_packet(Some(source), message, &mut cookie) {
                Ok(Packet::HandshakeInit(_)) => {
                    found = Some(door.identity.clone());
                    break;
                }
                Err(TunnResult::WriteToNetwork(reply)) => {
                    if let Some(socket) = self.socket(from.remote.is_ipv6()) {
                        send_one(socket, &from, reply).ok();
                    }
                    add_single_writer(&self.stats.cookies, 1);
                    return Ok(());
                }
                // Perhaps it is for the other key.
                Err(TunnResult::Err(WireGuardError::InvalidMac)) => {}
                Ok(_) | Err(_) => return Err(DropReason::HandshakeInvalid),
            }
        }
        let identity = found.ok_or(DropReason::Mac1)?;
        // After the cookie: spoofed sources must not use up the buckets of real ones.
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

    /// A message of a session that came here merged behind an initiation.
    fn pass_on(
        &self,
        receiver: u32,
        message: &[u8],
        outer: &Outer<'static>,
    ) -> Result<(), DropReason> {
        let slot = self.permutation.slot_of(PeerIndex::of_receiver_index(receiver));
        let worker = slot.worker(self.workers.len() as u32) as usize;
        let worker = self.workers.get(worker).ok_or(DropReason::UnknownIndex)?;
        let stray = Stray::Datagram(Bytes::copy_from_slice(message), *outer);
        worker.strays.push(stray).map_err(|_| DropReason::WorkerQueueFull)?;
        worker.bell().ring();
        Ok(())
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod batch_tests;
#[cfg(test)]
mod tests {
    use super::*;

    fn slot_of(directory: &Directory, key: [u8; 32]) -> Option<Slot> {
        directory.0.read().expect("no panic").known.get(&key).map(|known| known.slot)
    }

    #[test]
    fn a_slots_key_goes_with_it_and_anothers_stays() {
        let directory = Directory::default();
        directory.insert([1; 32], Slot(1));
        directory.insert([2; 32], Slot(2));
        directory.remove(Slot(1));
        assert_eq!(slot_of(&directory, [1; 32]), None);
        assert_eq!(slot_of(&directory, [2; 32]), Some(Slot(2)));
        directory.insert([3; 32], Slot(2));
        assert_eq!(slot_of(&directory, [2; 32]), None, "a slot has one key");
        // A consumer that comes back before its former session's slot is told to go.
        directory.insert([3; 32], Slot(4));
        directory.remove(Slot(2));
        assert_eq!(slot_of(&directory, [3; 32]), Some(Slot(4)));
        let keys = directory.0.read().expect("not poisoned");
        assert_eq!((keys.known.len(), keys.of_slot.len()), (1, 1), "nothing is left behind");
    }
}
