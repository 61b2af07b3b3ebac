//! A total map from addresses to rules, as ranges in order: one binary search tells the rule.

use crate::rule::RuleId;

/// An address as a number.
pub(super) trait Bits: Copy + Ord {
    /// The lowest address.
    const LOWEST: Self;

    /// The next address.
    fn next(self) -> Option<Self>;
}

impl Bits for u32 {
    const LOWEST: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Bits for u128 {
    const LOWEST: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// A range of addresses, first and last, and its rule.
pub(super) type Range<A> = (A, A, RuleId);

/// The rule of every address. Range `n` is from `first[n]` to before `first[n + 1]`, and has
/// `rules[n]`. Two arrays, because the search reads addresses only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges<A> {
    first: Box<[A]>,
    rules: Box<[RuleId]>,
}

impl<A: Bits> Ranges<A> {
    /// Every address has the rule of the last layer that contains it, or [`RuleId::Default`]. The
    /// ranges of a layer are in order and do not overlap.
    pub(super) fn of<const LAYERS: usize>(layers: [Vec<Range<A>>; LAYERS]) -> Self {
        let mut starts = vec![(A::LOWEST, RuleId::Default)];
        for layer in layers {
            starts = overlay(&starts, &layer);
        }
        let (first, rules): (Vec<A>, Vec<RuleId>) = starts.into_iter().unzip();
        Self { first: first.into(), rules: rules.into() }
    }

    /// The rule of an address.
    #[inline]
    pub(super) fn find(&self, address: A) -> RuleId {
        let after = self.first.partition_point(|first| *first <= address);
        // The first range begins at the lowest address, so there is one.
        let rule = after.checked_sub(1).and_then(|at| self.rules.get(at));
        rule.copied().unwrap_or(RuleId::ReservedDestination)
    }

    /// The number of ranges.
    pub(super) fn len(&self) -> usize {
        self.first.len()
    }

    /// The memory that the ranges take, in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.first) + size_of_val(&*self.rules)
    }
}

/// `base` with the ranges of a layer above it. Both are where ranges start, in order.
fn overlay<A: Bits>(base: &[(A, RuleId)], layer: &[Range<A>]) -> Vec<(A, RuleId)> {
    let mut starts = Vec::with_capacity(base.len() + 2 * layer.len());
    let mut rest = base.iter().copied().peekable();
    let mut beneath = RuleId::Default;
    for &(low, high, rule) in layer {
        while let Some((first, below)) = rest.next_if(|(first, _)| *first < low) {
            beneath = below;
            push(&mut starts, first, below);
        }
        push(&mut starts, low, rule);
        while let Some((_, below)) = rest.next_if(|(first, _)| *first <= high) {
            beneath = below;
        }
        if let Some(after) = high.next() {
            push(&mut starts, after, beneath);
        }
    }
    for (first, below) in rest {
        push(&mut starts, first, below);
    }
    starts
}

/// Adds a start. Another one at the same address is replaced, and one that changes nothing is left
/// out.
fn push<A: Bits>(starts: &mut Vec<(A, RuleId)>, first: A, rule: RuleId) {
    starts.pop_if(|(last, _)| *last == first);
    if starts.last().is_none_or(|(_, last)| *last != rule) {
        starts.push((first, rule));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use RuleId::{Allowed, BlockedDestination as Blocked, Default as Free};

    fn starts(ranges: &Ranges<u32>) -> Vec<(u32, RuleId)> {
        ranges.first.iter().copied().zip(ranges.rules.iter().copied()).collect()
    }

    #[test]
    fn the_last_layer_wins_and_both_ends_of_the_addresses_are_covered() {
        let low = vec![(0, 9, Blocked), (20, 29, Blocked), (u32::MAX - 9, u32::MAX, Blocked)];
        let high = vec![(5, 24, Allowed), (u32::MAX, u32::MAX, Allowed)];
        let ranges = Ranges::of([low, high]);
        assert_eq!(
            starts(&ranges),
            [
                (0, Blocked),
                (5, Allowed),
                (25, Blocked),
                (30, Free),
                (u32::MAX - 9, Blocked),
                (u32::MAX, Allowed),
            ]
        );
        assert_eq!(starts(&Ranges::of([])), [(0, Free)]);
        assert_eq!(starts(&Ranges::of([vec![(0, u32::MAX, Blocked)]])), [(0, Blocked)]);
    }

    #[test]
    fn neighbours_of_one_rule_are_one_range() {
        let ranges = Ranges::of([vec![(1, 3, Blocked), (4, 6, Blocked)], vec![(7, 7, Blocked)]]);
        assert_eq!(starts(&ranges), [(0, Free), (1, Blocked), (8, Free)]);
    }

    fn layer(rule: RuleId) -> impl Strategy<Value = Vec<Range<u32>>> {
        // Steps from one end to the next: of 0, so that ranges touch.
        prop::collection::vec((0u32..4, 0u32..4), 0..20).prop_map(move |steps| {
            let mut at = 0;
            let range = |(gap, len): (u32, u32)| {
                let low = at + gap;
                at = low + len + 1;
                (low, low + len, rule)
            };
            steps.into_iter().map(range).collect()
        })
    }

    proptest! {
        #[test]
        fn layers_agree_with_a_search_of_each(low in layer(Blocked), high in layer(Allowed)) {
            let ranges = Ranges::of([low.clone(), high.clone()]);
            for address in 0..150 {
                let of = |layer: &[Range<u32>]| {
                    let found = layer.iter().find(|it| (it.0..=it.1).contains(&address));
                    found.map(|it| it.2)
                };
                let expected = of(&high).or_else(|| of(&low)).unwrap_or(Free);
                prop_assert_eq!(ranges.find(address), expected, "{}", address);
            }
            for pair in starts(&ranges).windows(2) {
                prop_assert!(pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1);
            }
        }
    }
}
