//! A node's sessions for tests: a real ledger, private accounts, and a record of what the packet
//! path was told.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use weir_common::{
    Slot,
    account::{Counters, SessionState},
};

use super::{AddressOf, NewSession, SessionError, Sessions, clock::Clock};
use crate::{
    FlowControl, Snapshot,
    limits::{FlowTable, Limiter},
};
use weir_accounts::{Accounts, PeerControl, PeerSpec};
use weir_common::PublicKey;
use weir_config::{Auto, Limits, amounts::AtMost};
use weir_ledger::{Ledger, SessionId, SharedLedger, UsageLog};
use weir_wireguard::keys::PrivateKey;

/// A call that the packet path or the kernel received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Add(Slot, PublicKey),
    Remove(Slot),
    Forget(Vec<Ipv4Addr>),
    ForgetAllBut(Vec<Ipv4Addr>),
}

/// What is to happen while a peer is being removed.
type OnRemove = Box<dyn Fn(Slot) + Send + Sync>;

/// Writes down every call.
#[derive(Default)]
pub struct Recorder {
    calls: Mutex<Vec<Call>>,
    /// Set once the sessions are there.
    pub on_remove: std::sync::OnceLock<OnRemove>,
    /// Whether the kernel removes no flows.
    pub keeps_flows: AtomicBool,
}

impl Recorder {
    /// The calls since the last time, without those about flows.
    pub fn take(&self) -> Vec<Call> {
        let of_peers = |call: &Call| matches!(call, Call::Add(..) | Call::Remove(_));
        self.take_all().into_iter().filter(of_peers).collect()
    }

    /// The calls since the last time.
    pub fn take_all(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("not poisoned"))
    }

    fn note(&self, call: Call) {
        self.calls.lock().expect("not poisoned").push(call);
    }
}

impl PeerControl for Recorder {
    fn add(&self, peer: PeerSpec) {
        self.note(Call::Add(peer.slot, peer.public_key));
    }

    fn remove(&self, slot: Slot) {
        self.note(Call::Remove(slot));
        if let Some(then) = self.on_remove.get() {
            then(slot);
        }
    }
}

/// Stands in for the kernel's limit of open flows.
#[derive(Default)]
pub(crate) struct FlowLimit {
    limit: Mutex<Auto<AtMost>>,
    /// Whether it refuses every change.
    pub(crate) refuses: AtomicBool,
}

impl FlowLimit {
    /// What `auto` is.
    pub(crate) const SHARE: u32 = 4096;
}

impl FlowTable for FlowLimit {
    fn session_flows(&self) -> u32 {
        let limit = self.limit.lock().expect("not poisoned");
        limit.set().map_or(Self::SHARE, |at_most| at_most.get())
    }

    fn set_session_flows(&self, limit: &Auto<AtMost>) -> anyhow::Result<()> {
        anyhow::ensure!(!self.refuses.load(Relaxed), "nft says no");
        *self.limit.lock().expect("not poisoned") = limit.clone();
        Ok(())
    }
}

impl FlowControl for Recorder {
    fn forget(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()> {
        self.note(Call::Forget(consumers.iter().map(|(v4, _)| *v4).collect()));
        if self.keeps_flows.load(Relaxed) {
            Err(io::ErrorKind::PermissionDenied.into())
        } else {
            Ok(())
        }
    }

    fn forget_all_but(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()> {
        self.note(Call::ForgetAllBut(consumers.iter().map(|(v4, _)| *v4).collect()));
        Ok(())
    }
}

pub struct Rig {
    pub sessions: Arc<Sessions>,
    pub ledger: SharedLedger,
    pub usage: UsageLog,
    pub accounts: Arc<Accounts>,
    pub peers: Arc<Recorder>,
}

pub fn node_key() -> PublicKey {
    PrivateKey::parse("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").expect("a key").public()
}

pub fn addresses() -> AddressOf {
    Box::new(|slot| {
        let v4 = Ipv4Addr::from_bits(0x0a42_0002 + slot.0);
        let v6 = Ipv6Addr::from_bits((0xfd00_0066 << 96) + 2 + u128::from(slot.0));
        (slot.0 < 65_000).then_some((v4, v6))
    })
}

impl Rig {
    /// A node with the ledger in `folder`, and fresh accounts (as after a reboot).
    pub fn start(folder: &Path, max: u32) -> Self {
        Self::with_accounts(folder, Arc::new(Accounts::private(max).expect("memory")))
    }

    /// A node that finds accounts of before (as after a crash).
    pub fn with_accounts(folder: &Path, accounts: Arc<Accounts>) -> Self {
        Self::try_start(folder, accounts).expect("started")
    }

    pub fn try_start(folder: &Path, accounts: Arc<Accounts>) -> Result<Self, SessionError> {
        Self::start_with(folder, accounts, Arc::new(Recorder::default()))
    }

    /// A node whose packet path is told what `peers` writes down.
    pub fn start_with(
        folder: &Path,
        accounts: Arc<Accounts>,
        peers: Arc<Recorder>,
    ) -> Result<Self, SessionError> {
        let ledger = SharedLedger::new(Ledger::open(&folder.join("ledger.db"))?)?;
        let sessions = Sessions::open(
            ledger.clone(),
            accounts.clone(),
            peers.clone(),
            peers.clone(),
            addresses(),
            node_key(),
        )?;
        let usage = ledger.usage_log();
        Ok(Self { sessions: Arc::new(sessions), ledger, usage, accounts, peers })
    }

    /// The limits of these sessions: none yet.
    pub fn limiter(&self) -> Arc<Limiter> {
        let (sessions, accounts) = (Arc::clone(&self.sessions), Arc::clone(&self.accounts));
        let flows = Arc::<FlowLimit>::default();
        let limiter = Limiter::new(
            Limits::default(),
            sessions,
            self.ledger.clone(),
            accounts,
            Arc::default(),
            flows,
        );
        Arc::new(limiter.expect("a ledger"))
    }

    pub fn add(&self, name: Option<&str>) -> Snapshot {
        let new = NewSession { name: name.map(str::to_owned), ..NewSession::default() };
        self.sessions.add(new).expect("added").snapshot
    }

    /// Lets time pass for a session that is open.
    pub fn pass(&self, id: SessionId, seconds: u64) {
        if let Some(entry) = self.sessions.write().by_id.get_mut(&id) {
            let runs = entry.session.state == SessionState::Open;
            let seconds = entry.clock.seconds() + if runs { seconds } else { 0 };
            entry.clock = Clock::new(seconds, runs);
        }
    }

    /// Does as a worker that has met a datagram which does not fit within the limit.
    pub fn meets_the_limit(&self, slot: Slot) {
        let account = self.accounts.get(slot).expect("a slot");
        let limit = account.limit().expect("it has a limit");
        account.worker.spent.store(limit, Relaxed);
        assert_eq!(account.standing(), SessionState::Paused, "the worker lets nothing pass");
    }

    /// Counts traffic, as a worker and the guard do.
    pub fn traffic(&self, slot: Slot, bytes: u64) {
        let account = self.accounts.get(slot).expect("a slot");
        account.metered.bytes_up.fetch_add(bytes, Relaxed);
        account.metered.packets_up.fetch_add(1, Relaxed);
        account.seen.bytes.fetch_add(bytes, Relaxed);
    }

    pub fn counters(&self, id: SessionId) -> Counters {
        self.sessions.get(&id.to_string()).expect("there").counters
    }
}
