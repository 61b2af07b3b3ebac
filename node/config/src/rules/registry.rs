//! Rules for a registry.

use crate::{Config, mistake::Findings, url::WebSocketUrl};

/// The maximum number of peers.
const MAX_PEERS: usize = 16;
/// The maximum length of a title, in characters.
const MAX_TITLE: usize = 80;

pub(super) fn registry(config: &Config, findings: &mut Findings<'_>) {
    let registry = &config.registry;
    ranges(config, findings);
    peers(&registry.peers, findings);
    let title = &registry.title;
    if title.chars().count() > MAX_TITLE || title.chars().any(char::is_control) {
        findings.blame(
            &[("registry", "title")],
            "it is too long, or has control characters".into(),
            format!("write one line of at most {MAX_TITLE} characters"),
        );
    }
    if registry.listen.port() == 0 {
        findings.blame(
            &[("registry", "listen")],
            format!("{} has no port", registry.listen),
            "write a port from 1 to 65535 after the address".into(),
        );
    }
    for (key, path) in [("snapshot", &registry.snapshot), ("ca_file", &registry.ca_file)] {
        if !path.is_empty() && !path.starts_with('/') {
            findings.blame(
                &[("registry", key)],
                format!("{path:?} is not an absolute path"),
                "write a path that begins with /, or \"\" for none".into(),
            );
        }
    }
}

fn ranges(config: &Config, findings: &mut Findings<'_>) {
    let registry = &config.registry;
    for (key, value, low, high) in [
        ("max_listings", registry.max_listings, 1, 1 << 20),
        ("max_mib", registry.max_mib, 1, 1 << 16),
        ("max_connections", registry.max_connections, 1, 65535),
        ("connections_per_network", registry.connections_per_network, 1, 65535),
        ("keys_per_network", registry.keys_per_network, 1, 1_000_000),
        ("events_per_second", registry.events_per_second, 1, 1_000_000),
        ("proof_of_work", registry.proof_of_work.into(), 0, 32),
    ] {
        if !(low..=high).contains(&value) {
            findings.blame(
                &[("registry", key)],
                format!("{value} is out of range"),
                format!("write a number from {low} to {high}"),
            );
        }
    }
}

fn peers(peers: &[String], findings: &mut Findings<'_>) {
    if peers.len() > MAX_PEERS {
        findings.blame(
            &[("registry", "peers")],
            format!("it has {} entries", peers.len()),
            format!("name at most {MAX_PEERS}"),
        );
    }
    for (number, text) in peers.iter().enumerate() {
        let problem = match text.parse::<WebSocketUrl>() {
            Err(error) => error.to_string(),
            Ok(_) if peers[..number].contains(text) => format!("{text:?} is listed twice"),
            Ok(_) => continue,
        };
        let fix = "write for example \"wss://registry.example\", each once".into();
        findings.blame(&[("registry", "peers")], problem, fix);
        return;
    }
}
