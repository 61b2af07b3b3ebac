//! What became of orders, for metrics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use weir_market::purchase::{Reason, Refusal};

/// The results of an order that was carried out: at once, and when it came again.
const SOLD: [&str; 2] = ["sold", "repeated"];
const RESULTS: usize = SOLD.len() + Reason::ALL.len();

/// How an order came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over HTTP or HTTPS.
    Http,
    /// In a sealed letter.
    Letter,
}

impl Way {
    const ALL: [Self; 2] = [Self::Http, Self::Letter];

    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Letter => "letter",
        }
    }
}

/// Counts that only rise. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    orders: [[AtomicU64; RESULTS]; 2],
    dropped: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurchaseCounts {
    /// By way and result.
    pub orders: Vec<(Way, &'static str, u64)>,
    /// Letters that were not looked at: not orders, or too many.
    pub dropped_letters: u64,
}

impl Counts {
    pub(super) fn sold(&self, way: Way, is_repeated: bool) {
        self.add(way, usize::from(is_repeated));
    }

    pub(super) fn refused(&self, way: Way, refusal: &Refusal) {
        let place = Reason::ALL.iter().position(|reason| *reason == refusal.reason);
        if let Some(place) = place {
            self.add(way, SOLD.len() + place);
        }
    }

    pub(super) fn dropped(&self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }

    fn add(&self, way: Way, place: usize) {
        if let Some(count) = self.0.orders[way as usize].get(place) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The counts now.
    #[must_use]
    pub fn now(&self) -> PurchaseCounts {
        let words = || SOLD.into_iter().chain(WORDS);
        let orders = Way::ALL.into_iter().flat_map(|way| {
            let counts = self.0.orders[way as usize].iter().map(|count| count.load(Relaxed));
            words().zip(counts).map(move |(word, count)| (way, word, count))
        });
        let dropped_letters = self.0.dropped.load(Relaxed);
        PurchaseCounts { orders: orders.collect(), dropped_letters }
    }
}

/// The words of [`Reason::ALL`].
const WORDS: [&str; Reason::ALL.len()] = [
    "invalid-token",
    "wrong-mint",
    "wrong-p2pk",
    "amount-mismatch",
    "double-spent",
    "expired-auth",
    "bad-request",
    "policy",
    "below-min-purchase",
    "above-max-purchase",
    "no-ip-available",
    "rate-limited",
    "unavailable",
    "invalid-voucher",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_counted_under_its_word() {
        let all: Vec<_> = Reason::ALL.iter().map(Reason::as_str).collect();
        assert_eq!(all, WORDS);
        let counts = Counts::default();
        counts.sold(Way::Http, false);
        for reason in Reason::ALL {
            counts.refused(Way::Letter, &Refusal::new(reason, ""));
        }
        let now = counts.now().orders;
        assert_eq!(now.len(), 2 * RESULTS);
        assert!(now.contains(&(Way::Http, "sold", 1)) && now.contains(&(Way::Http, "policy", 0)));
        let letters = now.iter().filter(|(way, ..)| *way == Way::Letter);
        assert_eq!(letters.map(|(.., count)| count).sum::<u64>(), Reason::ALL.len() as u64);
    }
}
