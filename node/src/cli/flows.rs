//! `weir flows`.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use anyhow::bail;

use super::{out::Out, units};
use weir_control::{
    client::Client,
    flows::{FlowsView, NatTotals, PortOwner, PortOwners, SessionFlows, read_time},
};
use weir_ledger::check::Reader;

pub(super) fn show(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let flows: FlowsView = client.get("/v1/flows")?;
    if json {
        return out.json(&flows);
    }
    out.text(&screen(&flows))?;
    Ok(())
}

/// Says who held a port, from the ledger's file.
pub(super) fn owner(
    ledger: &Path,
    at: SocketAddr,
    time: &str,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let moment = read_time(time)?;
    let owners = Reader::open(ledger)?.block_owners(at.ip(), at.port(), moment)?;
    let owners: Vec<_> = owners.into_iter().map(PortOwner::from).collect();
    if json {
        return out.json(&PortOwners { owners });
    }
    if owners.is_empty() {
        bail!(
            "no session held {at} at {}, as far as the ledger knows. Check the time and its zone. \
             The ledger has no flows that the kernel translated (node.egress), and none older \
             than ledger.retain_blocks_days.",
            units::utc(moment)
        );
    }
    owners.iter().try_for_each(|owner| out.text(&line(owner)))?;
    Ok(())
}

fn line(owner: &PortOwner) -> String {
    let PortOwner { session, first_port, last_port, since, until, .. } = owner;
    let until = until.map_or_else(|| "now".to_owned(), units::utc);
    let since = units::utc(*since);
    format!("session {session} held ports {first_port}-{last_port} from {since} to {until}\n")
}

fn screen(flows: &FlowsView) -> String {
    let FlowsView { egress, nat, sessions } = flows;
    let mut text = String::new();
    // Writing to a string cannot fail.
    writeln!(text, "egress  {}: {}", egress.mode, egress.reason).ok();
    let Some(nat) = nat else {
        text.push_str(
            "\nThe kernel translates consumers' flows: they are in its table, for example:\n\
             \x20 conntrack -C    count all flows of this machine\n",
        );
        return text;
    };
    let NatTotals { tcp, udp, icmp, flow_capacity, ports_used, ports } = nat;
    let of = |used: u64, all: u64| match all {
        0 => format!("{used}"),
        all => format!("{used} of {all} ({:.1} %)", used as f64 / all as f64 * 100.0),
    };
    writeln!(
        text,
        "flows   {}: TCP {tcp}, UDP {udp}, ICMP {icmp}",
        of(nat.flows(), *flow_capacity)
    )
    .ok();
    writeln!(text, "ports   {} in sessions' blocks", of(*ports_used, *ports)).ok();
    if sessions.is_empty() {
        text.push_str("\nno session has flows\n");
        return text;
    }
    writeln!(
        text,
        "\n{:<16}  {:>8}  {:>8}  {:>8}  {:>8}",
        "SESSION", "TCP", "UDP", "ICMP", "BLOCKS"
    )
    .ok();
    let mut sessions: Vec<_> = sessions.iter().collect();
    sessions.sort_by_key(|session| std::cmp::Reverse(session.flows()));
    for SessionFlows { session, tcp, udp, icmp, blocks } in sessions {
        writeln!(text, "{session:<16}  {tcp:>8}  {udp:>8}  {icmp:>8}  {blocks:>8}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_control::{
        flows::{Egress, FlowView as _},
        testing::StillNode,
    };

    #[test]
    fn the_screen_has_the_node_and_then_the_sessions_with_the_most_flows_first() {
        let mut sessions = StillNode.sessions();
        sessions.reverse();
        let (egress, nat) = (StillNode.egress(), StillNode.totals());
        let text = screen(&FlowsView { egress, nat, sessions });
        assert_eq!(
            text,
            "egress  bypass: the uplink allows it\n\
             flows   43 of 262144 (0.0 %): TCP 40, UDP 2, ICMP 1\n\
             ports   96 of 28672 (0.3 %) in sessions' blocks\n\
             \n\
             SESSION                TCP       UDP      ICMP    BLOCKS\n\
             00000000000000a1        40         0         0         2\n\
             00000000000000a2         0         2         1         1\n"
        );
    }

    #[test]
    fn where_the_kernel_translates_the_screen_says_where_to_look() {
        let egress = Egress { mode: "kernel".into(), reason: "the uplink has no MAC".into() };
        let text = screen(&FlowsView { egress, nat: None, sessions: Vec::new() });
        assert!(text.starts_with("egress  kernel: the uplink has no MAC\n"), "{text}");
        assert!(text.contains("conntrack -C"), "{text}");
    }

    #[test]
    fn an_owner_is_a_session_and_a_span_and_nothing_else() {
        let mut owner = PortOwner {
            session: "00000000000000a1".into(),
            address: [192, 0, 2, 1].into(),
            first_port: 4096,
            last_port: 4127,
            since: 1_700_000_000,
            until: Some(1_700_000_060),
        };
        assert_eq!(
            line(&owner),
            "session 00000000000000a1 held ports 4096-4127 from 2023-11-14 22:13:20 UTC to \
             2023-11-14 22:14:20 UTC\n"
        );
        owner.until = None;
        assert!(line(&owner).ends_with("22:13:20 UTC to now\n"));
    }
}
