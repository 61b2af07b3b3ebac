//! A part of the kernel's flow table is kept for those who have few flows in it: this machine, and
//! the consumers' answers. Consumers begin no new ones while it is nearly full.

use std::{fs, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};
use tracing::{info, warn};

use crate::host::nft;

/// Between two looks. A hundred consumers that begin as many flows as they may by default make
/// 10,000 meanwhile, a third of what is kept of a usual table.
const LOOK: Duration = Duration::from_millis(500);

/// What becomes of new flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gate {
    #[default]
    Open,
    Closed,
}

impl Gate {
    /// With so many flows in a table of this size: closed from 7/8 on, open again below 3/4.
    fn next(self, flows: u64, size: u64) -> Self {
        match self {
            // A table without a limit has a size of 0.
            _ if size == 0 => Self::Open,
            Self::Open if flows.saturating_mul(8) >= size.saturating_mul(7) => Self::Closed,
            Self::Closed if flows.saturating_mul(4) < size.saturating_mul(3) => Self::Open,
            same => same,
        }
    }
}

/// Watches the table until `stopped` says so.
pub(super) fn keep(interface: String, mut stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut gate = Gate::default();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = stopped.changed() => return,
            }
            let (Some(flows), Some(size)) = (number("count"), number("max")) else { continue };
            let next = gate.next(flows, size);
            // Also when the table has been put back by then, with the gate open.
            if next == gate && gate == Gate::Open {
                continue;
            }
            let is_new = next != gate;
            let interface = interface.clone();
            let close = move || nft::refuse_new_flows(&interface, next == Gate::Closed);
            match tokio::task::spawn_blocking(close).await {
                Ok(Ok(())) => gate = next,
                Ok(Err(error)) => warn!(%error, "cannot keep room in the kernel's flow table"),
                Err(error) => warn!(%error, "cannot keep room in the kernel's flow table"),
            }
            match gate {
                _ if !is_new => {}
                Gate::Closed => warn!(
                    flows,
                    size,
                    "the kernel's flow table is nearly full: consumers begin no new flows. Fix: \
                     sysctl -w net.netfilter.nf_conntrack_max={}, or a smaller limits.session_flows",
                    size.saturating_mul(2)
                ),
                Gate::Open => info!(flows, size, "consumers begin new flows again"),
            }
        }
    })
}

fn number(what: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{what}")).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_begin_no_flows_while_the_last_eighth_of_the_table_is_all_there_is() {
        let mut gate = Gate::default();
        for (flows, expected) in [
            (0, Gate::Open),
            (874, Gate::Open),
            (875, Gate::Closed),
            (1000, Gate::Closed),
            (750, Gate::Closed),
            (749, Gate::Open),
            (874, Gate::Open),
        ] {
            gate = gate.next(flows, 1000);
            assert_eq!(gate, expected, "{flows} of 1000");
        }
        assert_eq!(Gate::Open.next(u64::MAX, 0), Gate::Open, "there is no limit");
        assert_eq!(Gate::Closed.next(5, 0), Gate::Open);
    }
}
