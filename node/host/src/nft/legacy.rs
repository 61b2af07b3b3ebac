//! The chains of iptables-legacy (xtables). Only the command `iptables-legacy` can list them.

use std::{collections::HashMap, fs};

use super::{
    foreign::{Refusal, Site, Traffic},
    run_program,
};

/// The commands, and the files in which the kernel lists the tables.
const FAMILIES: [(&str, &str); 2] = [
    ("iptables-legacy", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"),
];

/// The only table whose chains filter packets.
const TABLE: &str = "filter";

/// The maximum depth of jumps.
const MAX_DEPTH: usize = 16;

/// Lists the chains that refuse the node's packets.
pub(super) fn refusals(site: &Site) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (command, names) in FAMILIES {
        let tables = fs::read_to_string(names).unwrap_or_default();
        if !tables.lines().any(|name| name == TABLE) {
            continue;
        }
        match run_program(command, &["-S"], "") {
            Ok(output) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout);
                refusals.extend(judge(&Chains::read(&text), command, site));
            }
            _ => refusals.push(Refusal {
                chain: format!("{command} {TABLE} FORWARD"),
                traffic: Traffic::Unknown,
                fix: format!("apt-get install iptables, then {command} -S"),
            }),
        }
    }
    refusals
}

fn judge(chains: &Chains<'_>, command: &str, site: &Site) -> Vec<Refusal> {
    let Site { interface, uplink, listen_port, .. } = site;
    let (iif, oif) = (Some(uplink.as_str()), Some(interface.as_str()));
    let port = *listen_port;
    let of_consumers = |iif, oif, state| Packet { iif, oif, state, ..Packet::default() };
    let packets = [
        (Traffic::ToPort, "INPUT", Packet { iif, dport: Some(port), ..Packet::default() }),
        (
            Traffic::FromPort,
            "OUTPUT",
            Packet { oif: iif, sport: Some(port), state: "ESTABLISHED", ..Packet::default() },
        ),
        (Traffic::ConsumersOut, "FORWARD", of_consumers(oif, iif, "NEW")),
        (Traffic::ConsumersIn, "FORWARD", of_consumers(iif, oif, "ESTABLISHED")),
    ];
    let passing = packets.into_iter().filter(|(traffic, ..)| site.has(*traffic));
    let refused = passing.filter(|(_, chain, packet)| !chains.accept(chain, packet));
    refused
        .map(|(traffic, chain, _)| {
            let rule = traffic.iptables_rule(site);
            Refusal {
                chain: format!("{command} {TABLE} {chain}"),
                traffic,
                fix: format!("{command} -I {chain} {rule} -j ACCEPT"),
            }
        })
        .collect()
}

/// The known fields of a packet.
#[derive(Clone, Copy, Debug)]
struct Packet<'p> {
    iif: Option<&'p str>,
    oif: Option<&'p str>,
    state: &'p str,
    /// The ports of the node's own datagrams. Consumers' packets can have any protocol.
    sport: Option<u16>,
    dport: Option<u16>,
}

impl Default for Packet<'_> {
    fn default() -> Self {
        Self { iif: None, oif: None, state: "NEW", sport: None, dport: None }
    }
}

/// The rules of each chain, split into words, and the chains' policies.
#[derive(Debug, Default)]
struct Chains<'t> {
    rules: HashMap<&'t str, Vec<Vec<&'t str>>>,
    dropping: Vec<&'t str>,
}

impl<'t> Chains<'t> {
    /// Parses the output of `-S`.
    fn read(text: &'t str) -> Self {
        let mut chains = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["-P", chain, "DROP"] => chains.dropping.push(chain),
                ["-A", chain, rule @ ..] => {
                    chains.rules.entry(chain).or_default().push(rule.to_vec());
                }
                _ => {}
            }
        }
        chains
    }

    fn accept(&self, chain: &str, packet: &Packet<'_>) -> bool {
        self.walk(chain, packet, 0).unwrap_or(!self.dropping.contains(&chain))
    }

    /// Whether a chain accepts or refuses the packet; `None` if it does neither.
    fn walk(&self, chain: &str, packet: &Packet<'_>, depth: usize) -> Option<bool> {
        if depth >= MAX_DEPTH {
            return None;
        }
        for rule in self.rules.get(chain).into_iter().flatten() {
            let Some((target, is_goto)) = target(rule, packet) else { continue };
            match target {
                "ACCEPT" => return Some(true),
                "DROP" | "REJECT" => return Some(false),
                "RETURN" => return None,
                other => {
                    let verdict = self.walk(other, packet, depth + 1);
                    if verdict.is_some() || is_goto {
                        return verdict;
                    }
                }
            }
        }
        None
    }
}

/// The target of a rule, and whether it is a goto.
fn target<'t>(rule: &[&'t str], packet: &Packet<'_>) -> Option<(&'t str, bool)> {
    let (mut names_us, mut is_unknown, mut is_negated) = (false, false, false);
    let mut words = rule.iter().copied();
    while let Some(word) = words.next() {
        let fits = match word {
            "!" => {
                is_negated = true;
                continue;
            }
            // `-m` only names the match; its options follow.
            "-m" => {
                words.next();
                continue;
            }
            "-j" | "-g" => {
                let fits = !is_unknown || names_us;
                return words.next().filter(|_| fits).map(|target| (target, word == "-g"));
            }
            "--comment" => {
                skip_quoted(&mut words);
                continue;
            }
            "-i" => words.next().map(|name| is_interface(name, packet.iif)),
            "-o" => words.next().map(|name| is_interface(name, packet.oif)),
            "-p" => words.next().and_then(|protocol| {
                let is_udp = packet.sport.or(packet.dport).is_some();
                is_udp.then_some(protocol == "udp")
            }),
            "--dport" => words.next().and_then(|ports| is_in(ports, packet.dport)),
            "--sport" => words.next().and_then(|ports| is_in(ports, packet.sport)),
            "--ctstate" | "--state" => {
                words.next().map(|states| states.split(',').any(|state| state == packet.state))
            }
            _ => None,
        };
        match fits.map(|fits| fits != is_negated) {
            Some(false) => return None,
            Some(true) => {
                let of_ours =
                    matches!(word, "-i" | "-o") && packet.dport.or(packet.sport).is_none();
                names_us |= of_ours || matches!(word, "--dport" | "--sport");
            }
            None => is_unknown = true,
        }
        is_negated = false;
    }
    None
}

fn skip_quoted<'t>(words: &mut impl Iterator<Item = &'t str>) {
    let Some(first) = words.next() else { return };
    if first.starts_with('"') && !(first.len() > 1 && first.ends_with('"')) {
        let _ = words.find(|word| word.ends_with('"'));
    }
}

fn is_interface(wanted: &str, is: Option<&str>) -> bool {
    match wanted.strip_suffix('+') {
        Some(begin) => is.is_some_and(|name| name.starts_with(begin)),
        None => is == Some(wanted),
    }
}

fn is_in(ports: &str, port: Option<u16>) -> Option<bool> {
    let (low, high) = ports.split_once(':').unwrap_or((ports, ports));
    let range = low.parse().ok()?..=high.parse().ok()?;
    port.map(|port| range.contains(&port))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn refused(rules: &str) -> Vec<Traffic> {
        let site = Site {
            interface: "weir0".into(),
            uplink: "eth0".into(),
            uplink_v6: "eth0".into(),
            listen_port: 51820,
            consumer_v4: Ipv4Addr::LOCALHOST,
            consumer_v6: Ipv6Addr::LOCALHOST,
            indices: HashMap::new(),
            has_ipv6: true,
            is_forwarded: true,
        };
        let found = judge(&Chains::read(rules), "iptables-legacy", &site);
        assert!(found.iter().all(|it| it.fix.starts_with("iptables-legacy -I ")), "{found:?}");
        found.into_iter().map(|refusal| refusal.traffic).collect()
    }

    #[test]
    fn what_the_rules_of_legacy_iptables_refuse_is_found() {
        use Traffic::{ConsumersIn, ConsumersOut, FromPort, ToPort};
        const ESTABLISHED: &str =
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
        for (rules, expected) in [
            ("-P FORWARD ACCEPT\n-P INPUT ACCEPT", vec![]),
            ("-P FORWARD DROP", vec![ConsumersOut, ConsumersIn]),
            ("-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", vec![ToPort]),
            ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 51820 -j ACCEPT", vec![]),
            ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 50000:52000 -m set -j ACCEPT", vec![]),
            ("-P OUTPUT DROP\n-A OUTPUT -o lo -j ACCEPT", vec![FromPort]),
            ("-P OUTPUT DROP\n-A OUTPUT -m state --state ESTABLISHED -j ACCEPT", vec![]),
            ("-A FORWARD ! -i docker+ -j REJECT --reject-with x", vec![ConsumersOut, ConsumersIn]),
            ("-A FORWARD -i docker0 -j DROP\n-A FORWARD -s 10.0.0.0/8 -j DROP", vec![]),
            ("-P FORWARD DROP\n-A FORWARD -i eth0 -j ACCEPT", vec![ConsumersOut]),
            (
                "-P FORWARD DROP\n-A FORWARD -j ours\n-A ours -i weir0 -m comment --comment \"a b\" \
                 -j ACCEPT\n-A ours -o weir0 -j ACCEPT",
                vec![],
            ),
        ] {
            assert_eq!(refused(rules), expected, "{rules}");
        }
        let answers = format!("-P FORWARD DROP\n{ESTABLISHED}");
        assert_eq!(refused(&answers), [ConsumersOut]);
    }
}
