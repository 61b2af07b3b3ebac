//! Limits how many new flows a session begins, and how many destinations it reaches. This stops a
//! session that scans, without storing any destination, where no flow table says what is new.
//!
//! A Bloom filter (Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", 1970)
//! remembers a few bits of a keyed hash of each flow and destination for some seconds. A known flow
//! passes. A new one must find room in a token bucket ([`Gcra`]). If two hashes share all bits, the
//! second flow passes as known, so a false positive never drops a packet.

use weir_accounts::FlowLimits;
use weir_common::{
    DropReason,
    gcra::{Gcra, Rate},
};

use crate::{limit::bloom::BloomFilter, limit::flow_key::FlowKey};

/// Nanoseconds for which an idle flow is remembered, and for which a full bucket of new flows
/// lasts.
const FLOW_WINDOW: u64 = 5_000_000_000;
/// The same for destinations.
pub(super) const DESTINATION_WINDOW: u64 = 10_000_000_000;

/// The highest limit of new flows, in flows per second: more would fill the filter.
pub const MAX_NEW_FLOWS: u32 = 300;
/// The highest limit of destinations in ten seconds: more would fill the filter.
pub const MAX_DESTINATIONS: u32 = 1500;

fn flow_rate(limits: FlowLimits) -> Rate {
    let interval = 1_000_000_000 / u64::from(limits.new_flows.max(1));
    Rate { interval, window: FLOW_WINDOW }
}

fn destination_rate(limits: FlowLimits) -> Rate {
    let interval = DESTINATION_WINDOW / u64::from(limits.destinations.max(1));
    Rate { interval, window: DESTINATION_WINDOW }
}

/// What one session may still begin and reach.
#[derive(Clone, Copy, Default)]
pub(super) struct Buckets {
    flows: Gcra,
    destinations: Gcra,
}

impl Buckets {
    /// Takes a new flow, to a destination that is new or not.
    ///
    /// # Errors
    ///
    /// Says which limit it is beyond. Then nothing is taken.
    pub(super) fn take(
        &mut self,
        limits: FlowLimits,
        is_new_destination: bool,
        now: u64,
    ) -> Result<(), DropReason> {
        let mut after = *self;
        if is_new_destination && !after.destinations.take(destination_rate(limits), now) {
            return Err(DropReason::Destinations);
        }
        if limits.new_flows != 0 && !after.flows.take(flow_rate(limits), now) {
            return Err(DropReason::NewFlows);
        }
        *self = after;
        Ok(())
    }
}

/// What one session has reached lately: 16 KB, for as long as it sends.
#[derive(Default)]
pub struct FlowLimiter {
    flows: BloomFilter,
    destinations: BloomFilter,
    buckets: Buckets,
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
        self.buckets.take(limits, is_new, now)?;
        if limits.new_flows != 0 {
            self.flows.note(flow.hash, now, FLOW_WINDOW);
        }
        if is_new {
            self.destinations.note(flow.destination, now, DESTINATION_WINDOW);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
