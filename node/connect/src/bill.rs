//! Whether a node bills what was carried. Both sides count UDP payload, so they can be compared to
//! the byte. Pure.

/// The share of the own count by which a bill may be above it.
const TOLERANCE: u64 = 100;
/// The share of the own count that may be lost on the way. Beyond that the line is bad, or the node
/// leaves out counters.
const MAX_LOST: u64 = 10;
/// Bytes by which a bill may be above the own count in any case: both are read at different times,
/// and the node's answer itself is under way.
const MARGIN: u64 = 256 * 1024;

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bill {
    /// The bill is right, or too low.
    Fits,
    /// It is above the own count, and what was lost on the way, by more than 1 %.
    TooHigh {
        /// Bytes that the node has billed.
        billed: u64,
        /// Bytes that were counted here, which is more than what can be billed: handshakes too.
        counted: u64,
    },
}

/// What was counted here so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Bytes that were carried.
    pub carried: u64,
    /// Bytes that the node sent and that were lost on the way, at most.
    pub lost: u64,
}

/// The bill of one node since the tunnel came up. A session may have been used before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    first: Option<(u64, Counted)>,
}

impl Comparison {
    /// Takes a bill, and what was counted here before it was asked for, and after it came.
    pub fn compare(&mut self, billed: u64, before: Counted, after: Counted) -> Bill {
        // The first bill has no more than what was carried later.
        let (billed_then, then) = *self.first.get_or_insert((billed, before));
        let billed = billed.saturating_sub(billed_then);
        let counted = after.carried.saturating_sub(then.carried);
        let lost = after.lost.saturating_sub(then.lost).min(counted / MAX_LOST);
        let margin = (counted / TOLERANCE).max(MARGIN);
        let limit = counted.saturating_add(lost).saturating_add(margin);
        if billed > limit { Bill::TooHigh { billed, counted } } else { Bill::Fits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A bill that came at once.
    fn compare(comparison: &mut Comparison, billed: u64, carried: u64, lost: u64) -> Bill {
        let counted = Counted { carried, lost };
        comparison.compare(billed, counted, counted)
    }

    #[test]
    fn a_bill_of_what_was_counted_or_less_fits() {
        let mut comparison = Comparison::default();
        // The session was used before.
        assert_eq!(compare(&mut comparison, 500 * MIB, 0, 0), Bill::Fits);
        assert_eq!(compare(&mut comparison, 600 * MIB, 100 * MIB, 0), Bill::Fits);
        assert_eq!(compare(&mut comparison, 601 * MIB, 100 * MIB, 0), Bill::Fits, "one per cent");
        assert_eq!(compare(&mut comparison, 520 * MIB, 100 * MIB, 0), Bill::Fits, "too low");
    }

    #[test]
    fn more_than_one_per_cent_is_too_high() {
        let mut comparison = Comparison::default();
        compare(&mut comparison, 0, 0, 0);
        let bill = compare(&mut comparison, 102 * MIB, 100 * MIB, 0);
        assert_eq!(bill, Bill::TooHigh { billed: 102 * MIB, counted: 100 * MIB });
    }

    #[test]
    fn a_small_difference_of_a_small_count_is_no_fraud() {
        let mut comparison = Comparison::default();
        compare(&mut comparison, 0, 0, 0);
        assert_eq!(compare(&mut comparison, MARGIN, 0, 0), Bill::Fits);
        assert_eq!(
            compare(&mut comparison, MARGIN + 1, 0, 0),
            Bill::TooHigh { billed: MARGIN + 1, counted: 0 }
        );
    }

    #[test]
    fn what_was_lost_on_the_way_may_be_billed_up_to_a_tenth() {
        let mut comparison = Comparison::default();
        compare(&mut comparison, 0, 0, 5 * MIB);
        assert_eq!(compare(&mut comparison, 106 * MIB, 100 * MIB, 10 * MIB), Bill::Fits);
        assert_ne!(compare(&mut comparison, 107 * MIB, 100 * MIB, 10 * MIB), Bill::Fits);
        assert_eq!(compare(&mut comparison, 111 * MIB, 100 * MIB, 90 * MIB), Bill::Fits);
        assert_ne!(compare(&mut comparison, 112 * MIB, 100 * MIB, 90 * MIB), Bill::Fits);
    }

    #[test]
    fn traffic_while_the_first_bill_is_asked_for_makes_no_later_one_too_high() {
        let mut comparison = Comparison::default();
        let at = |carried| Counted { carried, lost: 0 };
        assert_eq!(comparison.compare(MIB, at(MIB), at(50 * MIB)), Bill::Fits);
        assert_eq!(comparison.compare(60 * MIB, at(60 * MIB), at(61 * MIB)), Bill::Fits);
        assert_ne!(comparison.compare(70 * MIB, at(61 * MIB), at(61 * MIB)), Bill::Fits);
    }
}
