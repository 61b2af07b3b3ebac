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
    /// The reason, with the value.
    pub problem: String,
    /// The fix.
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

/// A text, the location of each key in it, and the mistakes found so far.
pub(crate) struct Findings<'t> {
    text: &'t str,
    locations: Vec<Location>,
    mistakes: Vec<Mistake>,
}

/// The location of a key: section, key, and the bytes of its value.
type Location = (&'static str, String, Range<usize>);

impl<'t> Findings<'t> {
    /// Creates findings without mistakes.
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, locations: Vec::new(), mistakes: Vec::new() }
    }

    /// The text.
    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// Records the location of a key's value.
    pub(crate) fn locate(&mut self, section: &'static str, key: &str, at: Range<usize>) {
        self.locations.push((section, key.to_owned(), at));
    }

    /// Whether the text cannot be read as TOML.
    pub(crate) fn has_mistakes_of_form(&self) -> bool {
        self.mistakes.iter().any(|mistake| mistake.key.is_empty())
    }

    /// All mistakes, in the order of the text.
    pub(crate) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.mistakes
    }

    /// Adds a mistake in these bytes of the text.
    pub(crate) fn mistake(&mut self, at: &Range<usize>, key: String, problem: String, fix: String) {
        let (line, column) = position(self.text, at);
        self.mistakes.push(Mistake { line, column, key, problem, fix });
    }

    /// Adds a mistake at the first of these keys that is in the text. The others may have default
    /// values.
    pub(crate) fn blame(&mut self, keys: &[(&str, &str)], problem: String, fix: String) {
        let location = keys.iter().find_map(|(section, key)| {
            let same = |location: &&(&'static str, String, Range<usize>)| {
                location.0 == *section && location.1 == *key
            };
            self.locations
                .iter()
                .find(same)
                .map(|location| (format!("{section}.{key}"), location.2.clone()))
        });
        let (key, at) = location.unwrap_or_else(|| {
            let name = keys.first().map(|(section, key)| format!("{section}.{key}"));
            (name.unwrap_or_default(), 0..0)
        });
        // A value that could not be parsed already has a mistake, and was replaced by its default.
        if self.mistakes.iter().all(|mistake| mistake.key != key) {
            self.mistake(&at, key, problem, fix);
        }
    }
}

/// Line and column of a byte of the text.
fn position(text: &str, at: &Range<usize>) -> (usize, usize) {
    let before: String = text
        .char_indices()
        .take_while(|(index, _)| *index < at.start)
        .map(|(_, character)| character)
        .collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
    (line, column)
}

/// The known word closest to `word`, if it is close enough to be a plausible typo.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The edit distance (Levenshtein) from `a` to `b`, ignoring case and treating `-` as `_`.
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
