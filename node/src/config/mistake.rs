//! A mistake in a configuration: where it is, what it is, and what to write instead.

use std::{fmt, ops::Range};

/// One mistake. It reads like a compiler's error once the file's name and a colon are before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// `section.key`, or what there is of it; empty for a mistake of the file's form.
    pub key: String,
    /// What is wrong, with the value.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}. Fix: {}.", self.problem, self.fix)
    }
}

impl std::error::Error for Mistake {}

/// Line and column of a byte of the text.
pub(crate) fn position(text: &str, at: &Range<usize>) -> (usize, usize) {
    let before: String = text
        .char_indices()
        .take_while(|(index, _)| *index < at.start)
        .map(|(_, character)| character)
        .collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
    (line, column)
}

/// The known word that is closest to `word`, when it is close enough to have been meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, removed or replaced to make `a` into `b`, without regard
/// to case and to `-` against `_`.
fn distance(a: &str, b: &str) -> usize {
    let plain =
        |text: &str| -> Vec<char> { text.to_lowercase().replace('-', "_").chars().collect() };
    let (a, b) = (plain(a), plain(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("listen-port", "listen_port"), 0);
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["listen_port", "uplink", "cores"];
        assert_eq!(nearest("listenport", &known), Some("listen_port"));
        assert_eq!(nearest("up_link", &known), Some("uplink"));
        assert_eq!(nearest("bandwidth", &known), None);
    }

    #[test]
    fn positions_are_counted_in_characters() {
        let text = "# ü\nab = 1";
        let at = text.find('1').expect("it is there");
        assert_eq!(position(text, &(at..at + 1)), (2, 6));
    }
}
