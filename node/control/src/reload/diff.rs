//! Which keys of two configurations differ, and a configuration that has some of each. It works on
//! the text that `weir config default` prints, so that no key can be forgotten.

use toml::{Table, Value};

use weir_config::{Config, Mistake, check, sections};

/// The keys, `section.key`, whose values differ.
pub(super) fn keys(one: &Config, other: &Config) -> Vec<String> {
    let (one, other) = (table(one), table(other));
    let mut differ = Vec::new();
    for (section, keys) in &one {
        for (key, value) in keys.as_table().into_iter().flatten() {
            if find(&other, section, key) != Some(value) {
                differ.push(format!("{section}.{key}"));
            }
        }
    }
    differ
}

/// `base`, with the values of `from` for `keys`.
///
/// # Errors
///
/// Says what in it does not fit together.
pub(super) fn merge(base: &Config, from: &Config, keys: &[String]) -> Result<Config, Vec<Mistake>> {
    let (mut merged, from) = (table(base), table(from));
    for name in keys {
        let Some((section, key)) = name.split_once('.') else { continue };
        let Some(value) = find(&from, section, key) else { continue };
        if let Some(section) = merged.get_mut(section).and_then(Value::as_table_mut) {
            section.insert(key.to_owned(), value.clone());
        }
    }
    check(&merged.to_string(), None)
}

fn find<'t>(table: &'t Table, section: &str, key: &str) -> Option<&'t Value> {
    table.get(section)?.get(key)
}

fn table(config: &Config) -> Table {
    // What weir prints, it can read: a test of the configuration says so.
    sections::text(config).parse().unwrap_or_default()
}
