//! Decides what to publish, and when. Pure: the time is passed in.

use weir_market::listing::Listing;

/// Seconds after which a listing is published again. It counts for three hours, so that two failures
/// in a row do not end it.
pub const RENEW_AFTER: u64 = 3600;
/// The least number of seconds between two listings: what changes more often waits.
pub const MIN_INTERVAL: u64 = 5;
/// Seconds by which a time of signing may be ahead of the clock. Relays refuse what is of the future.
const MAX_AHEAD: u64 = 600;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// Sign and publish the listing.
    Publish,
    /// Publish that there is no listing any longer.
    Withdraw,
}

/// What was published, and what the operator wants.
#[derive(Clone, Debug)]
pub struct Plan {
    published: Option<(Listing, u64)>,
    withdrawn: bool,
    /// The operator wants it published now.
    asked: bool,
}

impl Plan {
    /// Nothing is published yet. `withdrawn`: nor is it to be, until the operator says so.
    #[must_use]
    pub fn new(withdrawn: bool) -> Self {
        Self { published: None, withdrawn, asked: false }
    }

    /// Publishes at the next look.
    pub fn publish(&mut self) {
        (self.withdrawn, self.asked) = (false, true);
    }

    /// Withdraws at the next look.
    pub fn withdraw(&mut self) {
        (self.withdrawn, self.asked) = (true, false);
    }

    /// Whether the operator has withdrawn the listing.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// What to do at `now` (seconds since 1970), when the node is as `wanted` says. The caller does
    /// it.
    pub fn next(&mut self, now: u64, wanted: &Listing) -> Action {
        if self.withdrawn {
            return match self.published.take() {
                Some(_) => Action::Withdraw,
                None => Action::Wait,
            };
        }
        let is_due = match &self.published {
            None => true,
            // The clock was set back.
            Some((_, at)) if *at > now => *at > now + MIN_INTERVAL,
            Some((listing, at)) => {
                let age = now - at;
                let differs = differs(listing, wanted);
                age >= RENEW_AFTER || (self.asked || differs) && age >= MIN_INTERVAL
            }
        };
        if !is_due {
            return Action::Wait;
        }
        self.asked = false;
        self.published = Some((wanted.clone(), now));
        Action::Publish
    }
}

/// Whether the change is worth a new listing now. Free slots wait for the next renewal: otherwise the
/// listing would show when single consumers come and go.
fn differs(old: &Listing, new: &Listing) -> bool {
    let free_slots = old.free_slots;
    *old != Listing { free_slots, ..new.clone() }
}

/// The time to sign with at `now`: later than the last one, because of two events of the same second
/// relays keep either one. A last one that is far ahead, from a clock that was wrong, does not count.
#[must_use]
pub fn signing_time(now: u64, last: u64) -> u64 {
    let next = last.saturating_add(1);
    if next > now.saturating_add(MAX_AHEAD) { now } else { now.max(next) }
}

#[cfg(test)]
mod tests {
    use weir_market::{listing::State, testing::listing};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_listing_is_renewed_hourly_and_at_once_when_it_changes() {
        let mut plan = Plan::new(false);
        let mut node = listing("DE", "100 sat/GiB", 1);
        assert_eq!(plan.next(NOW, &node), Action::Publish);
        assert_eq!(plan.next(NOW + 1, &node), Action::Wait);
        assert_eq!(plan.next(NOW + RENEW_AFTER - 1, &node), Action::Wait);
        assert_eq!(plan.next(NOW + RENEW_AFTER, &node), Action::Publish);
        node.state = State::Sold;
        let at = NOW + RENEW_AFTER;
        assert_eq!(plan.next(at + 1, &node), Action::Wait, "not more often than this");
        assert_eq!(plan.next(at + MIN_INTERVAL, &node), Action::Publish);
        node.free_slots = Some(3);
        assert_eq!(plan.next(at + 100, &node), Action::Wait, "slots wait for the renewal");
        node.prices = listing("DE", "99 sat/GiB", 1).prices;
        assert_eq!(plan.next(at + 101, &node), Action::Publish);
    }

    #[test]
    fn a_listing_that_flaps_is_published_at_intervals() {
        let mut plan = Plan::new(false);
        let mut node = listing("DE", "100 sat/GiB", 1);
        let mut published = 0;
        for second in 0..60 {
            node.state = if second % 2 == 0 { State::Sold } else { State::Active };
            published += u32::from(plan.next(NOW + second, &node) == Action::Publish);
        }
        assert!((2..=12).contains(&published), "{published}");
    }

    #[test]
    fn a_withdrawn_listing_stays_so_until_told_otherwise() {
        let mut plan = Plan::new(false);
        let node = listing("DE", "100 sat/GiB", 1);
        assert_eq!(plan.next(NOW, &node), Action::Publish);
        plan.withdraw();
        assert_eq!(plan.next(NOW + 1, &node), Action::Withdraw);
        assert_eq!(plan.next(NOW + 2, &node), Action::Wait);
        assert_eq!(plan.next(NOW + 2 * RENEW_AFTER, &node), Action::Wait);
        assert!(plan.is_withdrawn());
        plan.publish();
        assert_eq!(plan.next(NOW + 2 * RENEW_AFTER, &node), Action::Publish);
        // After a restart too.
        assert_eq!(Plan::new(true).next(NOW, &node), Action::Wait);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_silence_the_node() {
        let mut plan = Plan::new(false);
        let node = listing("DE", "100 sat/GiB", 1);
        assert_eq!(plan.next(NOW, &node), Action::Publish);
        assert_eq!(plan.next(NOW - 86_400, &node), Action::Publish);
        assert_eq!(signing_time(NOW, NOW), NOW + 1);
        assert_eq!(signing_time(NOW, NOW - 5), NOW);
        assert_eq!(signing_time(NOW, NOW + 86_400), NOW);
        assert_eq!(signing_time(NOW, 0), NOW);
    }
}
