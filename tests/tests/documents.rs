//! Documents are readable, and what they name exists.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The longest line of a document, in columns.
const MAX_COLUMNS: usize = 120;

/// The directories in which a path in a document may lie.
const TOP: [&str; 10] = [
    "node/",
    "node-common/",
    "node-ebpf/",
    "testkit/",
    "tests/",
    "benches/",
    "fuzz/",
    "docs/",
    "packaging/",
    "xtask/",
];

/// A document and its text.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// The lines outside of code blocks, with their numbers.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_block = false;
        self.text.lines().enumerate().filter_map(move |(number, line)| {
            let is_fence = line.trim_start().starts_with("```");
            in_block ^= is_fence;
            (!in_block && !is_fence).then_some((number + 1, line))
        })
    }

    /// What stands between code marks, with its line.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose()
            .flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |c| (number, c)))
    }

    /// The anchors of its headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
    }

    /// Where something stands in it, for messages.
    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: PathBuf) -> Result<Document> {
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    Ok(Document { path, text })
}

fn documents() -> Result<Vec<Document>> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "fuzz/README.md"]
            .map(|name| root().join(name))
            .into();
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    let documents = paths.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    ensure!(documents.len() >= 18, "only {} documents", documents.len());
    Ok(documents)
}

/// Whether a line can be broken: one word, such as a link or the name of a test, cannot.
fn is_one_word(line: &str) -> bool {
    let item = line.trim_start();
    !item.strip_prefix("- ").unwrap_or(item).contains(' ')
}

#[test]
fn no_line_of_a_document_is_longer_than_120_columns() -> Result<()> {
    let mut long = Vec::new();
    for document in documents()? {
        for (index, line) in document.text.lines().enumerate() {
            if line.chars().count() > MAX_COLUMNS && !is_one_word(line) {
                long.push(document.at(index + 1));
            }
        }
    }
    ensure!(long.is_empty(), "longer than {MAX_COLUMNS} columns: {}", long.join(", "));
    Ok(())
}

#[test]
fn every_link_in_a_document_leads_to_a_file_and_a_heading() -> Result<()> {
    let mut seen = 0;
    for document in documents()? {
        for (number, line) in document.prose() {
            for rest in line.split("](").skip(1) {
                let at = document.at(number);
                let target = rest.split(')').next().unwrap_or_default();
                if target.starts_with("https://") {
                    continue;
                }
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                let beside = document.path.parent().context("no directory")?;
                let path = if file.is_empty() { document.path.clone() } else { beside.join(file) };
                ensure!(path.exists(), "{at}: there is no {file}");
                if !heading.is_empty() {
                    let anchors = read(path)?.anchors();
                    ensure!(anchors.contains(heading), "{at}: no heading {target}: {anchors:?}");
                }
                seen += 1;
            }
        }
    }
    ensure!(seen >= 60, "only {seen} links");
    Ok(())
}

/// Whether code marks hold a path in this repository, and no pattern or placeholder.
fn is_path(code: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_placeholder =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase());
    TOP.iter().any(|top| code.starts_with(top))
        && code.chars().all(is_plain)
        && !code.split('/').any(is_placeholder)
}

#[test]
fn every_path_in_a_document_exists() -> Result<()> {
    let mut seen = 0;
    for document in documents()? {
        for (number, path) in document.code().filter(|(_, code)| is_path(code)) {
            ensure!(root().join(path).exists(), "{}: there is no {path}", document.at(number));
            seen += 1;
        }
    }
    ensure!(seen >= 20, "only {seen} paths");
    Ok(())
}

#[test]
fn every_configuration_key_in_a_document_exists() -> Result<()> {
    let defaults = weir_config::default_text();
    let (mut sections, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let mut section = "";
    for line in defaults.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            sections.insert(name);
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.insert(format!("{section}.{key}"));
        }
    }
    let mut seen = 0;
    for document in documents()? {
        for (number, code) in document.code() {
            let key = code.split(" = ").next().unwrap_or_default();
            let Some((section, name)) = key.split_once('.') else { continue };
            let is_key =
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '4' || c == '6');
            let is_file = ["db", "rs", "toml"].contains(&name);
            if !is_key || is_file || !sections.contains(section) {
                continue;
            }
            ensure!(keys.contains(key), "{}: there is no key {key}", document.at(number));
            seen += 1;
        }
    }
    ensure!(seen >= 80, "only {seen} keys");
    Ok(())
}

#[test]
fn every_test_that_nat_md_names_exists() -> Result<()> {
    let document = read(root().join("docs/nat.md"))?;
    let mut seen = 0;
    for (number, code) in document.code() {
        let Some((file, name)) = code.split_once(".rs::") else { continue };
        let file = format!("{file}.rs");
        let places = ["node/nat/src/tests", "tests/tests", ""].map(|place| root().join(place));
        let path = places.map(|place| place.join(&file)).into_iter().find(|path| path.exists());
        let path = path.with_context(|| format!("{}: no {file}", document.at(number)))?;
        let code = fs::read_to_string(&path)?;
        ensure!(code.contains(&format!("fn {name}(")), "{}: no test {name}", document.at(number));
        seen += 1;
    }
    ensure!(seen >= 60, "only {seen} tests");
    // Each requirement has a test or a reason.
    for line in document.text.lines().filter(|line| line.starts_with("- REQ-")) {
        let (requirement, reason) = line.split_once(": ").context("no text")?;
        ensure!(reason.len() >= 20, "{requirement} has neither a test nor a reason");
    }
    Ok(())
}
