//! What a registry's section must say.

use super::*;

#[test]
fn a_registry_listens_somewhere_and_its_peers_are_relays() {
    for (text, key, problem) in [
        ("listen = \"127.0.0.1:0\"\n", "registry.listen", "has no port"),
        ("listen = \"off\"\n", "registry.listen", "is not an address and a port"),
        ("peers = [\"a.example\"]\n", "registry.peers", "neither with wss://"),
        ("peers = [\"wss://\"]\n", "registry.peers", "not a URL"),
        ("peers = [\"ws://a\", \"ws://a\"]\n", "registry.peers", "listed twice"),
        ("snapshot = \"listings\"\n", "registry.snapshot", "is not an absolute path"),
        ("title = \"a\\u001bb\"\n", "registry.title", "control characters"),
        ("max_listings = 0\n", "registry.max_listings", "out of range"),
        ("max_mib = 0\n", "registry.max_mib", "out of range"),
        ("max_connections = 70000\n", "registry.max_connections", "out of range"),
        ("connections_per_network = 0\n", "registry.connections_per_network", "out of range"),
        ("keys_per_network = 0\n", "registry.keys_per_network", "out of range"),
        ("events_per_second = 0\n", "registry.events_per_second", "out of range"),
        ("proof_of_work = 33\n", "registry.proof_of_work", "out of range"),
        ("proxies = [\"localhost\"]\n", "registry.proxies", "is not a network"),
    ] {
        let found = mistake(&format!("[registry]\n{text}"));
        assert_eq!(found.key, key, "{found}");
        assert!(found.problem.contains(problem), "{found}");
    }
    let text = "[registry]\nlisten = \"[::]:7447\"\npeers = [\"wss://b.example\"]\n";
    assert!(check(text, Some(1500)).is_ok_and(|config| config.registry.peers.len() == 1));
}
