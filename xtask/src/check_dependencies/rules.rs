//! `deny.toml`, of which this knows the part that needs no network.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use spdx::{Expression, LicenseReq};

use super::metadata::Package;

/// What cargo calls the default registry.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Deserialize)]
pub(super) struct Rules {
    licenses: Licences,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    package: String,
    allow: Vec<String>,
}

impl Rules {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
    }

    /// What is wrong with a package, in words.
    pub(super) fn judge(&self, package: &Package) -> Vec<String> {
        let Package { name, version, .. } = package;
        let mut wrong = Vec::new();
        if let Some(source) = package.source.as_ref().filter(|source| *source != REGISTRY) {
            wrong.push(format!(
                "{name} {version} comes from {source}. Fix: take it from the default registry"
            ));
        }
        let allowed = package.license.as_deref().is_some_and(|it| self.allows(name, it));
        if !allowed {
            let licence = package.license.as_deref().unwrap_or("no licence that it names");
            wrong.push(format!(
                "{name} {version} has {licence}. Fix: choose another crate, or allow it in deny.toml and say why"
            ));
        }
        let wild = |it: &&super::metadata::Dependency| it.req == "*" && it.path.is_none();
        if package.source.is_none() {
            wrong.extend(
                package
                    .dependencies
                    .iter()
                    .filter(wild)
                    .map(|it| format!("{name} takes any version of {}. Fix: name one", it.name)),
            );
        }
        wrong
    }

    fn allows(&self, name: &str, licence: &str) -> bool {
        let Ok(expression) = Expression::parse_mode(licence, spdx::ParseMode::LAX) else {
            return false;
        };
        let exceptions = self.licenses.exceptions.iter().filter(|it| it.package == name);
        let own: Vec<&String> = exceptions.flat_map(|it| &it.allow).collect();
        expression.evaluate(|required: &LicenseReq| {
            let required = required.to_string();
            self.licenses.allow.contains(&required) || own.contains(&&required)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let text = "[licenses]\nallow = [\"MIT\", \"ISC\"]\n\
                    exceptions = [{ crate = \"odd\", allow = [\"NCSA\"] }]\n";
        toml::from_str(text).expect("it is well formed")
    }

    #[test]
    fn a_licence_is_allowed_if_one_of_its_choices_is() {
        let rules = rules();
        for (name, licence, is_allowed) in [
            ("a", "MIT", true),
            ("a", "MIT OR GPL-3.0-only", true),
            ("a", "MIT/Apache-2.0", true),
            ("a", "MIT AND ISC", true),
            ("a", "MIT AND NCSA", false),
            ("odd", "MIT AND NCSA", true),
            ("a", "GPL-3.0-only", false),
            ("a", "Apache-2.0 WITH LLVM-exception", false),
            ("a", "something", false),
        ] {
            assert_eq!(rules.allows(name, licence), is_allowed, "{name}: {licence}");
        }
    }

    #[test]
    fn foreign_sources_and_any_version_are_refused() {
        let package = |source: &str, req: &str| -> Package {
            let text = format!(
                r#"{{"id": "p", "name": "p", "version": "1.0.0", "license": "MIT", "source": {source},
                    "manifest_path": "/p/Cargo.toml",
                    "dependencies": [{{"name": "d", "req": "{req}", "path": null}}]}}"#
            );
            serde_json::from_str(&text).expect("it is well formed")
        };
        let rules = rules();
        assert!(rules.judge(&package("null", "^1")).is_empty());
        assert!(rules.judge(&package(&format!("{REGISTRY:?}"), "*")).is_empty(), "not ours");
        assert_eq!(rules.judge(&package("null", "*")).len(), 1);
        assert_eq!(rules.judge(&package("\"git+https://example.org/p\"", "^1")).len(), 1);
    }
}
