//! What Prometheus and Grafana make of the node: the metrics, the alerts and the dashboard, judged
//! by the real Prometheus.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weir_tests::{Lab, Settings, command, lab::SERVERS, prometheus::Prometheus, steps, until};

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

fn promtool(arguments: &[&str], directory: &Path) -> Result<String> {
    let mut promtool = Command::new("promtool");
    command::run(promtool.args(arguments).current_dir(directory))
        .context("promtool is in Debian's package prometheus: cargo xtask setup")
}

/// Everything in the dashboard's and the alerts' queries that a node must have.
fn names(queries: &[String]) -> BTreeSet<String> {
    let words = queries.iter().flat_map(|query| {
        query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
    });
    words.filter(|word| word.starts_with("weir_")).map(str::to_owned).collect()
}

/// The queries of the dashboard, as Grafana would ask them of this node.
fn dashboard() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(packaging("grafana/weir.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut queries = Vec::new();
    for panel in panels {
        let targets = panel["targets"].as_array().context("no targets")?;
        queries.extend(targets.iter().map(|target| &target["expr"]));
    }
    let annotations = dashboard["annotations"]["list"].as_array().context("no annotations")?;
    queries.extend(annotations.iter().map(|annotation| &annotation["expr"]));
    let asked = |query: &Value| -> Result<String> {
        let query = query.as_str().context("no query")?;
        let query = query.replace("$__rate_interval", "30s");
        let query = query.replace("$job", ".+").replace("$instance", ".+");
        ensure!(!query.contains('$'), "unknown variable in {query}");
        Ok(query)
    };
    queries.into_iter().map(asked).collect()
}

fn alerts() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(packaging("prometheus/weir.rules.yml"))?;
    let block = |rule: &str| {
        let rest = rule.split("expr:").nth(1)?;
        let query = rest.split(" labels:").next()?.split(" for:").next()?;
        Some(query.trim().trim_start_matches(">-").trim().to_owned())
    };
    text.split("- alert:").skip(1).map(|rule| block(rule).context("no expression")).collect()
}

#[test]
fn the_alerts_are_well_formed_and_fire_when_they_should() -> Result<()> {
    let directory = packaging("prometheus");
    promtool(&["check", "rules", "weir.rules.yml"], &directory)?;
    promtool(&["check", "config", "scrape.yml"], &directory)?;
    promtool(&["test", "rules", "weir.rules.test.yml"], &directory)?;
    Ok(())
}

#[test]
fn a_prometheus_understands_the_node_and_the_dashboard_finds_what_it_shows() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("api", "per_session_metrics", "true");
    let (node, added, client) = steps::connected(&lab, settings)?;
    client.ping(SERVERS[0], 20)?;

    let page = node.metrics()?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &page)?;
    let lint = format!("promtool check metrics < {}", file.path().display());
    let said = command::run(Command::new("sh").args(["-c", &lint]))?;
    ensure!(said.is_empty(), "{said}");
    let exported = names(&page.lines().map(str::to_owned).collect::<Vec<_>>());
    let (dashboard, alerts) = (dashboard()?, alerts()?);
    ensure!(dashboard.len() > 15 && alerts.len() >= 12, "{dashboard:?} {alerts:?}");
    for name in names(&[dashboard.clone(), alerts.clone()].concat()) {
        ensure!(exported.contains(&name), "the node does not export {name}");
    }

    let prometheus = Prometheus::start(&lab.node, &packaging("prometheus"))?;
    until("Prometheus scrapes the node", Duration::from_secs(60), || {
        client.ping(SERVERS[0], 5)?;
        let scrapes = prometheus.query("min(count_over_time(up{job=\"weir\"}[1m]))")?;
        let count = scrapes.first().and_then(|sample| sample["value"][1].as_str());
        ensure!(count.context("none yet")?.parse::<u32>()? >= 4, "{scrapes:?}");
        Ok(())
    })?;
    ensure!(prometheus.query("up{job=\"weir\"} == 1")?.len() == 1, "the scrape fails");
    for query in &dashboard {
        let found = prometheus.query(query).with_context(|| query.clone())?;
        // There was no restart to mark.
        ensure!(found.is_empty() == query.starts_with("changes("), "{query}: {found:?}");
    }
    for query in &alerts {
        let found = prometheus.query(query).with_context(|| query.clone())?;
        ensure!(found.is_empty() || query.contains("xdp_mode"), "{query}: {found:?}");
    }
    let groups = prometheus.ask("/api/v1/rules")?;
    let rules = groups["groups"][0]["rules"].as_array().context("no rules")?;
    ensure!(rules.len() == alerts.len(), "{rules:?}");
    ensure!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");

    // Prometheus has the same bytes as the ledger, once it has scraped the last of them.
    until("Prometheus has the ledger's bytes", Duration::from_secs(60), || {
        let shown = node.session_show(&added.session.id)?;
        for (direction, bytes) in [("up", shown.bytes_up), ("down", shown.bytes_down)] {
            let labels = format!("session=\"{}\",direction=\"{direction}\"", added.session.id);
            let kept = prometheus.query(&format!("weir_session_bytes_total{{{labels}}}"))?;
            let [one] = kept.as_slice() else { bail!("{kept:?}") };
            ensure!(bytes > 0 && one["value"][1] == *bytes.to_string(), "{shown:?}: {kept:?}");
        }
        Ok(())
    })
}
