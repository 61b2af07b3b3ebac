//! A buffer that one turn of a worker fills from the front and the next turn uses again.

use std::ops::Range;

/// A place in an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

impl Span {
    /// As a range of indexes.
    #[must_use]
    #[inline(always)]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// The first byte behind the span.
    #[must_use]
    #[inline(always)]
    pub fn end(self) -> u32 {
        self.start + self.len
    }
}

/// The buffer. It never grows: what does not fit is refused.
#[derive(Clone, Debug)]
pub struct Arena {
    bytes: Box<[u8]>,
    used: usize,
}

impl Arena {
    /// An arena of `capacity` bytes (below 4 GiB).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        debug_assert!(u32::try_from(capacity).is_ok(), "spans count in 32 bits");
        Self { bytes: vec![0; capacity].into_boxed_slice(), used: 0 }
    }

    /// Begins anew: all spans taken so far are void.
    pub fn reset(&mut self) {
        self.used = 0;
    }

    /// Bytes that can still be taken.
    #[must_use]
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Takes `len` bytes, or nothing when there is no room for them.
    #[must_use]
    #[inline(always)]
    pub fn take(&mut self, len: usize) -> Option<(Span, &mut [u8])> {
        let start = self.used;
        let bytes = self.bytes.get_mut(start..start.checked_add(len)?)?;
        self.used = start + len;
        Some((Span { start: start as u32, len: len as u32 }, bytes))
    }

    /// Gives back everything behind `end`.
    #[inline(always)]
    pub fn truncate(&mut self, end: u32) {
        self.used = self.used.min(end as usize);
    }

    /// The bytes of a span.
    #[must_use]
    #[inline(always)]
    pub fn get(&self, span: Span) -> &[u8] {
        self.bytes.get(span.range()).unwrap_or_default()
    }

    /// The bytes of a span, to be changed.
    #[must_use]
    #[inline(always)]
    pub fn get_mut(&mut self, span: Span) -> &mut [u8] {
        self.bytes.get_mut(span.range()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_takes_nothing() {
        let mut arena = Arena::new(10);
        assert!(arena.take(11).is_none());
        assert_eq!(arena.take(10).map(|(span, _)| span), Some(Span { start: 0, len: 10 }));
        assert!(arena.take(1).is_none());
        arena.truncate(4);
        assert_eq!(arena.room(), 6);
        arena.reset();
        assert_eq!(arena.room(), 10);
    }
}
