//! Lists of spans that grow side by side: what one write gathers.

use crate::arena::Span;

const END: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Piece {
    span: Span,
    next: u32,
}

/// The list of one write, by its ends in [`Pieces`].
#[derive(Clone, Copy, Debug)]
pub struct List {
    first: u32,
    last: u32,
    /// How many spans it has.
    pub len: u32,
}

/// All lists of a turn.
#[derive(Debug, Default)]
pub struct Pieces {
    pieces: Vec<Piece>,
}

impl Pieces {
    /// Forgets all lists.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// A list of one span.
    #[must_use]
    #[inline]
    pub fn list(&mut self, span: Span) -> List {
        let at = self.pieces.len() as u32;
        self.pieces.push(Piece { span, next: END });
        List { first: at, last: at, len: 1 }
    }

    /// Appends a span to a list; spans that touch become one.
    #[inline]
    pub fn append(&mut self, list: &mut List, span: Span) {
        let at = self.pieces.len() as u32;
        if let Some(last) = self.pieces.get_mut(list.last as usize) {
            if last.span.end() == span.start {
                last.span.len += span.len;
                return;
            }
            last.next = at;
        }
        self.pieces.push(Piece { span, next: END });
        list.last = at;
        list.len += 1;
    }

    /// The spans of a list in order.
    pub fn spans(&self, list: List) -> impl Iterator<Item = Span> + '_ {
        let mut at = list.first;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(at as usize)?;
            at = piece.next;
            Some(piece.span)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u32, len: u32) -> Span {
        Span { start, len }
    }

    #[test]
    fn lists_grow_side_by_side_and_touching_spans_become_one() {
        let mut pieces = Pieces::default();
        let mut one = pieces.list(span(0, 10));
        let mut two = pieces.list(span(10, 10));
        pieces.append(&mut one, span(20, 5));
        pieces.append(&mut one, span(25, 5));
        pieces.append(&mut two, span(20, 1));
        assert_eq!(pieces.spans(one).collect::<Vec<_>>(), [span(0, 10), span(20, 10)]);
        assert_eq!(pieces.spans(two).collect::<Vec<_>>(), [span(10, 11)]);
        assert_eq!((one.len, two.len), (2, 1));
    }
}
