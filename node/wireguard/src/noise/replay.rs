//! Which counters have been received (RFC 6479; whitepaper, section 5.4.6).

/// Bits of a word.
const WORD: u64 = u64::BITS as u64;
/// Words of the bitmap.
const WORDS: usize = 128;
/// The most that a counter may lie behind the next one. The bitmap has a word more, which is being
/// filled while the window moves: Linux has the same size.
pub(crate) const WINDOW_LEN: u64 = (WORDS as u64 - 1) * WORD;

/// The counters that a keypair has received.
pub(crate) struct ReplayWindow {
    /// One more than the highest.
    next: u64,
    /// A ring of words: bit c mod 64 of word c / 64 mod 128 is counter c.
    words: [u64; WORDS],
}

impl ReplayWindow {
    /// None has been received.
    pub(crate) const fn new() -> Self {
        Self { next: 0, words: [0; WORDS] }
    }

    /// Whether a counter is neither a replay nor too old. Remembers nothing: the message is not
    /// authentic yet.
    #[inline]
    pub(crate) fn allows(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        self.next - counter <= WINDOW_LEN && self.word(counter) & bit(counter) == 0
    }

    /// Remembers the counter of an authentic message. Returns whether it is allowed. The counter must
    /// be below `u64::MAX`.
    #[inline]
    pub(crate) fn accept(&mut self, counter: u64) -> bool {
        if !self.allows(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        if let Some(word) = self.words.get_mut(index(counter)) {
            *word |= bit(counter);
        }
        true
    }

    /// Moves the window on, so that it ends with `counter`.
    #[inline]
    fn advance(&mut self, counter: u64) {
        let before = self.next.saturating_sub(1) / WORD;
        let steps = (counter / WORD - before).min(WORDS as u64);
        for step in 1..=steps {
            if let Some(word) = self.words.get_mut(((before + step) % WORDS as u64) as usize) {
                *word = 0;
            }
        }
        self.next = counter.saturating_add(1);
    }

    fn word(&self, counter: u64) -> u64 {
        self.words.get(index(counter)).copied().unwrap_or(u64::MAX)
    }
}

fn index(counter: u64) -> usize {
    (counter / WORD % WORDS as u64) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % WORD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same by a set of all counters.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn accept(&mut self, counter: u64) -> bool {
            let highest = self.0.last().copied();
            let is_old = highest.is_some_and(|highest| counter + WINDOW_LEN < highest + 1);
            !is_old && self.0.insert(counter)
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_counters(
            steps in prop::collection::vec((0u8..6, 0u64..20_000), 1..400),
            start in prop_oneof![Just(0u64), Just((1 << 60) - 3), Just(u64::MAX - (1 << 20))],
        ) {
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            let mut at = start;
            for (kind, distance) in steps {
                let counter = match kind {
                    0 | 1 => { at += 1; at }
                    2 => { at += distance % 200; at }
                    3 => { at += distance; at }
                    4 => at.saturating_sub(distance % 300),
                    _ => at.saturating_sub(distance),
                };
                let expected = model.accept(counter);
                prop_assert_eq!(window.allows(counter), expected);
                prop_assert_eq!(window.accept(counter), expected, "counter {} at {}", counter, at);
                prop_assert!(!window.allows(counter));
            }
        }
    }

    #[test]
    fn all_of_the_window_may_come_backwards_and_nothing_before_it() {
        for start in [0, 5, 63, 64, 1 << 40] {
            let mut window = ReplayWindow::new();
            let last = start + WINDOW_LEN;
            assert!(window.accept(last));
            assert!(!window.accept(start), "one behind the window");
            for counter in (start + 1..last).rev() {
                assert!(window.accept(counter), "{counter}");
                assert!(!window.accept(counter), "{counter} again");
            }
        }
    }

    #[test]
    fn a_jump_forgets_what_is_far_behind_and_nothing_else() {
        let mut window = ReplayWindow::new();
        assert!((0..100).all(|counter| window.accept(counter)));
        assert!(window.accept(1 << 50));
        assert!(!window.allows(99) && !window.allows((1 << 50) - WINDOW_LEN));
        assert!(window.allows((1 << 50) - WINDOW_LEN + 1));
        assert!(window.accept(u64::MAX - 1));
        assert!(!window.accept(u64::MAX - 1));
    }
}
