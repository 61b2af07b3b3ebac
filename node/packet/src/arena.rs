//! A buffer that one iteration of a worker fills from the front and the next one reuses.

use std::ops::Range;

/// A range of bytes in an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The offset of the first byte.
    pub start: u32,
    /// The length in bytes.
    pub len: u32,
}

impl Chunk {
    /// The chunk as a range of indexes.
    #[must_use]
    #[inline(always)]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// The offset of the first byte behind the chunk.
    #[must_use]
    #[inline(always)]
    pub fn end(self) -> u32 {
        self.start + self.len
    }
}

/// The buffer. It never grows: [`Arena::take`] refuses what does not fit.
#[derive(Clone, Debug)]
pub struct Arena {
    bytes: Box<[u8]>,
    used: usize,
}

impl Arena {
    /// Creates an arena of `capacity` bytes, which must be below 4 GiB.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        debug_assert!(u32::try_from(capacity).is_ok(), "a chunk's offset has 32 bits");
        Self { bytes: vec![0; capacity].into_boxed_slice(), used: 0 }
    }

    /// Empties the arena. All chunks taken before are void.
    #[inline]
    pub fn reset(&mut self) {
        self.used = 0;
    }

    /// The number of bytes that can still be taken.
    #[must_use]
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Takes `len` bytes. Returns `None`, and takes nothing, if there is no room for them.
    #[must_use]
    #[inline(always)]
    pub fn take(&mut self, len: usize) -> Option<(Chunk, &mut [u8])> {
        let start = self.used;
        let bytes = self.bytes.get_mut(start..start.checked_add(len)?)?;
        self.used = start + len;
        Some((Chunk { start: start as u32, len: len as u32 }, bytes))
    }

    /// Gives back everything behind `end`.
    #[inline(always)]
    pub fn truncate(&mut self, end: u32) {
        self.used = self.used.min(end as usize);
    }

    /// The bytes of a chunk.
    #[must_use]
    #[inline(always)]
    pub fn get(&self, chunk: Chunk) -> &[u8] {
        self.bytes.get(chunk.range()).unwrap_or_default()
    }

    /// The bytes of several chunks, to change them together. The chunks must be in the order in which
    /// they were taken. Of one that is not, and of those behind it, nothing is returned.
    pub fn get_many_mut(
        &mut self,
        chunks: impl Iterator<Item = Chunk>,
    ) -> impl Iterator<Item = &mut [u8]> {
        let (mut rest, mut offset) = (&mut *self.bytes, 0);
        chunks.map_while(move |chunk| {
            let range = chunk.range();
            let skip = range.start.checked_sub(offset)?;
            let (_, behind) = std::mem::take(&mut rest).split_at_mut_checked(skip)?;
            let (bytes, behind) = behind.split_at_mut_checked(range.len())?;
            (rest, offset) = (behind, range.end);
            Some(bytes)
        })
    }

    /// The bytes of a chunk, to change them.
    #[must_use]
    #[inline(always)]
    pub fn get_mut(&mut self, chunk: Chunk) -> &mut [u8] {
        self.bytes.get_mut(chunk.range()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_changed_together_if_they_are_in_order() {
        let mut arena = Arena::new(30);
        let chunks = [4, 0, 10, 16].map(|len| arena.take(len).expect("room").0);
        let some = [chunks[0], chunks[1], chunks[3]];
        let lens: Vec<_> = arena.get_many_mut(some.into_iter()).map(|bytes| bytes.len()).collect();
        assert_eq!(lens, [4, 0, 16]);
        arena.get_many_mut(chunks.into_iter()).zip(1..).for_each(|(bytes, n)| bytes.fill(n));
        for (chunk, n) in chunks.into_iter().zip(1..) {
            assert!(arena.get(chunk).iter().all(|byte| *byte == n));
        }
        let backwards = [chunks[2], chunks[0], chunks[3]];
        assert_eq!(arena.get_many_mut(backwards.into_iter()).count(), 1);
        let beyond = Chunk { start: 20, len: 11 };
        assert_eq!(arena.get_many_mut(std::iter::once(beyond)).count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_takes_nothing() {
        let mut arena = Arena::new(10);
        assert!(arena.take(11).is_none());
        assert_eq!(arena.take(10).map(|(chunk, _)| chunk), Some(Chunk { start: 0, len: 10 }));
        assert!(arena.take(1).is_none());
        arena.truncate(4);
        assert_eq!(arena.room(), 6);
        arena.reset();
        assert_eq!(arena.room(), 10);
    }
}
