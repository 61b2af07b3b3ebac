//! Dependencies that a package declares and does not use: no file of it has the crate's name.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::metadata::Package;

/// Names the dependencies of a package that it does not use. The code knows them by `names`.
pub(super) fn find<'a>(
    package: &Package,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let folder = package.manifest_path.parent().context("a manifest is in a directory")?;
    let mut code = String::new();
    collect(folder, &mut code)?;
    let unused = names.filter(|name| !has_word(&code, name));
    let Package { name: package, .. } = package;
    let say = |name| format!("{package} does not use {name}. Fix: remove it from its Cargo.toml");
    Ok(unused.map(say).collect())
}

/// Appends all Rust files below a directory, but not those of packages below it.
fn collect(folder: &Path, code: &mut String) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            let is_other =
                path.join("Cargo.toml").exists() || path.file_name() == Some("target".as_ref());
            if !is_other {
                collect(&path, code)?;
            }
        } else if path.extension() == Some("rs".as_ref()) {
            code.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_used_where_its_whole_name_is() {
        assert!(has_word("use ring::aead;", "ring"));
        assert!(has_word("x = ::ring::hmac", "ring"));
        assert!(!has_word("string, io_uring, rings", "ring"));
    }
}
