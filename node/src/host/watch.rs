//! The host is watched for as long as the node serves.
//!
//! A thread of its own looks at everything that the node depends on: at each notification of the
//! kernel's, and every so often though there was none. What is weir's own is put back; when that
//! cannot be done the node ends with the reason. What is somebody else's is named in
//! [`Conditions`], which `weir status`, the metrics and the log show. Meanwhile the
//! [gate](super::nft::gate) keeps consumers' packets in where the exit policy is missing.

use std::{
    io,
    net::IpAddr,
    os::unix::net::UnixStream,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use super::{
    Host, HostPlan, link,
    nft::{InForce, Look, gate::Gate},
    sysctl,
    uplink::Uplink,
};
use crate::config::Config;

mod conditions;
mod events;
pub mod look;

pub use conditions::{Condition, Conditions, Part};
use events::{Events, Woken};
use look::{Expected, View};

/// Between two looks at what is weir's own, without a notification.
const OWN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at all else, without a notification.
const OTHERS_INTERVAL: Duration = Duration::from_secs(5);
/// A look at routes and other programs' rules takes at most this share of the time, though
/// there are a million of them.
const OTHERS_SHARE: u32 = 50;
/// For how long it is tried to put something back before the node ends.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);
/// By how much the clock must be set to be worth a word.
const CLOCK_STEP: f64 = 1.0;
/// For how long a step of the clock is shown.
const CLOCK_SHOWN: Duration = Duration::from_secs(600);

/// Whom the watcher tells of what has changed. All are called on its thread.
pub struct Listeners {
    /// The uplink has other addresses, or another MTU.
    pub uplink: Box<dyn Fn(&Uplink) + Send>,
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
        let events = Events::subscribe(stopped).context("no notifications from the kernel")?;
        let view = View::read().context("cannot ask for this machine's interfaces and routes")?;
        let watch = Watch {
            expected: Expected::new(config, &plan.uplink, &view),

            uplink: plan.uplink.clone(),
            policy: host.policy().context("there is no exit policy")?,
            host,
            plan,
            conditions,
            listeners,
            failing: None,
            is_broken: false,
            clock: Clock::now(),
        };
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
        self.thread.join().map_err(|_| anyhow!("the watch over this machine failed: report this"))
    }
}

struct Watch {
    host: Host,
    plan: HostPlan,
    policy: Arc<InForce>,
    expected: Expected,

    uplink: Uplink,
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
        let (mut next_own, mut next_others) = (Instant::now(), Instant::now());
        let mut woken = Woken::default();
        loop {
            // A table of somebody else's may refuse what the node needs, at once.
            if self.is_due(next_own) || woken.route || woken.nftables {
                self.look_at_own(woken.elements);
                next_own = Instant::now() + OWN_INTERVAL;
            }
            if self.is_due(next_others) {
                let began = Instant::now();
                self.look_at_others();
                let pause = OTHERS_INTERVAL.max(began.elapsed() * OTHERS_SHARE);
                next_others = Instant::now() + pause;
            }
            woken = match events.wait(next_own.min(next_others)) {
                Ok(woken) => woken,
                Err(error) => {
                    // The looks go on without notifications.
                    warn!(%error, "no notifications from the kernel");
                    thread::sleep(OWN_INTERVAL);
                    Woken::default()
                }
            };
            if woken.stop {
                return self.host;
            }
            if woken.route || woken.nftables {
                next_others = next_others.min(Instant::now());
            }
        }
    }

    fn is_due(&self, at: Instant) -> bool {
        !self.is_broken && at <= Instant::now()
    }

    /// What weir has made itself, and puts back.
    fn look_at_own(&mut self, elements: Option<u32>) {
        if self.is_broken {
            return;
        }
        let mut failed = Vec::new();
        match self.policy.look(elements) {
            Ok(Look::Intact) => {}
            Ok(Look::Missing) => self.conditions.put_back(
                Part::Policy,
                "somebody removed the exit policy's table (nft flush ruleset?); it is back, and \
                 consumers' packets were kept in meanwhile",
            ),
            Ok(Look::Changed) => self.conditions.put_back(
                Part::Policy,
                "somebody changed the exit policy's table; it is as weir made it again",
            ),
            Err(error) => failed.push(Condition::new(
                Part::Policy,
                format!(
                    "the exit policy cannot be put back, so nothing of consumers' passes: {error}"
                ),
                "stop what removes it",
            )),
        }
        if let Err(error) = self.keep_gate() {
            failed.push(Condition::new(
                Part::Policy,
                format!("the gate behind the exit policy cannot be put back: {error:#}"),
                "stop what removes it",
            ));
        }
        let tun = &self.plan.policy.interface;
        match sysctl::keep(&mut self.host.changes, tun, self.plan.uplinks()) {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => {
                let said = format!(
                    "somebody changed {}, without which consumers' packets do not pass; weir has \
                     set it again",
                    lost.join(", ")
                );
                self.conditions.put_back(Part::Forwarding, &said);
            }
            Err(error) => failed.push(Condition::new(
                Part::Forwarding,
                format!("forwarding was turned off: {error}"),
                "start weir as root, with /proc/sys writable",
            )),
        }
        self.clock_step();
        self.settle(failed);
    }

    /// What could not be put back. The node ends when that lasts.
    fn settle(&mut self, failed: Vec<Condition>) {
        let first = failed.first().cloned();
        self.conditions.set(&[Part::Policy, Part::Forwarding], failed);
        let Some(first) = first else {
            self.failing = None;
            return;
        };
        let since = *self.failing.get_or_insert_with(Instant::now);
        if since.elapsed() >= RESTORE_TIMEOUT {
            self.break_off(anyhow!("{first}"));
        }
    }

    fn break_off(&mut self, reason: anyhow::Error) {
        self.is_broken = true;
        (self.listeners.broken)(reason);
    }

    /// The gate of a kernel without owners can be removed like any table.
    fn keep_gate(&mut self) -> anyhow::Result<()> {
        if let Some(gate) = &self.host.gate
            && !gate.is_there()?
        {
            let index = super::tun::index_of(&self.plan.policy.interface)?;
            self.host.gate = Some(Gate::close_behind(index)?);
        }
        Ok(())
    }

    fn look_at_others(&mut self) {
        let parts = [
            Part::Tunnel,
            Part::Offloads,
            Part::Firewall,
            Part::Uplink,
            Part::DefaultRoute,
            Part::Mtu,
            Part::Address,
            Part::Resolver,
        ];
        let view = match View::read() {
            Ok(view) => view,
            Err(error) => return warn!(%error, "cannot ask for this machine's interfaces"),
        };
        self.expected.learn(&view);
        let mut found = self.expected.judge(&view);
        match look::firewalls(&self.plan.policy.interface) {
            Ok(firewalls) => found.extend(firewalls),
            Err(error) => warn!(%error, "cannot look for other programs' firewalls"),
        }
        found.extend(self.tunnel(&view));
        found.extend(self.offloads());
        found.extend(self.resolver());
        self.conditions.set(&parts, found);
        match view.interface(self.uplink.index) {
            Some(uplink) => self.follow(uplink),
            // An interface that comes back under its name is another one: the guard, the sockets
            // and the rules of this run are not on it.
            None => self.break_off(anyhow!(
                "the uplink {} is gone. Fix: connect it; weir waits for it when it is started",
                self.uplink.name
            )),
        }
    }

    /// Tells of the uplink's addresses and MTU when they are other ones.
    fn follow(&mut self, now: &look::Interface) {
        let mut uplink = self.uplink.clone();
        uplink.mtu = now.mtu;
        let told = now.addresses.iter().filter(|address| look::is_told(address));
        (uplink.v4, uplink.v6) = (Vec::new(), Vec::new());
        for address in told {
            match address {
                IpAddr::V4(address) => uplink.v4.push(*address),
                IpAddr::V6(address) => uplink.v6.push(*address),
            }
        }
        if uplink != self.uplink {
            (self.listeners.uplink)(&uplink);
            self.uplink = uplink;
        }
    }

    /// The TUN device's own state, which is put back.
    fn tunnel(&self, view: &View) -> Option<Condition> {
        let name = &self.plan.policy.interface;
        // When it is gone, the packet path says so.
        let tun = view.interfaces.iter().find(|interface| interface.name == *name)?;
        let gateways = self.plan.gateways();
        let has = |gateway: &ipnet::IpNet| tun.addresses.contains(&gateway.addr());
        if tun.is_up && tun.mtu == self.plan.mtu && gateways.iter().all(has) {
            return None;
        }
        match link::configure(tun.index, self.plan.mtu, &gateways) {
            Ok(()) => {
                let said = format!("somebody changed {name} (state, MTU or addresses); it is back");
                self.conditions.put_back(Part::Tunnel, &said);
                None
            }
            Err(error) => Some(Condition::new(
                Part::Tunnel,
                format!("{name} cannot be set up again: {error}"),
                "restart weir",
            )),
        }
    }

    fn offloads(&self) -> Option<Condition> {
        match self.host.keep_offloads() {
            Ok(lost) if lost.is_empty() => None,
            Ok(lost) => {
                let said = format!(
                    "somebody turned off {}, without which packets cost more CPU; it is on again",
                    lost.join(", ")
                );
                self.conditions.put_back(Part::Offloads, &said);
                None
            }
            // It goes with its interface, which is seen elsewhere.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(error) => Some(Condition::new(
                Part::Offloads,
                format!("an offload stays off, so packets cost more CPU: {error}"),
                "see what `ethtool -k` says of the uplink",
            )),
        }
    }

    fn resolver(&self) -> Option<Condition> {
        let read = self.listeners.resolver.as_ref()?;
        let said = match read() {
            Ok(servers) if servers.is_empty() => {
                "this machine has no DNS server in /etc/resolv.conf".to_owned()
            }
            Ok(_) => return None,
            Err(error) => format!("/etc/resolv.conf cannot be read: {error}"),
        };
        Some(Condition::new(
            Part::Resolver,
            format!("{said}: consumers who ask the gateway get no names"),
            "name one there, set dns.upstreams, or dns.enabled = false",
        ))
    }

    fn clock_step(&mut self) {
        let step = self.clock.step();
        if step.abs() >= CLOCK_STEP {
            let way = if step > 0.0 { "forward" } else { "back" };
            let said = format!("this machine's clock was set {way} by {:.0} s", step.abs());
            let fix = "look at what keeps the time (timedatectl): usage records carry it";
            self.clock.shown_since = Some(Instant::now());
            self.conditions.set(&[Part::Clock], vec![Condition::new(Part::Clock, said, fix)]);
        } else if self.clock.shown_since.is_some_and(|since| since.elapsed() >= CLOCK_SHOWN) {
            self.clock.shown_since = None;
            self.conditions.set(&[Part::Clock], Vec::new());
        }
    }
}

/// How far the machine's time is from the time since it was booted.
struct Clock {
    offset: f64,
    shown_since: Option<Instant>,
}

impl Clock {
    fn now() -> Self {
        Self { offset: Self::read(), shown_since: None }
    }

    /// By how many seconds the clock was set since the last question.
    fn step(&mut self) -> f64 {
        let before = std::mem::replace(&mut self.offset, Self::read());
        self.offset - before
    }

    fn read() -> f64 {
        let seconds = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        };
        seconds(ClockId::Realtime) - seconds(ClockId::Boottime)
    }
}
