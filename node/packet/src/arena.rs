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
