//! wireguard-go: Debian 12 has a slow one of 2022; its backports have one of 2023 with segmentation
//! offload, which shows what the node can do.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::apt::{self, Need};
use crate::workspace;

const NEED: Need = Need::new("wireguard-go", "/usr/bin/wireguard-go", "is the consumer's client");
/// The first version with segmentation offload on both sides.
const FAST: &str = "0.0.20230223";
const SUITE: &str = "bookworm-backports";
const SOURCE: &str = "/etc/apt/sources.list.d/weir-backports.sources";
/// How long a mirror without backports is not asked again.
const MAX_AGE: Duration = Duration::from_hours(24);

/// Installs wireguard-go, the one from backports if it can be had, and gives its version.
pub(crate) fn ensure() -> Result<String> {
    if !is_fast(&version()) && is_bookworm() && !refused_lately() {
        println!(
            "installing Debian package wireguard-go from {SUITE}: it {}, and the one of 2022 has \
             no segmentation offload",
            NEED.why
        );
        if let Err(error) = from_backports() {
            println!("no wireguard-go from {SUITE} ({error:#}): taking Debian 12's own");
            fs::write(refusal(), "").context("cannot write a note into the target directory")?;
        }
    }
    if !Path::new(NEED.proof).exists() {
        apt::install(&[&NEED])?;
    }
    let version = version();
    Ok(if version.is_empty() { "(not from a Debian package)".to_owned() } else { version })
}

/// The source is there for the time of the installation only.
fn from_backports() -> Result<()> {
    let source = source(SUITE)?;
    fs::write(SOURCE, source).with_context(|| format!("cannot write {SOURCE}"))?;
    let arguments = ["install", "-y", "--no-install-recommends", "-t", SUITE, NEED.package];
    let installed = apt::update().and_then(|()| apt::run(Command::new("apt-get").args(arguments)));
    fs::remove_file(SOURCE).with_context(|| format!("cannot remove {SOURCE}"))?;
    installed
}

/// An apt source for suites, separated by spaces, on the mirror from which this machine has its
/// packages.
///
/// # Errors
/// If there is no such mirror.
pub(crate) fn source(suites: &str) -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").context("no apt sources")?;
    files.extend(parts.flatten().map(|entry| entry.path()));
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts
        .filter_map(|text| mirror_in(&text))
        .map(|(uri, key)| {
            let key = if key.is_empty() { key } else { format!("Signed-By: {key}\n") };
            format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n{key}")
        })
        .next()
        .context("no mirror of bookworm in /etc/apt")
}

/// The mirror from which this machine has its packages.
pub(crate) fn mirror() -> Option<String> {
    let files = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = files.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    texts.filter_map(|text| mirror_in(&text)).map(|(uri, _)| uri).next()
}

/// The mirror of suite bookworm, and its keyring, in a file of either format.
fn mirror_in(text: &str) -> Option<(String, String)> {
    let stanza = |stanza: &str| {
        let field = |name: &str| {
            let line = stanza.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches(':').trim().to_owned())
        };
        let suites = field("Suites")?;
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        suites
            .split_whitespace()
            .any(|suite| suite == "bookworm")
            .then(|| (uri, field("Signed-By").unwrap_or_default()))
    };
    let line = |line: &str| {
        let rest = line.strip_prefix("deb ")?;
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        (suite == "bookworm").then(|| (uri.to_owned(), key.unwrap_or_default().to_owned()))
    };
    text.split("\n\n").find_map(stanza).or_else(|| text.lines().find_map(line))
}

fn version() -> String {
    let query = ["-W", "-f", "${Version}", NEED.package];
    let output = Command::new("dpkg-query").args(query).output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    version.unwrap_or_default()
}

/// The versions are dates, so that they compare as text.
fn is_fast(version: &str) -> bool {
    version >= FAST
}

fn is_bookworm() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "VERSION_CODENAME=bookworm")
}

fn refused_lately() -> bool {
    let modified = fs::metadata(refusal()).and_then(|meta| meta.modified());
    modified.is_ok_and(|time| time.elapsed().unwrap_or_default() < MAX_AGE)
}

fn refusal() -> PathBuf {
    workspace::target().join("no-backports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let stanzas = "Types: deb\n# a comment\nURIs: http://m/security\nSuites: bookworm-security\
                       \n\nTypes: deb\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\
                       Signed-By: /k.gpg\n";
        assert_eq!(mirror_in(stanzas), Some(("http://m/debian".into(), "/k.gpg".into())));
        let lines = "deb http://m/security bookworm-security main\n\
                     deb [arch=amd64 signed-by=/k.gpg] http://m/debian bookworm main\n";
        assert_eq!(mirror_in(lines), Some(("http://m/debian".into(), "/k.gpg".into())));
        assert_eq!(mirror_in("deb http://m/debian trixie main\n"), None);
    }

    #[test]
    fn versions_with_segmentation_offload_are_known() {
        assert!(is_fast("0.0.20231211-1~bpo12+1"));
        assert!(!is_fast("0.0.20220316-1+b4") && !is_fast(""));
    }
}
