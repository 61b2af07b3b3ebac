//! Whether what nodes wrote says where consumers are or what they reach.
//!
//! With [`KEEP`] set to a directory, every node of the tests leaves its log and its last scrape
//! there; `cargo xtask test` does that, and looks for the lab's addresses when all tests are done.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};

use crate::lab::{CONSUMER_V4, CONSUMER_V6, MOVED_V4, MOVED_V6, SERVER_V4, SERVER_V6};

/// The variable that names the directory.
pub const KEEP: &str = "WEIR_KEEP_LOGS";

/// Consumers' addresses and those of the servers that they reach. The node's own are no secret.
pub const SECRETS: [IpAddr; 6] = [
    IpAddr::V4(CONSUMER_V4),
    IpAddr::V6(CONSUMER_V6),
    IpAddr::V4(MOVED_V4),
    IpAddr::V6(MOVED_V6),
    IpAddr::V4(SERVER_V4),
    IpAddr::V6(SERVER_V6),
];

/// Keeps a text of a node, if somebody wants to look through it.
///
/// # Errors
/// If it cannot be written.
pub fn keep(name: &str, text: &str) -> Result<()> {
    use std::io::Write as _;
    let Some(directory) = std::env::var_os(KEEP) else { return Ok(()) };
    let path = Path::new(&directory).join(name);
    let mut file = fs::File::options().create(true).append(true).open(&path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// The lines of a text that have one of the addresses in them.
#[must_use]
pub fn leaks(text: &str) -> Vec<&str> {
    let is_leak = |line: &&str| SECRETS.iter().any(|secret| has(line, *secret));
    text.lines().filter(is_leak).collect()
}

/// Looks through a directory: how many files there are, and each line that says too much.
///
/// # Errors
/// If it cannot be read.
pub fn look(directory: &Path) -> Result<(usize, Vec<String>)> {
    let (mut files, mut found) = (0, Vec::new());
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let text = fs::read(&path)?;
        let text = String::from_utf8_lossy(&text);
        found.extend(leaks(&text).iter().map(|line| format!("{}: {line}", path.display())));
        files += 1;
    }
    Ok((files, found))
}

/// Whether a line has this address, rather than one whose text begins or ends with its.
fn has(line: &str, address: IpAddr) -> bool {
    let (line, text) = (line.to_ascii_lowercase(), address.to_string());
    let part = |letter: char| match address {
        IpAddr::V4(_) => letter.is_ascii_digit(),
        IpAddr::V6(_) => letter.is_ascii_hexdigit(),
    };
    let before = |letter: char| part(letter) || letter == if address.is_ipv6() { ':' } else { '.' };
    let after = |letter: char| part(letter) || (address.is_ipv6() && letter == ':');
    line.match_indices(&text).any(|(at, _)| {
        let open = !line[..at].ends_with(before);
        open && !line[at + text.len()..].starts_with(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_found_wherever_it_stands() {
        for secret in SECRETS {
            for line in [
                format!("peer {secret} connected"),
                format!("from=[{secret}]:51820"),
                format!("{secret}"),
                format!("{{\"source\":\"{secret}\"}}"),
                format!("TO {}, dropped.", secret.to_string().to_uppercase()),
            ] {
                assert_eq!(leaks(&format!("good\n{line}\ngood")), [line.as_str()]);
            }
        }
        assert_eq!(leaks("45.80.1.2:4711 and 45.80.3.1.").len(), 1);
        assert_eq!(leaks("connected server=\"nats://45.80.3.1:4222\"").len(), 1);
    }

    #[test]
    fn other_addresses_are_no_secret() {
        let text = "endpoint 45.80.2.2:51820\n45.80.1.20 145.80.1.2 45.80.3.10\n\
                    2a0c:b641:2::2 2a0c:b641:1::20 12a0c:b641:3::1\n10.66.0.2 fd66::2\n";
        assert!(leaks(text).is_empty(), "{:?}", leaks(text));
        // The operator's own server may be named.
        assert!(leaks("connected server=\"nats://45.80.3.4:4222\"").is_empty());
    }

    #[test]
    fn a_directory_is_looked_through_and_each_leak_is_named_with_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("a.log"), "serves\n").expect("written");
        fs::write(directory.path().join("b.metrics"), "weir_peer{at=\"45.80.1.2\"} 1\n")
            .expect("written");
        let (files, found) = look(directory.path()).expect("looked");
        assert_eq!((files, found.len()), (2, 1));
        assert!(found[0].contains("b.metrics") && found[0].contains("45.80.1.2"), "{found:?}");
    }
}
