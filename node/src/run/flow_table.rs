//! Reserves a part of the kernel's flow table for this machine's own flows and for those that
//! consumers already have: while the table is nearly full, consumers can open no new ones.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};
use tracing::{info, warn};

use weir_host::{
    Parameter,
    nft::{InForce, NewFlows},
};

/// The interval at which the table's size is read. A hundred consumers that begin as many flows as
/// they may by default make 10,000 meanwhile, a third of the reserve in a usual table.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The next state with `flows` in a table of `size`: new flows are refused from 7/8 on, and accepted
/// again below 3/4.
fn next(now: NewFlows, flows: u64, size: u64) -> NewFlows {
    match now {
        // A table without a limit has a size of 0.
        _ if size == 0 => NewFlows::Accepted,
        NewFlows::Accepted if flows.saturating_mul(8) >= size.saturating_mul(7) => {
            NewFlows::Refused
        }
        NewFlows::Refused if flows.saturating_mul(4) < size.saturating_mul(3) => NewFlows::Accepted,
        same => same,
    }
}

/// Starts the task that watches the table, until `stopped` says so.
pub(super) fn spawn(policy: Arc<InForce>, mut stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut state = NewFlows::default();
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let [mut count, mut max] = ["count", "max"]
            .map(|what| Parameter::new(format!("net/netfilter/nf_conntrack_{what}")));
        loop {
            tokio::select! {
                _ = polls.tick() => {}
                _ = stopped.changed() => return,
            }
            let (Some(flows), Some(size)) = (number(&mut count), number(&mut max)) else {
                continue;
            };
            let following = next(state, flows, size);
            if following == state {
                continue;
            }
            let policy = Arc::clone(&policy);
            let set = move || policy.set_new_flows(following);
            match tokio::task::spawn_blocking(set).await {
                Ok(Ok(())) => state = following,
                Ok(Err(error)) => warn!(%error, "cannot watch the kernel's flow table"),
                Err(error) => warn!(%error, "cannot watch the kernel's flow table"),
            }
            match state {
                NewFlows::Refused => warn!(
                    flows,
                    size,
                    "the kernel's flow table is nearly full: new flows of consumers are refused. \
                     Fix: sysctl -w net.netfilter.nf_conntrack_max={}, or lower \
                     limits.session_flows",
                    size.saturating_mul(2)
                ),
                NewFlows::Accepted => info!(flows, size, "consumers can open new flows again"),
            }
        }
    })
}

fn number(parameter: &mut Parameter) -> Option<u64> {
    parameter.read().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_begin_no_flows_while_the_last_eighth_of_the_table_is_all_there_is() {
        let mut state = NewFlows::default();
        for (flows, expected) in [
            (0, NewFlows::Accepted),
            (874, NewFlows::Accepted),
            (875, NewFlows::Refused),
            (1000, NewFlows::Refused),
            (750, NewFlows::Refused),
            (749, NewFlows::Accepted),
            (874, NewFlows::Accepted),
        ] {
            state = next(state, flows, 1000);
            assert_eq!(state, expected, "{flows} of 1000");
        }
        assert_eq!(next(NewFlows::Accepted, u64::MAX, 0), NewFlows::Accepted, "there is no limit");
        assert_eq!(next(NewFlows::Refused, 5, 0), NewFlows::Accepted);
    }
}
