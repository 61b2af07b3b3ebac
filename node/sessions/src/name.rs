//! What an operator may call a session.

/// The most characters of a name.
pub const MAX_LEN: usize = 64;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("the name is empty: leave it out, or give it at least one character")]
    Empty,
    /// Longer than [`MAX_LEN`].
    #[error("the name has {0} characters: at most {MAX_LEN} are allowed")]
    TooLong(usize),
    /// A character that could confuse a terminal, a URL or a configuration file.
    #[error(
        "the name has {0:?} in it: allowed are letters, digits, spaces inside, and - _ . @ : +"
    )]
    Character(char),
    /// It would be taken for an identifier.
    #[error("the name looks like a session identifier (16 hex digits): choose another")]
    LooksLikeId,
}

/// Checks a name.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let len = name.chars().count();
    if len > MAX_LEN {
        return Err(NameError::TooLong(len));
    }
    let allowed = |c: &char| c.is_alphanumeric() || "-_.@:+ ".contains(*c);
    if let Some(character) = name.chars().find(|c| !allowed(c)) {
        return Err(NameError::Character(character));
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(NameError::Character(' '));
    }
    // A client or a proxy would take these away from a URL's path.
    if name.chars().all(|c| c == '.') {
        return Err(NameError::Character('.'));
    }
    if name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NameError::LooksLikeId);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["a", "Zoë's".trim_end_matches("'s"), "node-7.eu", "did:key:z6Mk", "two words"]
        {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn confusing_names_are_refused() {
        for name in ["", "a\nb", "\u{1b}[2J", "a/b", " a", "a ", "0123456789abcdef", "#x", ".."] {
            assert!(check(name).is_err(), "{name:?}");
        }
        assert_eq!(check(&"x".repeat(65)), Err(NameError::TooLong(65)));
    }
}
