//! What a session reaches: how many new flows it begins, and to how many destinations. A session
//! that scans is stopped by this, without a destination being kept.
//!
//! Of each flow and each destination a few bits of a keyed hash are noted for some seconds. What is
//! known passes. What is not is new, and must find a place in a bucket. Where the hashes of two
//! coincide, the second one passes as known: an error lets a packet more through, never one less.

use weir_accounts::FlowLimits;
use weir_common::{DropReason, bucket::Rate};

use crate::{limit::bloom::BloomFilter, limit::flow_key::FlowKey};

/// For so long, in nanoseconds, a silent flow is known; and so long lasts a full bucket of new ones.
const FLOW_WINDOW: u64 = 5_000_000_000;
/// Likewise for destinations.
const DESTINATION_WINDOW: u64 = 10_000_000_000;

fn flow_rate(limits: FlowLimits) -> Rate {
    let interval = 1_000_000_000 / u64::from(limits.new_flows.max(1));
    Rate { interval, window: FLOW_WINDOW }
}

fn destination_rate(limits: FlowLimits) -> Rate {
    let interval = DESTINATION_WINDOW / u64::from(limits.destinations.max(1));
    Rate { interval, window: DESTINATION_WINDOW }
}

/// What one session has reached lately: 16 KB, for as long as it sends.
#[derive(Default)]
pub struct FlowLimiter {
    flows: BloomFilter,
    destinations: BloomFilter,
    /// When the bucket of new flows will be full again, in nanoseconds.
    flows_full_at: u64,
    destinations_full_at: u64,
}

impl FlowLimiter {
    /// Whether `flow` passes without a further look: it has passed lately.
    #[inline]
    pub fn knows(&mut self, limits: FlowLimits, flow: &FlowKey) -> bool {
        if limits.new_flows != 0 {
            self.flows.knows(flow.hash)
        } else {
            self.destinations.knows(flow.destination)
        }
    }

    /// Lets a flow pass that is not known, at `now` nanoseconds of a clock that does not go
    /// backwards.
    ///
    /// # Errors
    ///
    /// Says which limit it is beyond. Then nothing is noted, so that it is judged anew when it is
    /// tried again.
    pub fn admit(
        &mut self,
        limits: FlowLimits,
        flow: &FlowKey,
        now: u64,
    ) -> Result<(), DropReason> {
        let is_new = limits.destinations != 0 && !self.destinations.knows(flow.destination);
        let mut destinations_full_at = self.destinations_full_at;
        if is_new {
            let taken = take(destination_rate(limits), destinations_full_at, now);
            destinations_full_at = taken.ok_or(DropReason::Destinations)?;
        }
        if limits.new_flows != 0 {
            let taken = take(flow_rate(limits), self.flows_full_at, now);
            self.flows_full_at = taken.ok_or(DropReason::NewFlows)?;
            self.flows.note(flow.hash, now, FLOW_WINDOW);
        }
        if is_new {
            self.destinations_full_at = destinations_full_at;
            self.destinations.note(flow.destination, now, DESTINATION_WINDOW);
        }
        Ok(())
    }
}

/// Takes one from a bucket. After a change of the limit it may be emptier than it can be.
fn take(rate: Rate, full_at: u64, now: u64) -> Option<u64> {
    rate.take(full_at.min(now + rate.window), now)
}

#[cfg(test)]
mod tests;
