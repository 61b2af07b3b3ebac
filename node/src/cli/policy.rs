//! `weir policy`.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::out::Out;
use weir_config::{Config, Protocol};
use weir_control::client::Client;
use weir_host::uplink;
use weir_policy::{FlowSpec, Lists, PolicyContext, Verdict, judge};

/// The flow that the arguments describe.
pub(super) fn flow(to: SocketAddr, udp: bool) -> FlowSpec {
    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
    // The kernel's rules treat an IPv4-mapped IPv6 address as IPv4.
    FlowSpec { address: to.ip(), port: to.port(), protocol }
}

/// Asks the running node.
pub(super) fn ask(client: &Client, flow: &FlowSpec) -> anyhow::Result<Verdict> {
    let FlowSpec { address, port, protocol } = flow;
    let address = weir_control::client::escape(&address.to_string());
    let protocol = protocol.as_str();
    client.get(&format!("/v1/policy/test?address={address}&port={port}&protocol={protocol}"))
}

/// Evaluates the configuration and its lists.
pub(super) fn look_up(file: Option<&Path>, flow: &FlowSpec) -> anyhow::Result<Verdict> {
    let config = Config::load(file)?;
    let lists = Lists::read(&config.policy)?;
    let context = PolicyContext::new(&config, uplink::own_addresses()?);
    Ok(judge(flow, &lists, &context))
}

pub(super) fn show(
    flow: &FlowSpec,
    verdict: &Verdict,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    if json {
        return out.json(verdict);
    }
    out.text(&text(flow, verdict))?;
    Ok(())
}

fn text(flow: &FlowSpec, verdict: &Verdict) -> String {
    let FlowSpec { address, port, protocol } = flow;
    let to = match address {
        IpAddr::V4(_) => format!("{address}:{port}"),
        IpAddr::V6(_) => format!("[{address}]:{port}"),
    };
    let Verdict { allowed, rule, reason, entry } = verdict;
    let becomes = if *allowed { "allowed" } else { "refused" };
    let at = entry.as_ref().map(|entry| format!(" ({entry})")).unwrap_or_default();
    format!("{to}/{} is {becomes}: {reason}{at}\nrule: {rule}\n", protocol.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_rule_and_where_it_stands() {
        let to: SocketAddr = "[2a00::1]:53".parse().expect("an address");
        let verdict = Verdict {
            allowed: false,
            rule: "blocked_destination".into(),
            reason: "2a00::/32 is blocked".into(),
            entry: Some("/etc/weir/block.txt:7".into()),
        };
        assert_eq!(
            text(&flow(to, true), &verdict),
            "[2a00::1]:53/udp is refused: 2a00::/32 is blocked (/etc/weir/block.txt:7)\n\
             rule: blocked_destination\n"
        );
    }
}
