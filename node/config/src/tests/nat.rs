//! Ports, external addresses and the routed prefix.

use super::*;

#[test]
fn ports_that_are_not_the_nodes_to_give_are_refused() {
    for (text, key, problem, fix) in [
        ("[nat]\nports = \"0-9\"", "nat.ports", "is not a range of ports", "from 1 to 65535"),
        ("[nat]\nports = 7", "nat.ports", "7 is not a string", "\"4096-32767\""),
        ("[nat]\nports = \"4097-4159\"\nblock_ports = 64", "nat.ports", "no whole block", "4096"),
        ("[nat]\nblock_ports = 48", "nat.block_ports", "power of two", "8, 16, 32"),
        ("[nat]\nblock_ports = 4", "nat.block_ports", "power of two", "8, 16, 32"),
        ("[nat]\nsession_blocks = 0", "nat.session_blocks", "out of range", "1 to 8192"),
        ("[nat]\nflows = 1000", "nat.flows", "out of range", "1024"),
        (
            "[node]\nlisten_port = 5000\negress = \"auto\"",
            "node.listen_port",
            "4096-32767 includes node.listen_port, which is 5000",
            "write a range without 5000",
        ),
        (
            "[node]\negress = \"auto\"\n[nat]\nports = \"50000-52000\"",
            "nat.ports",
            "50000-52000 includes node.listen_port, which is 51820",
            "write a range without 51820",
        ),
    ] {
        let found = mistake(text);
        assert_eq!(found.key, key, "{text}");
        assert!(found.problem.contains(problem), "{text}: {found}");
        assert!(found.fix.contains(fix), "{text}: {found}");
    }
    assert!(check("[nat]\nports = \"4096-4127\"", None).is_ok(), "one block is enough");
    let kernel = "[node]\nlisten_port = 5000\negress = \"kernel\"";
    assert!(check(kernel, None).is_ok(), "nothing is reserved there");
}

#[test]
fn addresses_that_consumers_cannot_leave_by_are_refused() {
    for (addresses, problem) in [
        ("\"127.0.0.1\"", "127.0.0.1 cannot be"),
        ("\"0.0.0.0\"", "0.0.0.0 cannot be"),
        ("\"fe80::1\"", "fe80::1 cannot be"),
        ("\"::ffff:192.0.2.1\"", "cannot be"),
        ("\"192.0.2.7\", \"192.0.2.7\"", "192.0.2.7 is listed twice"),
        ("\"192.0.2.0/24\"", "is not an IP address"),
    ] {
        let found = mistake(&format!("[node]\naddresses = [{addresses}]"));
        assert_eq!(found.key, "node.addresses");
        assert!(found.problem.contains(problem), "{found}");
    }
    // Behind a provider's NAT, the uplink's own address is private.
    assert!(check("[node]\naddresses = [\"10.0.0.7\", \"fd00::7\"]", None).is_ok());
    let many: Vec<_> = (0..257).map(|n| format!("\"198.51.{}.{}\"", n / 256, n % 256)).collect();
    let found = mistake(&format!("[node]\naddresses = [{}]", many.join(", ")));
    assert_eq!(found.fix, "name 256 or fewer");
}

#[test]
fn a_routed_prefix_has_room_for_the_sessions_and_is_no_address() {
    for (prefix, problem, fix) in [
        ("2001:db8::7/64", "an address within a network", "write the network: \"2001:db8::/64\""),
        ("2001:db8::/116", "no room for node.max_sessions", "write a /115 or larger"),
        ("fe80::/64", "overlaps fe80::/10", "your provider routes"),
        ("fd66:7765:6972::/48", "overlaps tunnel.pool_v6", "your provider routes"),
        ("192.0.2.0/24", "is not an IPv6 network", "2001:db8:7::/64"),
    ] {
        let found = mistake(&format!("[node]\nprefix_v6 = \"{prefix}\""));
        assert_eq!(found.key, "node.prefix_v6", "{prefix}");
        assert!(found.problem.contains(problem) && found.fix.contains(fix), "{prefix}: {found}");
    }
    for prefix in ["", "2001:db8:7::/64", "2001:db8:7::/115", "2001:db8::/32"] {
        assert!(check(&format!("[node]\nprefix_v6 = \"{prefix}\""), None).is_ok(), "{prefix}");
    }
}
