//! The host is watched for as long as the node serves.
//!
//! A thread of its own looks at everything that the node depends on: at each notification of the
//! kernel's, and every so often though there was none. What is weir's own is put back; when that
//! cannot be done the node ends with the reason. What is somebody else's is named in
//! [`Conditions`], which `weir status`, the metrics and the log show. Meanwhile the
//! [gate](super::nft::gate) keeps consumers' packets in where the exit policy is missing.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::unix::net::UnixStream,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use tracing::warn;

use super::{Host, HostPlan, nft::InForce, sysctl, uplink::Uplink};
use weir_config::Config;

mod clock;
mod conditions;
mod events;
mod others;
mod own;
mod view;

use clock::Clock;
pub use conditions::{Condition, Conditions, Part};
use events::{Events, Woken};
pub use view::{Expected, Interface, View, firewalls};

/// Between two looks at what is weir's own, without a notification.
const OWN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at all else, without a notification: there is one of nearly everything. Only
/// the rules of iptables before nftables change without.
const OTHERS_INTERVAL: Duration = Duration::from_secs(30);
/// Between two looks at the machine's name servers, of which there are no notifications.
const RESOLVER_INTERVAL: Duration = Duration::from_secs(5);
/// A look at routes and other programs' rules takes at most this share of the time, though
/// there are a million of them.
const OTHERS_SHARE: u32 = 50;
/// For how long it is tried to put something back before the node ends.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom the watcher tells of what has changed. All are called on its thread.
pub struct Listeners {
    /// The uplink has other addresses, or another MTU.
    pub uplink: Box<dyn Fn(&Uplink) + Send>,
    /// Any interface of this machine has other addresses. It is called at the first look too.
    pub addresses: Box<dyn Fn() + Send>,
    /// The machine's name servers, at each look. An error says why they cannot be read.
    pub resolver: Option<Box<dyn Fn() -> io::Result<Vec<IpAddr>> + Send>>,
    /// The node cannot go on.
    pub broken: Box<dyn Fn(anyhow::Error) + Send>,
}

/// The watching thread. It has the prepared host until it is stopped.
#[derive(Debug)]
pub struct Watcher {
    thread: JoinHandle<Host>,
    /// Closed, it ends the thread.
    stop: UnixStream,
}

impl Watcher {
    /// Begins to watch, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Fails when there are no notifications to be had, or no thread. The host is undone then.
    pub fn start(
        host: Host,
        plan: HostPlan,
        config: &Config,
        conditions: Conditions,
        listeners: Listeners,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let events =
            Events::subscribe(stopped).context("cannot get notifications from the kernel")?;
        let view = View::read().context("cannot read this machine's interfaces and routes")?;
        let watch = Watch {
            expected: Expected::new(config, &plan.uplink, &view),
            parameters: sysctl::Kept::new(
                &plan.policy.interface,
                host.forwards.then(|| plan.uplinks()),
                plan.reserved_ports,
            ),
            uplink: plan.uplink.clone(),
            addresses: BTreeSet::new(),
            policy: host.policy().context("the exit policy is missing")?,
            host,
            plan,
            conditions,
            listeners,
            failing: None,
            is_broken: false,
            clock: Clock::now(),
        };
        // The status of a node that has just begun to serve has them.
        watch.conditions.set(&[Part::Firewall], watch.firewalls());
        let thread = thread::Builder::new()
            .name("weir-watch".into())
            .spawn(move || watch.run(events))
            .context("cannot start the thread that watches this machine")?;
        Ok(Self { thread, stop })
    }

    /// Ends the watch, and gives the host back.
    ///
    /// # Errors
    ///
    /// Fails when the thread has failed; what it could be undone of the host is undone then.
    pub fn stop(self) -> anyhow::Result<Host> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("watching this machine failed: please report this"))
    }
}

struct Watch {
    host: Host,
    plan: HostPlan,
    policy: Arc<InForce>,
    expected: Expected,
    /// The kernel parameters that weir has set.
    parameters: sysctl::Kept,
    uplink: Uplink,
    /// All addresses of this machine.
    addresses: BTreeSet<IpAddr>,
    conditions: Conditions,
    listeners: Listeners,
    /// Since when something of weir's own cannot be put back.
    failing: Option<Instant>,
    /// The node has been told that it cannot go on.
    is_broken: bool,
    clock: Clock,
}

impl Watch {
    fn run(mut self, mut events: Events) -> Host {
        let now = Instant::now();
        let (mut next_own, mut next_others, mut next_resolver) = (now, now, now);
        // Whatever happens, all else is not looked at before.
        let mut pause_ends = now;
        let mut woken = Woken::default();
        loop {
            // A table of somebody else's may refuse what the node needs, at once.
            if self.is_due(next_own) || woken.route || woken.nftables {
                self.look_at_own(woken.elements);
                next_own = Instant::now() + OWN_INTERVAL;
            }
            if self.is_due(next_resolver) {
                self.look_at_resolver();
                next_resolver = Instant::now() + RESOLVER_INTERVAL;
            }
            if woken.route || woken.nftables {
                next_others = next_others.min(pause_ends);
            }
            if self.is_due(next_others) {
                let began = Instant::now();
                self.look_at_others();
                let ended = Instant::now();
                pause_ends = ended + (ended - began) * OTHERS_SHARE;
                next_others = pause_ends.max(ended + OTHERS_INTERVAL);
            }
            let next = if self.is_broken {
                // Nothing is looked at any more: the node stops.
                Instant::now() + OWN_INTERVAL
            } else {
                next_own.min(next_others).min(next_resolver)
            };
            woken = match events.wait(next) {
                Ok(woken) => woken,
                Err(error) => {
                    // The looks go on without notifications.
                    warn!(%error, "cannot get notifications from the kernel");
                    thread::sleep(OWN_INTERVAL);
                    Woken { route: true, nftables: true, ..Woken::default() }
                }
            };
            if woken.stop {
                return self.host;
            }
        }
    }

    fn is_due(&self, at: Instant) -> bool {
        !self.is_broken && at <= Instant::now()
    }
}
