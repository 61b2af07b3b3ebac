//! The account of a session: one record in memory that the kernel and user space share.

#[cfg(target_has_atomic = "32")]
use core::sync::atomic::AtomicU32;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::packet::Source;

#[cfg(not(target_has_atomic = "32"))]
use narrow::AtomicU32;

/// What a session may do. The control plane writes it, the guard and the worker read it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The slot has no session.
    Vacant = 0,
    /// Traffic passes.
    Open = 1,
    /// The credit is used up: only the gateway's own services are reachable.
    Paused = 2,
    /// Nothing passes.
    Closed = 3,
}

impl SessionState {
    /// The state that a raw value of the account stands for; unknown values close the session.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Vacant,
            1 => Self::Open,
            2 => Self::Paused,
            _ => Self::Closed,
        }
    }

    /// What a session may do with this raw state, this [`Control::limit`] and this
    /// [`WorkerState::spent`]: an open one whose credit is used up is paused.
    #[must_use]
    #[inline(always)]
    pub const fn standing(state: u32, limit: u64, spent: u64) -> Self {
        match Self::from_raw(state) {
            Self::Open if limit != 0 && limit == spent => Self::Paused,
            state => state,
        }
    }
}

/// What the kernel's guard saw of a session. Nothing here is authenticated: anyone can send a
/// datagram with somebody's receiver index. Written by XDP on any core, with atomic adds.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Seen {
    /// Data messages with this session's receiver index.
    pub datagrams: AtomicU64,
    /// Their UDP payload, in bytes.
    pub bytes: AtomicU64,
    /// Handshake responses and cookie replies with this session's receiver index.
    pub handshakes: AtomicU64,
    /// Of all of these, the ones that the guard dropped.
    pub dropped_datagrams: AtomicU64,
    /// The UDP payload of the dropped ones, in bytes.
    pub dropped_bytes: AtomicU64,
    /// The bucket of a paused session's data, a [`crate::gcra::Gcra`]. Written without a lock: of two cores at the same moment, one
    /// may pass a datagram too many.
    pub paused_full_at: AtomicU64,
    /// The same for data from another address than the session's endpoint.
    pub roaming_full_at: AtomicU64,
    /// The same for handshake responses and cookie replies.
    pub responses_full_at: AtomicU64,
}

/// What is billed: authenticated data messages, as UDP payload (inner packet, padding and 32
/// bytes of WireGuard), the unit that `wg show transfer` has. Written by the owning worker only.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Metered {
    /// Bytes from the consumer.
    pub bytes_up: AtomicU64,
    /// Data messages from the consumer.
    pub packets_up: AtomicU64,
    /// Bytes to the consumer, counted once the kernel has taken them.
    pub bytes_down: AtomicU64,
    /// Data messages to the consumer.
    pub packets_down: AtomicU64,
    /// Authenticated handshake messages from the consumer, in bytes. Not billed.
    pub handshake_bytes_up: AtomicU64,
    /// Handshake messages to the consumer, in bytes. Not billed.
    pub handshake_bytes_down: AtomicU64,
    /// When the last handshake was completed, in seconds since 1970; 0 for never.
    pub last_handshake: AtomicU64,
    /// Data messages both ways, in bytes, that are not billed: what a paused session exchanges with
    /// the gateway to pay, what it sent beyond that, and what a session sent beyond its rate.
    pub unbilled_bytes: AtomicU64,
}

/// What the worker knows of the session beyond its counters. The last endpoint lets a restarted
/// node initiate a handshake with the consumer. The endpoint stays in memory: it is never written
/// to a disk, a log or a metric. Only the owning worker writes here, but for `newest_initiation`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct WorkerState {
    /// The IPv6 or IPv4-mapped address in two big-endian halves.
    pub address: [AtomicU64; 2],
    /// The UDP port; 0 for unknown.
    pub port: AtomicU32,
    /// The interface scope of a link-local address.
    pub scope: AtomicU32,
    /// The [`Control::limit`] that the worker found used up; 0 for none. Another limit than this
    /// one is new credit. It is here because this cache line is rarely written.
    pub spent: AtomicU64,
    /// Inner packets from the consumer that were dropped for its rate, in bytes.
    pub limited_up: AtomicU64,
    /// Inner packets to the consumer that were dropped for its rate, in bytes.
    pub limited_down: AtomicU64,
    /// The TAI64N timestamp of the newest accepted initiation, as one number; 0 for none. Older
    /// initiations are refused as replays (WireGuard whitepaper, section 5.4.2). Only the handshake
    /// thread writes it.
    pub newest_initiation: AtomicU64,
    reserved: u64,
}

/// The settings of the slot. Only the control plane writes here.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Control {
    /// The identifier of the session that the record belongs to; 0 for none. Counters of a record
    /// that names another session are never taken for this one's.
    pub session: AtomicU64,
    /// A [`SessionState`].
    pub state: AtomicU32,
    reserved: u32,
    /// How many billed bytes the session may have, up and down together and since it was made; 0
    /// for no limit. A datagram that does not fit any more pauses the session.
    pub limit: AtomicU64,
    /// How many bytes of inner packets per second the consumer may send; 0 for no limit.
    pub rate_up: AtomicU64,
    /// How many bytes of inner packets per second the consumer may get; 0 for no limit.
    pub rate_down: AtomicU64,
    rest: [u64; 3],
}

/// One slot's record. Four cache lines, one per writer, so that writers never share a line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Account {
    /// The guard's.
    pub seen: Seen,
    /// The worker's.
    pub metered: Metered,
    /// The worker's.
    pub worker: WorkerState,
    /// The control plane's.
    pub control: Control,
}

const _: () = assert!(size_of::<Account>() == 256 && align_of::<Account>() == 64);

/// How a counter of one session goes into a total of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// The sum.
    Sum,
    /// The highest: it is a time.
    Latest,
}

/// Declares the counters of an account that outlive it, in the order of their columns in the ledger:
/// `name: place in the account, total;`. Copying, assigning, raising and adding them up all come from
/// this list; a test of the ledger holds its schema and statements to it.
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident: $line:ident.$field:ident, $total:ident;)*) => {
        /// A consistent-enough copy of the counters, for reports: each counter is exact, and never
        /// newer than the next read of it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// How many there are.
            pub const COUNT: usize = Self::NAMES.len();
            /// Their names, in order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
            /// How each goes into a total, in this order.
            pub const TOTALS: [Total; Self::COUNT] = [$(Total::$total),*];

            /// The counters in this order.
            #[must_use]
            pub const fn to_array(&self) -> [u64; Self::COUNT] {
                [$(self.$name),*]
            }

            /// The inverse of [`Counters::to_array`].
            #[must_use]
            pub const fn from_array([$($name),*]: [u64; Self::COUNT]) -> Self {
                Self { $($name),* }
            }
        }

        impl Account {
            /// The places of the counters, in the order of [`Counters::NAMES`].
            #[must_use]
            pub const fn counter_cells(&self) -> [&AtomicU64; Counters::COUNT] {
                [$(&self.$line.$field),*]
            }
        }
    };
}

counters! {
    /// See [`Metered::bytes_up`].
    bytes_up: metered.bytes_up, Sum;
    /// See [`Metered::packets_up`].
    packets_up: metered.packets_up, Sum;
    /// See [`Metered::bytes_down`].
    bytes_down: metered.bytes_down, Sum;
    /// See [`Metered::packets_down`].
    packets_down: metered.packets_down, Sum;
    /// See [`Metered::handshake_bytes_up`].
    handshake_bytes_up: metered.handshake_bytes_up, Sum;
    /// See [`Metered::handshake_bytes_down`].
    handshake_bytes_down: metered.handshake_bytes_down, Sum;
    /// See [`Metered::last_handshake`].
    last_handshake: metered.last_handshake, Latest;
    /// See [`Seen::datagrams`].
    seen_datagrams: seen.datagrams, Sum;
    /// See [`Seen::bytes`].
    seen_bytes: seen.bytes, Sum;
    /// See [`Seen::dropped_datagrams`].
    dropped_datagrams: seen.dropped_datagrams, Sum;
    /// See [`Seen::dropped_bytes`].
    dropped_bytes: seen.dropped_bytes, Sum;
    /// See [`WorkerState::newest_initiation`].
    newest_initiation: worker.newest_initiation, Latest;
}

impl WorkerState {
    /// Whether a datagram from `source` comes from the consumer's endpoint. The worker may write
    /// at the same time: then it may say no, and for an address that is half the old one and half
    /// the new one yes.
    #[must_use]
    pub fn is_at(&self, source: &Source) -> bool {
        let [high, low] = &self.address;
        source.is_at([high.load(Relaxed), low.load(Relaxed)], self.port.load(Relaxed))
    }
}

impl Account {
    /// A copy of the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::from_array(self.counter_cells().map(|cell| cell.load(Relaxed)))
    }

    /// Gives the record to session `id`, with counters that go on from `base`. The caller makes
    /// sure that no worker serves the slot meanwhile.
    pub fn assign(&self, id: u64, base: &Counters) {
        self.control.state.store(SessionState::Vacant as u32, Relaxed);
        let (seen, metered) = (&self.seen, &self.metered);
        for (cell, value) in self.counter_cells().into_iter().zip(base.to_array()) {
            cell.store(value, Relaxed);
        }
        seen.handshakes.store(0, Relaxed);
        for full_at in [&seen.paused_full_at, &seen.roaming_full_at, &seen.responses_full_at] {
            full_at.store(0, Relaxed);
        }
        metered.unbilled_bytes.store(0, Relaxed);
        self.worker.port.store(0, Relaxed);
        self.worker.spent.store(0, Relaxed);
        self.worker.limited_up.store(0, Relaxed);
        self.worker.limited_down.store(0, Relaxed);
        self.control.limit.store(0, Relaxed);
        self.set_rates(0, 0);
        self.control.session.store(id, Relaxed);
    }

    /// Takes over all that `other` says. The caller makes sure that nobody writes to either
    /// meanwhile, or that it does not matter.
    pub fn copy_from(&self, other: &Self) {
        let copy = |to: &AtomicU64, from: &AtomicU64| to.store(from.load(Relaxed), Relaxed);
        self.assign(other.control.session.load(Relaxed), &other.counters());
        copy(&self.seen.handshakes, &other.seen.handshakes);
        for (to, from) in self.worker.address.iter().zip(&other.worker.address) {
            copy(to, from);
        }
        self.worker.port.store(other.worker.port.load(Relaxed), Relaxed);
        self.worker.scope.store(other.worker.scope.load(Relaxed), Relaxed);
        copy(&self.metered.unbilled_bytes, &other.metered.unbilled_bytes);
        copy(&self.worker.spent, &other.worker.spent);
        copy(&self.worker.limited_up, &other.worker.limited_up);
        copy(&self.worker.limited_down, &other.worker.limited_down);
        copy(&self.control.limit, &other.control.limit);
        copy(&self.control.rate_up, &other.control.rate_up);
        copy(&self.control.rate_down, &other.control.rate_down);
        self.control.state.store(other.control.state.load(Relaxed), Relaxed);
    }

    /// Takes the record back from its session: everything is zero afterwards.
    pub fn vacate(&self) {
        self.assign(0, &Counters::default());
    }

    /// What the session may do.
    #[must_use]
    pub fn state(&self) -> SessionState {
        SessionState::from_raw(self.control.state.load(Relaxed))
    }

    /// Says what the session may do.
    pub fn set_state(&self, state: SessionState) {
        self.control.state.store(state as u32, Relaxed);
    }

    /// What the session may do now: its state, but paused when its credit is used up.
    #[must_use]
    #[inline(always)]
    pub fn standing(&self) -> SessionState {
        let state = self.control.state.load(Relaxed);
        SessionState::standing(
            state,
            self.control.limit.load(Relaxed),
            self.worker.spent.load(Relaxed),
        )
    }

    /// Sets how many billed bytes the session may have, up and down together and since it was
    /// made; `None` for no limit. Takes effect with the next datagram.
    pub fn set_limit(&self, limit: Option<u64>) {
        // 0 means unlimited, so a limit of zero bytes is stored as 1, which no datagram fits.
        self.control.limit.store(limit.map_or(0, |limit| limit.max(1)), Relaxed);
    }

    /// How many billed bytes the session may have, as [`Account::set_limit`] said.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        Some(self.control.limit.load(Relaxed)).filter(|limit| *limit != 0)
    }

    /// Sets how many bytes of inner packets per second the session may send and get; 0 for no
    /// limit. Takes effect with the next datagram.
    pub fn set_rates(&self, up: u64, down: u64) {
        self.control.rate_up.store(up, Relaxed);
        self.control.rate_down.store(down, Relaxed);
    }

    /// Whether no further datagram fits within `limit`: the worker has met one that did not.
    #[must_use]
    pub fn is_spent(&self, limit: u64) -> bool {
        limit != 0 && self.worker.spent.load(Relaxed) == limit
    }

    /// What is billed, up and down together.
    #[must_use]
    pub fn billed(&self) -> u64 {
        let (up, down) = (&self.metered.bytes_up, &self.metered.bytes_down);
        up.load(Relaxed).wrapping_add(down.load(Relaxed))
    }
}

/// Adds to a counter that has one writer: a plain load and store, without the lock prefix.
#[inline(always)]
pub fn add_single_writer(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}

/// The eBPF target has no 32-bit atomics. Its plain loads and stores of an aligned word are whole,
/// which is all that an account needs.
#[cfg(not(target_has_atomic = "32"))]
mod narrow {
    use core::{cell::Cell, sync::atomic::Ordering};

    /// Stands in for the atomic of the same layout.
    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub struct AtomicU32(Cell<u32>);

    impl AtomicU32 {
        /// The value.
        #[inline(always)]
        pub fn load(&self, _: Ordering) -> u32 {
            self.0.get()
        }

        /// Changes the value.
        #[inline(always)]
        pub fn store(&self, value: u32, _: Ordering) {
            self.0.set(value);
        }
    }
}
