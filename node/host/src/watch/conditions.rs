//! What is not as the node needs it, and what was put back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use crate::next_hop::NotPlain;

/// The minimum interval between log lines about the same part, if it keeps being restored.
const RESTORED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What of the machine a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The nftables table of the exit policy.
    Policy,
    /// The kernel parameters that let packets pass.
    Forwarding,
    /// The TUN device's addresses and state.
    Tunnel,
    /// The uplink's offloads.
    Offloads,
    /// Other programs' rules.
    Firewall,
    /// The uplink itself.
    Uplink,
    /// The default routes.
    DefaultRoute,
    /// The uplink's MTU.
    Mtu,
    /// The address that consumers are told.
    Address,
    /// The name servers that the gateway asks.
    Resolver,
    /// The machine's clock.
    Clock,
    /// The next hops, where consumers' packets leave past the kernel.
    NextHop,
    /// The addresses that consumers leave by past the kernel.
    ExitAddress,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 13] = [
        Self::Policy,
        Self::Forwarding,
        Self::Tunnel,
        Self::Offloads,
        Self::Firewall,
        Self::Uplink,
        Self::DefaultRoute,
        Self::Mtu,
        Self::Address,
        Self::Resolver,
        Self::Clock,
        Self::NextHop,
        Self::ExitAddress,
    ];

    /// The label of every part.
    pub const LABELS: [&'static str; Self::ALL.len()] = {
        let mut labels = [""; Self::ALL.len()];
        let mut part = 0;
        while part < labels.len() {
            labels[part] = Self::ALL[part].as_str();
            part += 1;
        }
        labels
    };

    /// The part in one word, which is the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Forwarding => "forwarding",
            Self::Tunnel => "tunnel",
            Self::Offloads => "offloads",
            Self::Firewall => "firewall",
            Self::Uplink => "uplink",
            Self::DefaultRoute => "default_route",
            Self::Mtu => "mtu",
            Self::Address => "address",
            Self::Resolver => "resolver",
            Self::Clock => "clock",
            Self::NextHop => "next_hop",
            Self::ExitAddress => "exit_address",
        }
    }
}

/// Something that is not as the node needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// What it is about.
    pub part: Part,
    /// What is the case, and what comes of it.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl Condition {
    pub(super) fn new(part: Part, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { part, problem: problem.into(), fix: fix.into() }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}. Fix: {}", self.problem, self.fix)
    }
}

/// All conditions as they are now. Clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Conditions(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    now: Vec<Condition>,
    /// How often each part was put back, and when the log said so last.
    restored: BTreeMap<Part, (u64, Option<Instant>)>,
    looks: u64,
}

impl Conditions {
    /// What is not as it should be.
    #[must_use]
    pub fn now(&self) -> Vec<Condition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now.clone()
    }

    /// How often each part was put back since the start.
    #[must_use]
    pub fn restored(&self) -> Vec<(Part, u64)> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |part: &Part| inner.restored.get(part).map_or(0, |(times, _)| *times);
        Part::ALL.iter().map(|part| (*part, times(part))).collect()
    }

    /// How often the watch has looked at what is weir's own since the start.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).looks
    }

    /// Says why consumers' packets cannot leave past the kernel, or that they can.
    pub fn set_next_hops(&self, problem: Option<&NotPlain>) {
        let problem = problem.map(|problem| format!("consumers' packets cannot leave: {problem}"));
        self.set_one(Part::NextHop, problem.as_deref());
    }

    /// Says why consumers cannot leave by the addresses of the configuration, or that they can.
    pub fn set_exit_addresses(&self, problem: Option<&str>) {
        self.set_one(Part::ExitAddress, problem);
    }

    /// Sets or resolves the only condition of a part. The problem has its fix behind it.
    fn set_one(&self, part: Part, problem: Option<&str>) {
        let condition = problem.map(|text| {
            let (problem, fix) = text.split_once(". Fix: ").unwrap_or((text, "restart weir"));
            Condition::new(part, problem, fix)
        });
        self.set(&[part], condition.into_iter().collect());
    }

    /// The watch has looked at what is weir's own.
    pub(super) fn looked(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).looks += 1;
    }

    /// Replaces the conditions of these parts. The log has what came and what went.
    pub(super) fn set(&self, parts: &[Part], found: Vec<Condition>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, mut now): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.now).into_iter().partition(|it| parts.contains(&it.part));
        for condition in found.iter().filter(|it| !before.contains(it)) {
            warn!(part = condition.part.as_str(), "{condition}");
        }
        for gone in before.iter().filter(|it| !found.contains(it)) {
            let part = gone.part.as_str();
            info!(part, "resolved: {}", gone.problem);
        }
        now.extend(found);
        now.sort();
        inner.now = now;
    }

    /// A part was changed by somebody else, and is as weir made it again.
    pub(super) fn put_back(&self, part: Part, problem: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, logged) = inner.restored.entry(part).or_default();
        *times += 1;
        let part = part.as_str();
        if logged.is_some_and(|last| last.elapsed() < RESTORED_LOG_INTERVAL) {
            debug!(part, "{problem}");
            return;
        }
        *logged = Some(Instant::now());
        warn!(part, "{problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_other_parts_stay() {
        let conditions = Conditions::default();
        let mtu = Condition::new(Part::Mtu, "too small", "raise it");
        let route = Condition::new(Part::DefaultRoute, "none", "add it");
        conditions.set(&[Part::Mtu], vec![mtu.clone()]);
        conditions.set(&[Part::DefaultRoute], vec![route.clone()]);
        assert_eq!(conditions.now(), [route.clone(), mtu]);
        conditions.set(&[Part::Mtu], Vec::new());
        assert_eq!(conditions.now(), [route]);
    }

    #[test]
    fn what_was_put_back_is_counted_for_each_part() {
        let conditions = Conditions::default();
        for _ in 0..3 {
            conditions.put_back(Part::Policy, "gone, and back");
        }
        let restored = conditions.restored();
        assert_eq!(restored.len(), Part::ALL.len());
        for (part, times) in restored {
            assert_eq!(times, if part == Part::Policy { 3 } else { 0 }, "{part:?}");
        }
    }
}
