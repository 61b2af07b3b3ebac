use std::collections::{BTreeMap, BTreeSet};

use weir_common::DropReason;

use super::*;
use crate::testing::StillNode;
use weir_sessions::registry::rig::Rig;

/// The samples of an OpenMetrics text by name and labels. Fails on whatever breaks the format.
pub(crate) fn parse(text: &str) -> BTreeMap<String, String> {
    let body = text.strip_suffix("# EOF\n").expect("ends with EOF");
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let mut current = (String::new(), String::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(families.insert(name.to_owned()), "{name} is one family");
            current = (name.to_owned(), kind.to_owned());
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (_, help) = rest.split_once(' ').expect("a name and a help text");
            assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a sample and a value");
            value.parse::<f64>().expect("a number");
            let name = key.split('{').next().expect("a name");
            let suffixes: &[&str] = match current.1.as_str() {
                "counter" => &["_total"],
                "info" => &["_info"],
                "gauge" => &[""],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("unexpected type {other}"),
            };
            let suffix = name.strip_prefix(&current.0).expect("the family's name");
            assert!(suffixes.contains(&suffix), "{line}");
            if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}'));
                for label in inner.expect("braces").split(',') {
                    let (_, value) = label.split_once('=').expect("a label");
                    assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'));
                }
            }
            let double = samples.insert(key.to_owned(), value.to_owned());
            assert_eq!(double, None, "{line}");
        }
    }
    samples
}

fn scrape(rig: &Rig, series: Series) -> BTreeMap<String, String> {
    let registry = registry(rig.sessions.clone(), Arc::new(StillNode), series.into());
    parse(&encode(&registry, Form::OpenMetrics).expect("written"))
}

#[test]
fn a_scrape_is_openmetrics_with_every_drop_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 8);
    let samples = scrape(&rig, Series::default());
    for reason in DropReason::ALL {
        let (stage, word) = (reason.stage().as_str(), reason.as_str());
        let key = format!("weir_drops_total{{stage=\"{stage}\",reason=\"{word}\"}}");
        let is_replay = *reason == DropReason::Replay;
        let expected = if is_replay { u64::MAX.to_string() } else { "0".to_owned() };
        assert_eq!(samples.get(&key), Some(&expected), "{key}");
    }
    for (key, value) in [
        ("weir_build_info{version=\"0.1.0\"}", "1"),
        ("weir_xdp_mode{mode=\"native\"}", "1"),
        ("weir_xdp_mode{mode=\"off\"}", "0"),
        ("weir_receive_mode{mode=\"af_xdp\"}", "1"),
        ("weir_receive_mode{mode=\"sockets\"}", "0"),
        ("weir_io_mode{mode=\"uring\"}", "1"),
        ("weir_egress{mode=\"bypass\"}", "1"),
        ("weir_egress{mode=\"kernel\"}", "0"),
        ("weir_nat_flows{protocol=\"tcp\"}", "40"),
        ("weir_nat_flows{protocol=\"udp\"}", "2"),
        ("weir_nat_flows{protocol=\"icmp\"}", "1"),
        ("weir_nat_flow_capacity", "262144"),
        ("weir_nat_ports_used", "96"),
        ("weir_nat_ports", "28672"),
        ("weir_sessions{state=\"open\"}", "0"),
        ("weir_rate_limit_bytes_per_second{direction=\"down\"}", "25000000"),
        ("weir_rate_share_bytes_per_second{direction=\"down\"}", "6250000"),
        ("weir_session_new_flows_limit_per_second", "200"),
        ("weir_session_destinations_limit", "1000"),
        ("weir_session_flows_limit", "2048"),
        ("weir_quota_bytes{period=\"month\"}", "2000000000000"),
        ("weir_quota_used_bytes{period=\"month\"}", "1500000000000"),
        ("weir_quota_bytes{period=\"day\"}", "0"),
        ("weir_node_paused{reason=\"quota\"}", "1"),
        ("weir_node_paused{reason=\"schedule\"}", "0"),
        ("weir_batch_packets_count{boundary=\"udp_receive\"}", "10"),
        ("weir_batch_packets_sum{boundary=\"udp_receive\"}", "440.0"),
        ("weir_batch_packets_bucket{le=\"32.0\",boundary=\"udp_receive\"}", "2"),
        ("weir_batch_packets_bucket{le=\"64.0\",boundary=\"udp_receive\"}", "10"),
        ("weir_batch_packets_bucket{le=\"+Inf\",boundary=\"udp_receive\"}", "10"),
        ("weir_guard_datagrams_total{message=\"data\"}", "440"),
        ("weir_guard_bytes_total{message=\"data\"}", "18446744073709551615"),
        ("weir_worker_busy_seconds_total{worker=\"1\"}", "6.25"),
        ("weir_handshakes_total{result=\"completed\"}", "3"),
        ("weir_handshakes_total{result=\"cookie\"}", "7"),
        ("weir_handshakes_total{result=\"mac1\"}", "0"),
        ("weir_handshakes_total{result=\"peer_rate\"}", "0"),
        ("weir_handshakes_total{result=\"response_rate\"}", "0"),
        ("weir_handshakes_total{result=\"replay\"}", "0"),
        ("weir_ledger_age_seconds", "0.5"),
        ("weir_unpaid_bytes", "12345"),
        ("weir_sessions_connected", "0"),
        ("weir_ledger_writable", "1"),
        ("weir_fleet_connected", "1"),
        ("weir_uptime_seconds", "12.5"),
        ("weir_tunnel_bytes_total{direction=\"up\"}", "0"),
        ("weir_market_state{state=\"published\"}", "1"),
        ("weir_market_state{state=\"withdrawn\"}", "0"),
        ("weir_market_expiry_timestamp_seconds", "1800010800"),
        ("weir_market_listed{relay=\"wss://registry.example/\"}", "1"),
        (
            "weir_market_publications_total{relay=\"wss://registry.example/\",result=\"failed\"}",
            "2",
        ),
    ] {
        assert_eq!(samples.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!samples.keys().any(|key| key.contains("session=")), "series are opt-in");
}

#[test]
fn sessions_have_series_up_to_the_cap_and_the_rest_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 8);
    let sessions: Vec<_> = (0..3).map(|_| rig.add(None).session).collect();
    sessions.iter().for_each(|session| rig.traffic(session.slot, 100));
    let samples = scrape(&rig, Series { per_session: true, max_sessions: 2 });
    assert_eq!(samples["weir_session_series_omitted"], "1");
    for (session, expected) in sessions.iter().zip([Some("100"), Some("100"), None]) {
        let id = session.id;
        let up = format!("weir_session_bytes_total{{session=\"{id}\",direction=\"up\"}}");
        assert_eq!(samples.get(&up).map(String::as_str), expected);
        let guard = format!("weir_session_guard_bytes_total{{session=\"{id}\"}}");
        assert_eq!(samples.get(&guard).map(String::as_str), expected);
    }
    assert_eq!(samples["weir_tunnel_bytes_total{direction=\"up\"}"], "300");
    let id = sessions[0].id.to_string();
    rig.sessions.remove(&id).expect("removed");
    let samples = scrape(&rig, Series { per_session: true, max_sessions: 2 });
    assert_eq!(samples["weir_tunnel_bytes_total{direction=\"up\"}"], "300", "totals never fall");
    assert!(!samples.keys().any(|key| key.contains(&id)));
}

/// The list of all metrics, as it stands in docs/monitoring.md.
fn list(plain: &str) -> String {
    /// The longest line that a document may have.
    const MAX_COLUMNS: usize = 120;
    let mut list = String::new();
    let lines: Vec<&str> = plain.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        else {
            continue;
        };
        let help = lines[at - 1].strip_prefix(&format!("# HELP {name} ")).expect("a help text");
        let samples = lines.iter().filter(|line| !line.starts_with('#') && line.starts_with(name));
        let labels: BTreeSet<&str> = samples
            .flat_map(|sample| {
                let inner = sample.split_once('{').map_or("", |(_, rest)| rest);
                inner.split("\",").filter_map(|label| Some(label.split_once('=')?.0))
            })
            .filter(|label| *label != "le")
            .collect();
        let labels: String = labels.iter().map(|label| format!(", `{label}`")).collect();
        let head = format!("- `{name}` ({kind}{labels}):");
        let fits = head.len() + 1 + help.len() <= MAX_COLUMNS;
        list.push_str(&format!("{head}{}{help}\n", if fits { " " } else { "\n  " }));
    }
    list
}

#[test]
fn the_documented_metrics_are_those_that_are_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 8);
    let session = rig.add(None).session;
    let account = rig.accounts.get(session.slot).expect("a slot");
    account.metered.last_handshake.store(1, std::sync::atomic::Ordering::Relaxed);
    rig.ledger.lock().set_keysets("http://mint.example", "sat", &[]).expect("written");
    rig.ledger.note_mints().expect("read");
    let series = Series { per_session: true, max_sessions: 2 };
    let registry = registry(rig.sessions.clone(), Arc::new(StillNode), series.into());
    let list = list(&encode(&registry, Form::Plain).expect("written"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/monitoring.md");
    let documented = std::fs::read_to_string(path).expect("there");
    assert!(!list.is_empty(), "nothing is exported");
    assert!(documented.contains(&list), "put this list into docs/monitoring.md:\n{list}");
}
