//! Reads a configuration, and finds all its mistakes in one run.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{
    mistake::{Mistake, nearest, position},
    rules,
    section::{Places, Section},
    sections::{Api, Config, Dns, Fleet, Ledger, Limits, Log, Node, Payment, Policy, Tunnel},
};

const SECTIONS: &[&str] =
    &["node", "tunnel", "policy", "dns", "limits", "ledger", "fleet", "payment", "api", "log"];

/// The configuration that `text` describes. With the uplink's MTU in bytes, the tunnel's is held
/// against it.
///
/// # Errors
///
/// Names every mistake, in the order of the text.
pub fn check(text: &str, uplink_mtu: Option<u32>) -> Result<Config, Vec<Mistake>> {
    let mut reader = Reader { text, mistakes: Vec::new(), places: Places::new() };
    let config = reader.read();
    // A mistake of form hides keys, and then what the rules compare would be defaults.
    if reader.mistakes.iter().all(|mistake| !mistake.key.is_empty()) {
        rules::apply(&config, uplink_mtu, &mut reader);
    }
    let mut mistakes = reader.mistakes;
    if mistakes.is_empty() {
        return Ok(config);
    }
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    Err(mistakes)
}

/// The text, what was found in it, and what is wrong with it.
pub(crate) struct Reader<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
    places: Places,
}

impl Reader<'_> {
    fn read(&mut self) -> Config {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            // The first line says what; the rest repeats the text around it.
            let problem = error.message().lines().next().unwrap_or("not TOML").to_owned();
            self.mistake(
                &at,
                String::new(),
                problem,
                "write it as TOML: key = value, texts in double quotes, lists in brackets, each \
                 key once"
                    .into(),
            );
        }
        let mut config = Config::default();
        for (name, value) in document.get_ref() {
            let (at, name) = (name.span(), name.get_ref().as_ref());
            let Some(known) = SECTIONS.iter().find(|section| **section == name) else {
                self.unknown_section(&at, name);
                continue;
            };
            let DeValue::Table(table) = value.get_ref() else {
                let problem = "it is a section, not a key".into();
                self.mistake(
                    &at,
                    name.into(),
                    problem,
                    format!("write [{name}] on a line of its own"),
                );
                continue;
            };
            match *known {
                "node" => self.section::<Node>(known, table, &mut config.node),
                "tunnel" => self.section::<Tunnel>(known, table, &mut config.tunnel),
                "policy" => self.section::<Policy>(known, table, &mut config.policy),
                "limits" => self.section::<Limits>(known, table, &mut config.limits),
                "ledger" => self.section::<Ledger>(known, table, &mut config.ledger),
                "fleet" => self.section::<Fleet>(known, table, &mut config.fleet),
                "dns" => self.section::<Dns>(known, table, &mut config.dns),
                "payment" => self.section::<Payment>(known, table, &mut config.payment),
                "api" => self.section::<Api>(known, table, &mut config.api),
                _ => self.section::<Log>(known, table, &mut config.log),
            }
        }
        config
    }

    fn section<S: Section>(&mut self, name: &'static str, table: &DeTable<'_>, section: &mut S) {
        for (key, value) in table {
            let (at, key) = (key.span(), key.get_ref().as_ref());
            if !S::KEYS.contains(&key) {
                self.unknown_key(&at, name, key, S::KEYS);
                continue;
            }
            self.places.push((name, key.to_owned(), value.span()));
            if let Err(problem) = section.set(key, value) {
                let at = problem.at.unwrap_or_else(|| value.span());
                self.mistake(&at, format!("{name}.{key}"), problem.problem, problem.fix);
            }
        }
    }

    fn unknown_section(&mut self, at: &Range<usize>, name: &str) {
        let fix = if let Some(section) = section_of(name) {
            format!("move it below [{section}]")
        } else if let Some(near) = nearest(name, SECTIONS) {
            format!("did you mean [{near}]? The sections are {}", SECTIONS.join(", "))
        } else {
            format!("remove it; the sections are {}", SECTIONS.join(", "))
        };
        self.mistake(at, name.into(), "unknown section".into(), fix);
    }

    fn unknown_key(&mut self, at: &Range<usize>, section: &str, key: &str, keys: &[&str]) {
        let fix = if let Some(near) = nearest(key, keys) {
            format!("did you mean {near:?}? `weir config default` prints every key")
        } else if let Some(other) = section_of(key) {
            format!("move it below [{other}]")
        } else {
            "remove it; `weir config default` prints every key".into()
        };
        self.mistake(at, format!("{section}.{key}"), "unknown key".into(), fix);
    }

    fn mistake(&mut self, at: &Range<usize>, key: String, problem: String, fix: String) {
        let (line, column) = position(self.text, at);
        self.mistakes.push(Mistake { line, column, key, problem, fix });
    }

    /// A mistake of the value of `section.key`, which may be a default: then the first of
    /// `others` that stands in the text is to blame.
    pub(crate) fn blame(&mut self, keys: &[(&str, &str)], problem: String, fix: String) {
        let place = keys.iter().find_map(|(section, key)| {
            let same = |place: &&(&'static str, String, Range<usize>)| {
                place.0 == *section && place.1 == *key
            };
            self.places.iter().find(same).map(|place| (format!("{section}.{key}"), place.2.clone()))
        });
        let (key, at) = place.unwrap_or_else(|| {
            let name = keys.first().map(|(section, key)| format!("{section}.{key}"));
            (name.unwrap_or_default(), 0..0)
        });
        // A value that could not be read has its mistake already, and a default in its place.
        if self.mistakes.iter().all(|mistake| mistake.key != key) {
            self.mistake(&at, key, problem, fix);
        }
    }
}

/// The section that has this key.
fn section_of(key: &str) -> Option<&'static str> {
    [
        ("node", Node::KEYS),
        ("tunnel", Tunnel::KEYS),
        ("policy", Policy::KEYS),
        ("limits", Limits::KEYS),
        ("ledger", Ledger::KEYS),
        ("fleet", Fleet::KEYS),
        ("dns", Dns::KEYS),
        ("payment", Payment::KEYS),
        ("api", Api::KEYS),
        ("log", Log::KEYS),
    ]
    .into_iter()
    .find(|(_, keys)| keys.contains(&key))
    .map(|(section, _)| section)
}
