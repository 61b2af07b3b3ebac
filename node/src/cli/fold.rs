//! Breaks long lines for a terminal at their spaces.

/// Breaks each line that is wider than `width` at its spaces. Continuation lines are indented by
/// `indent`, or as far as the line itself if it begins with spaces.
pub(super) fn fold(text: &str, width: usize, indent: usize) -> String {
    let mut folded = String::new();
    for line in text.split_inclusive('\n') {
        let own = line.chars().take_while(|letter| *letter == ' ').count();
        // After the mark (such as an arrow) at the beginning of the line.
        let first = line.split_whitespace().next().unwrap_or_default();
        let is_mark = !first.contains(char::is_alphanumeric) && !first.is_empty();
        let mark = if is_mark { first.len() + 1 } else { 0 };
        fold_line(&mut folded, line, width, if own > 0 { own + mark } else { indent });
    }
    folded
}

fn fold_line(folded: &mut String, line: &str, width: usize, indent: usize) {
    let (mut rest, mut room, mut floor) = (line, width, indent);
    while rest.trim_end().chars().count() > room {
        // A space just beyond the width is fine, because it is not shown.
        let end = rest.char_indices().nth(room + 1).map_or(rest.len(), |(at, _)| at);
        let space = rest[..end].rfind(' ').filter(|at| *at > floor);
        let Some(at) = space else { break };
        folded.push_str(rest[..at].trim_end());
        folded.push('\n');
        folded.push_str(&" ".repeat(indent));
        rest = &rest[at + 1..];
        (room, floor) = (width.saturating_sub(indent), 0);
    }
    folded.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_at_spaces_below_their_text() {
        let text = "key   one two three four\nshort\n      -> five six seven eight\n";
        let folded = "key   one two\n      three four\nshort\n      -> five\n         six\n         \
                      seven\n         eight\n";
        assert_eq!(fold(text, 16, 6), folded);
    }

    #[test]
    fn what_has_no_space_stays_as_it_is_whatever_the_width() {
        for width in 0..12 {
            assert_eq!(fold("name  äöüäöüäöüäöü\n", width, 6), "name  äöüäöüäöüäöü\n");
        }
        assert_eq!(fold("", 80, 4), "");
    }
}
