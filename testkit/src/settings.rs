//! The configuration of a child node.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

/// The interface of a node's namespace that leads to its consumers and to the internet.
pub const UPLINK: &str = "up0";

/// The environment variable with the `node.egress` of every child node that sets none itself.
pub const EGRESS: &str = "WEIR_TEST_EGRESS";

/// Keys that differ from what every child node has.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<(String, String), String>);

impl Settings {
    /// The same, with the TOML value `value` for `key` in `section`.
    #[must_use]
    pub fn with(mut self, section: &str, key: &str, value: &str) -> Self {
        self.0.insert((section.to_owned(), key.to_owned()), value.to_owned());
        self
    }

    /// The file's text for a node whose files are all in `directory`.
    pub(crate) fn render(&self, directory: &Path) -> String {
        let at = |name: &str| format!("{:?}", directory.join(name));
        let mut all = Self::default()
            .with("node", "uplink", &format!("{UPLINK:?}"))
            .with("node", "private_key_file", &at("state/private.key"))
            .with("node", "state_dir", &at("state"))
            .with("node", "runtime_dir", &at("run"))
            .with("api", "socket", &at("run/weir.sock"))
            .with("api", "token_file", &at("state/api.token"))
            .with("api", "wg_directory", &at("wireguard"))
            .0;
        // So that every test can be run by both ways.
        if let Ok(egress) = std::env::var(EGRESS) {
            all.insert(("node".to_owned(), "egress".to_owned()), format!("{egress:?}"));
        }
        all.extend(self.0.clone());
        let mut text = String::new();
        let mut open = None;
        for ((section, key), value) in &all {
            if open != Some(section) {
                let _infallible = writeln!(text, "[{section}]");
                open = Some(section);
            }
            let _infallible = writeln!(text, "{key} = {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_replaces_the_default_of_the_tests() {
        let settings = Settings::default().with("node", "uplink", "\"x\"").with("a", "b", "1");
        let text = settings.render(Path::new("/d"));
        assert!(text.starts_with("[a]\nb = 1\n[api]\nsocket = \"/d/run/weir.sock\"\n"), "{text}");
        assert!(text.ends_with("uplink = \"x\"\n"), "{text}");
    }
}
