//! Which hashes came lately, in memory of a fixed size: a Bloom filter of two generations.
//!
//! It never forgets what came within the last window. It may take a hash for one that came, and
//! cannot name any that did.

/// So many of the former window's hashes are carried over into the next one. It bounds how full the
/// filter becomes, and so how often it errs.
pub(crate) const MAX_CARRIED_OVER: u32 = 1024;

/// With 1000 hashes in each generation, which is what the default limits let in, less than 1 in
/// 10,000 that did not come is taken for one that did. With half the blocks it is 1 in 400, and then
/// a fast scan keeps old bits alive by its own errors, and errs ever more.
const BLOCKS: usize = 128;

/// The bits of a hash: one in each word.
type Words = [u32; 8];

/// One cache line.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Block {
    current: Words,
    former: Words,
}

/// The filter: 8 KB.
pub(crate) struct BloomFilter {
    blocks: [Block; BLOCKS],
    /// When the current generation began, in nanoseconds.
    began: u64,
    carried: u32,
}

impl Default for BloomFilter {
    fn default() -> Self {
        let empty = Block { current: [0; 8], former: [0; 8] };
        Self { blocks: [empty; BLOCKS], began: 0, carried: 0 }
    }
}

impl BloomFilter {
    /// Whether `hash` came within the last window, or is taken for one that did. It will be known
    /// for another window then.
    #[inline]
    pub(crate) fn knows(&mut self, hash: u64) -> bool {
        let mask = mask(hash);
        let carried = self.carried;
        let block = self.block(hash);
        if has(&block.current, &mask) {
            return true;
        }
        if !has(&block.former, &mask) {
            return false;
        }
        if carried < MAX_CARRIED_OVER {
            set(&mut block.current, &mask);
            self.carried += 1;
        }
        true
    }

    /// Notes a hash that is not known, at `now` nanoseconds of a clock that does not go backwards.
    pub(crate) fn note(&mut self, hash: u64, now: u64, window: u64) {
        // Only here: as long as nothing new comes, nothing needs to be forgotten, and packets of
        // what is known need no clock.
        if now.saturating_sub(self.began) >= window {
            self.began = now;
            self.carried = 0;
            for block in &mut self.blocks {
                block.former = std::mem::take(&mut block.current);
            }
        }
        set(&mut self.block(hash).current, &mask(hash));
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "a remainder of BLOCKS is below BLOCKS")]
    fn block(&mut self, hash: u64) -> &mut Block {
        &mut self.blocks[(hash >> 57) as usize % BLOCKS]
    }
}

/// One bit of each word, by five bits of the hash.
#[inline(always)]
fn mask(hash: u64) -> Words {
    [0, 5, 10, 15, 20, 25, 30, 35].map(|shift| 1 << (hash >> shift & 31))
}

#[inline(always)]
fn has(words: &Words, mask: &Words) -> bool {
    // Without a branch for each word.
    words.iter().zip(mask).fold(0, |missing, (word, bit)| missing | (bit & !word)) == 0
}

#[inline(always)]
fn set(words: &mut Words, mask: &Words) {
    for (word, bit) in words.iter_mut().zip(mask) {
        *word |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1000;

    /// Hashes that look random: splitmix64.
    fn hash(number: u64) -> u64 {
        let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    #[test]
    fn what_came_is_known_for_a_window_after_it_came_last() {
        let mut filter = BloomFilter::default();
        let mut now = 77_000;
        assert!(!filter.knows(hash(1)));
        filter.note(hash(1), now, WINDOW);
        // Others come all the time, so that generations follow each other.
        for other in 100..130 {
            now += WINDOW / 3;
            assert!(filter.knows(hash(1)), "{now}");
            filter.note(hash(other), now, WINDOW);
        }
        for other in 200..206 {
            now += WINDOW / 2;
            filter.note(hash(other), now, WINDOW);
        }
        assert!(!filter.knows(hash(1)), "silent for three windows");
    }

    #[test]
    fn where_nothing_new_comes_nothing_is_forgotten() {
        let mut filter = BloomFilter::default();
        filter.note(hash(1), 10, WINDOW);
        filter.note(hash(2), 90 * WINDOW, WINDOW);
        assert!(filter.knows(hash(1)));
    }

    #[test]
    fn no_more_than_so_many_are_carried_over() {
        let mut filter = BloomFilter::default();
        let many = u64::from(MAX_CARRIED_OVER) * 2;
        for number in 0..many {
            filter.note(hash(number), 10, WINDOW);
        }
        filter.note(hash(many), 2 * WINDOW, WINDOW);
        assert!((0..many).all(|number| filter.knows(hash(number))), "all are known in this window");
        filter.note(hash(many + 1), 4 * WINDOW, WINDOW);
        let known = (0..many).filter(|number| filter.knows(hash(*number))).count();
        assert!((1024..1200).contains(&known), "{known}");
    }

    #[test]
    fn of_unknown_hashes_few_are_taken_for_known() {
        // Both generations hold as many as the default limits let in.
        let mut filter = BloomFilter::default();
        for number in 0..2000 {
            filter.note(hash(number), 10 + number / 1000 * WINDOW, WINDOW);
        }
        let strangers = 1_000_000..1_100_000;
        let wrong = strangers.filter(|number| filter.knows(hash(*number))).count();
        assert!(wrong < 20, "{wrong} of 100000");
    }
}
