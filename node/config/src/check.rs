//! Reads a configuration, and finds all its mistakes in one run.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{
    mistake::{Findings, Mistake, nearest},
    rules,
    section::Section,
    sections::Config,
};

/// Parses the configuration in `text`. If the uplink's MTU is given (in bytes), the tunnel's MTU is
/// checked against it.
///
/// # Errors
///
/// Returns every mistake, in the order of the text.
pub fn check(text: &str, uplink_mtu: Option<u32>) -> Result<Config, Vec<Mistake>> {
    let mut reader = Reader { findings: Findings::new(text) };
    let config = reader.read();
    let mut findings = reader.findings;
    // A syntax error hides keys, so the rules would compare defaults.
    if !findings.has_mistakes_of_form() {
        rules::apply(&config, uplink_mtu, &mut findings);
    }
    let mistakes = findings.into_mistakes();
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

/// Reads the sections of a text.
struct Reader<'t> {
    findings: Findings<'t>,
}

impl Reader<'_> {
    fn read(&mut self) -> Config {
        let (document, errors) = DeTable::parse_recoverable(self.findings.text());
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            // The first line is the message; the rest quotes the text.
            let problem = error.message().lines().next().unwrap_or("not TOML").to_owned();
            self.findings.mistake(
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
            let Some((known, section)) = config.section_mut(name) else {
                self.unknown_section(&at, name);
                continue;
            };
            let DeValue::Table(table) = value.get_ref() else {
                let problem = "it is a section, not a key".into();
                self.findings.mistake(
                    &at,
                    name.into(),
                    problem,
                    format!("write [{name}] on a line of its own"),
                );
                continue;
            };
            self.section(known, table, section);
        }
        config
    }

    fn section(&mut self, name: &'static str, table: &DeTable<'_>, section: &mut dyn Section) {
        let keys = section.keys();
        for (key, value) in table {
            let (at, key) = (key.span(), key.get_ref().as_ref());
            if !keys.contains(&key) {
                self.unknown_key(&at, name, key, keys);
                continue;
            }
            self.findings.locate(name, key, value.span());
            if let Err(problem) = section.set(key, value) {
                let at = problem.at.unwrap_or_else(|| value.span());
                self.findings.mistake(&at, format!("{name}.{key}"), problem.problem, problem.fix);
            }
        }
    }

    fn unknown_section(&mut self, at: &Range<usize>, name: &str) {
        let fix = if let Some(section) = section_of(name) {
            format!("move it below [{section}]")
        } else if let Some(near) = nearest(name, Config::SECTIONS) {
            format!("did you mean [{near}]? The sections are {}", Config::SECTIONS.join(", "))
        } else {
            format!("remove it; the sections are {}", Config::SECTIONS.join(", "))
        };
        self.findings.mistake(at, name.into(), "unknown section".into(), fix);
    }

    fn unknown_key(&mut self, at: &Range<usize>, section: &str, key: &str, keys: &[&str]) {
        let fix = if let Some(near) = nearest(key, keys) {
            format!("did you mean {near:?}? `weir config default` prints every key")
        } else if let Some(other) = section_of(key) {
            format!("move it below [{other}]")
        } else {
            "remove it; `weir config default` prints every key".into()
        };
        self.findings.mistake(at, format!("{section}.{key}"), "unknown key".into(), fix);
    }
}

/// Finds the section that has this key.
fn section_of(key: &str) -> Option<&'static str> {
    let config = Config::default();
    let mut sections = config.sections();
    sections.find(|(_, section)| section.keys().contains(&key)).map(|(name, _)| name)
}
