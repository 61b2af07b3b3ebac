//! The table that closes the machine: `inet weir_connect`. It is replaced in one transaction, and
//! removed only when somebody disconnects.
//!
//! [`render`] is pure. nftables drops a packet if any table drops it, so no other firewall's rules
//! open what this table closes.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{ENTRY_INTERFACE, INNER_MARK, MARK, Slot};

/// The table's family and name.
pub const TABLE: &str = "inet weir_connect";

/// The table that holds a single program's tunnel back.
const HOLD: &str = "inet weir_hold";

/// The networks that count as local with `--lan`: private ones (RFC 1918), link-local ones and
/// multicast that no router forwards. A network that only claims to be local is not among them.
pub const LAN_V4: &str =
    "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16, 224.0.0.0/24, 255.255.255.255";
/// The same for IPv6 (RFC 4193, RFC 4291).
pub const LAN_V6: &str = "fc00::/7, fe80::/10, ff02::/16";

/// Whether the local network may be reached beside the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lan {
    /// Nothing of it.
    #[default]
    Closed,
    /// Its private addresses, except for DNS.
    Open,
}

/// What the table allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Where the tunnels' own datagrams go. Empty: nowhere.
    pub endpoints: Vec<SocketAddr>,
    /// The entry through whose tunnel they go, if there is one. Only its datagrams leave then.
    pub entry: Option<Entry>,
    /// The consumer's addresses inside the tunnels.
    pub inner: Vec<IpAddr>,
    /// The local network.
    pub lan: Lan,
    /// The tunnels whose sessions wait for money.
    pub held: Vec<Held>,
}

/// A tunnel through which nothing but a payment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its interface.
    pub interface: &'static str,
    /// The node's own address inside.
    pub gateway: IpAddr,
}

/// A node through whose tunnel the exits are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its tunnel's datagrams go.
    pub endpoint: SocketAddr,
    /// Its own services inside the tunnel, for paying it.
    pub gateway: Option<SocketAddr>,
}

/// The table as a script for `nft`. Loading it replaces the one before.
#[must_use]
pub fn render(allowed: &Allowed) -> String {
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    let [a, b] = Slot::ALL.map(Slot::interface);
    let v = ENTRY_INTERFACE;
    let endpoint = |address: &SocketAddr| format!("{} . {}", address.ip(), address.port());
    let inner = IpAddr::to_string;
    for (suffix, kind, is_v6) in [("4", "ipv4_addr", false), ("6", "ipv6_addr", true)] {
        let of_family = |to: &&SocketAddr| to.is_ipv6() == is_v6;
        let endpoints = allowed.endpoints.iter().filter(of_family).map(endpoint).collect();
        let (direct, through) = match &allowed.entry {
            None => (endpoints, Vec::new()),
            Some(entry) => {
                let direct = Some(&entry.endpoint).filter(of_family).map(endpoint);
                (direct.into_iter().collect(), endpoints)
            }
        };
        let gateway = allowed.entry.as_ref().and_then(|entry| entry.gateway.as_ref());
        let gateway = gateway.filter(of_family).map(endpoint).into_iter().collect();
        let pair = format!("{kind} . inet_service");
        set(&mut text, &format!("endpoints{suffix}"), &pair, direct);
        set(&mut text, &format!("exits{suffix}"), &pair, through);
        set(&mut text, &format!("entry{suffix}"), &pair, gateway);
        let addresses = allowed.inner.iter().filter(|address| address.is_ipv6() == is_v6);
        set(&mut text, &format!("inner{suffix}"), kind, addresses.map(inner).collect());
    }
    let lan = match allowed.lan {
        Lan::Closed => String::new(),
        // A resolver of the local network would learn every name.
        Lan::Open => format!(
            "    meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} jump closed\n    \
             ip daddr {{ {LAN_V4} }} accept\n    ip6 daddr {{ {LAN_V6} }} accept\n"
        ),
    };
    let (mut held, mut held_forward) = (String::new(), String::new());
    for Held { interface, gateway } in &allowed.held {
        held.push_str(&match *interface == ENTRY_INTERFACE {
            // What the entry's gateway is told has a rule of its own below.
            true => format!(
                "    oifname \"{interface}\" meta mark {INNER_MARK:#x} meta l4proto udp drop\n"
            ),
            false => only_gateway(interface, *gateway),
        });
        let _infallible = writeln!(held_forward, "    oifname \"{interface}\" drop");
    }
    // By which it is known that the entry answers.
    let probes = match allowed.entry.as_ref().and_then(|entry| entry.gateway) {
        None => String::new(),
        Some(gateway) => {
            let (ip, icmp) = if gateway.is_ipv6() { ("ip6", "icmpv6") } else { ("ip", "icmp") };
            let to = gateway.ip();
            format!(
                "    oifname \"{v}\" meta mark {INNER_MARK:#x} {ip} daddr {to} \
                   {icmp} type echo-request accept\n"
            )
        }
    };
    // Chains that jump come after those that they jump to.
    let _infallible = write!(
        text,
        "  counter dropped {{ }}\n\
           chain closed {{\n    counter name dropped drop\n  }}\n\
           chain output {{\n    type filter hook output priority filter; policy drop;\n    \
             oifname \"lo\" accept\n{held}    \
             oifname {{ \"{a}\", \"{b}\" }} accept\n    \
             meta mark {MARK:#x} ip daddr . udp dport @endpoints4 accept\n    \
             meta mark {MARK:#x} ip6 daddr . udp dport @endpoints6 accept\n    \
             oifname \"{v}\" meta mark {INNER_MARK:#x} ip daddr . udp dport @exits4 accept\n    \
             oifname \"{v}\" meta mark {INNER_MARK:#x} ip6 daddr . udp dport @exits6 accept\n    \
             oifname \"{v}\" meta mark {INNER_MARK:#x} ip daddr . tcp dport @entry4 accept\n    \
             oifname \"{v}\" meta mark {INNER_MARK:#x} ip6 daddr . tcp dport @entry6 accept\n\
             {probes}    \
             meta nfproto ipv4 udp sport 68 udp dport 67 accept\n    \
             ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept\n    \
             icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} \
               ip6 hoplimit 255 accept\n    \
             ip6 daddr ff02::16 icmpv6 type mld2-listener-report ip6 hoplimit 1 accept\n\
             {lan}    jump closed\n  }}\n\
           chain forward {{\n    type filter hook forward priority filter; policy drop;\n\
             {held_forward}    oifname {{ \"{a}\", \"{b}\" }} accept\n    \
             iifname {{ \"{a}\", \"{b}\" }} ct state established,related accept\n\
             {lan}    jump closed\n  }}\n\
           chain inbound {{\n    type filter hook prerouting priority raw; policy accept;\n    \
             iifname != {{ \"lo\", \"{a}\", \"{b}\", \"{v}\" }} ip daddr @inner4 drop\n    \
             iifname != {{ \"lo\", \"{a}\", \"{b}\", \"{v}\" }} ip6 daddr @inner6 drop\n  }}\n}}\n"
    );
    text
}

/// The rules by which nothing but what is for the gateway goes through a tunnel.
fn only_gateway(interface: &str, gateway: IpAddr) -> String {
    let family = if gateway.is_ipv6() { "ip6" } else { "ip" };
    format!(
        "    oifname \"{interface}\" {family} daddr {gateway} accept\n    \
             oifname \"{interface}\" drop\n"
    )
}

/// Lets nothing but what is for the gateway through a tunnel, in a network namespace that has nothing
/// else; or everything again.
///
/// # Errors
///
/// When `nft` is missing or the kernel refuses the table.
pub fn hold(interface: &str, gateway: Option<IpAddr>) -> anyhow::Result<()> {
    let remove = format!("table {HOLD}\ndelete table {HOLD}\n");
    let rules = gateway.map(|gateway| {
        format!(
            "table {HOLD} {{\n  chain output {{\n    type filter hook output priority filter;\n\
             {}  }}\n}}\n",
            only_gateway(interface, gateway)
        )
    });
    nft(&["-f", "-"], &(remove + &rules.unwrap_or_default()))?;
    Ok(())
}

fn set(text: &mut String, name: &str, kind: &str, mut elements: Vec<String>) {
    elements.sort();
    elements.dedup();
    let elements = match elements.as_slice() {
        [] => String::new(),
        some => format!("elements = {{ {} }}; ", some.join(", ")),
    };
    let _infallible = writeln!(text, "  set {name} {{ type {kind}; {elements}}}");
}

/// Loads the table in place of the one before.
///
/// # Errors
///
/// When `nft` is missing or the kernel refuses the table.
pub fn load(allowed: &Allowed) -> anyhow::Result<()> {
    nft(&["-f", "-"], &render(allowed)).context("cannot close this machine with nftables")?;
    Ok(())
}

/// Whether the table is there.
///
/// # Errors
///
/// When `nft` is missing.
pub fn is_loaded() -> anyhow::Result<bool> {
    Ok(nft(&["list", "tables"], "")?.lines().any(|line| line.trim() == format!("table {TABLE}")))
}

/// The packets that the table has dropped since it was loaded. `None` if it is not there.
#[must_use]
pub fn dropped() -> Option<u64> {
    let text = nft(&["list", "counter", "inet", "weir_connect", "dropped"], "").ok()?;
    let (_, rest) = text.split_once("packets ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Opens the machine again. A table that is not there is no error.
///
/// # Errors
///
/// When `nft` is missing or fails.
pub fn remove() -> anyhow::Result<()> {
    nft(&["-f", "-"], &format!("table {TABLE}\ndelete table {TABLE}\n"))
        .context("cannot remove the nftables table inet weir_connect")?;
    Ok(())
}

fn nft(arguments: &[&str], script: &str) -> anyhow::Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start nft. Fix: apt-get install nftables")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).context("cannot write to nft")?;
    }
    let output = child.wait_with_output().context("cannot wait for nft")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_before_is_replaced_in_the_same_transaction() {
        let text = render(&Allowed::default());
        assert!(
            text.starts_with(&format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{"))
        );
        assert_eq!(text.matches("policy drop").count(), 2, "both hooks are closed");
    }

    #[test]
    fn without_endpoints_nothing_leaves_and_with_them_only_marked_datagrams() {
        let closed = render(&Allowed::default());
        assert!(closed.contains("set endpoints4 { type ipv4_addr . inet_service; }"), "{closed}");
        let endpoints = ["45.80.2.2:51820", "[2001:db8::1]:7"].map(|text| text.parse());
        let endpoints = endpoints.map(|address| address.expect("an address")).to_vec();
        let open = render(&Allowed { endpoints, ..Allowed::default() });
        assert!(open.contains("elements = { 45.80.2.2 . 51820 }"), "{open}");
        assert!(open.contains("elements = { 2001:db8::1 . 7 }"), "{open}");
        assert_eq!(open.matches("meta mark 0x77656972 ip").count(), 2);
        assert_eq!(open.matches("@endpoints").count(), 2, "no rule without the mark");
    }

    #[test]
    fn a_tunnel_whose_session_waits_for_money_carries_nothing_but_the_payment() {
        let gateway = "10.66.0.1".parse().expect("an address");
        let held = vec![
            Held { interface: Slot::A.interface(), gateway },
            Held { interface: ENTRY_INTERFACE, gateway },
        ];
        let text = render(&Allowed { held, ..Allowed::default() });
        let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line} is not in {text}"));
        let open = at("oifname { \"weir-a\", \"weir-b\" } accept");
        assert!(at("oifname \"weir-a\" ip daddr 10.66.0.1 accept") < open);
        assert!(at("oifname \"weir-a\" drop") < open);
        let entry = at("oifname \"weir-v\" meta mark 0x77656973 meta l4proto udp drop");
        assert!(entry < at("@exits4 accept"));
        assert_eq!(text.matches("oifname \"weir-a\" drop").count(), 2, "forwarded packets too");
        assert!(!render(&Allowed::default()).contains("\"weir-a\" drop"));
    }

    #[test]
    fn with_an_entry_only_its_datagrams_leave_and_the_exits_go_through_it() {
        let [entry, exit, gateway] =
            ["45.80.2.2:1", "45.80.4.2:2", "10.66.0.1:8077"].map(|text| text.parse());
        let endpoints = vec![exit.expect("an address")];
        let (endpoint, gateway) = (entry.expect("an address"), gateway.ok());
        let entry = Some(Entry { endpoint, gateway });
        let text = render(&Allowed { endpoints, entry, ..Allowed::default() });
        assert!(text.contains(
            "set endpoints4 { type ipv4_addr . inet_service; elements = { 45.80.2.2 . 1 }"
        ));
        assert!(
            text.contains(
                "set exits4 { type ipv4_addr . inet_service; elements = { 45.80.4.2 . 2 }"
            )
        );
        assert!(text.contains(
            "set entry4 { type ipv4_addr . inet_service; elements = { 10.66.0.1 . 8077 }"
        ));
        let is_through = |line: &&str| line.contains("@exits") || line.contains("@entry");
        let through = text.lines().filter(is_through);
        assert!(
            through.clone().all(|line| line.contains("oifname \"weir-v\" meta mark 0x77656973"))
        );
        assert_eq!(through.count(), 4);
        assert!(text.contains(
            "oifname \"weir-v\" meta mark 0x77656973 ip daddr 10.66.0.1 icmp type echo-request accept"
        ));
    }

    #[test]
    fn the_local_network_is_open_only_when_asked_for_and_never_for_dns() {
        assert!(!render(&Allowed::default()).contains("192.168.0.0/16"));
        let open = render(&Allowed { lan: Lan::Open, ..Allowed::default() });
        let dns = open.find("dport { 53, 853 } jump closed").expect("DNS is closed");
        assert!(dns < open.find("192.168.0.0/16").expect("the local network is open"));
    }
}
