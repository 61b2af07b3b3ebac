//! `weir market`.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::Value;

use super::{out::Out, units};
use weir_control::{
    client::Client,
    market::view::{MarketState, MarketView, RelayView},
};
use weir_ledger::unix_now;

#[derive(Debug, Subcommand)]
pub(super) enum MarketCommand {
    /// Show the node's listing, and what each registry and relay answered
    #[command(after_help = "Examples:\n  weir market show\n  \
        weir market show --json | jq .event\n\n\
        The listing needs [market] in the configuration; see docs/market.md.")]
    Show,
    /// Publish the listing now, also after a withdrawal
    #[command(after_help = "Examples:\n  weir market publish\n\n\
        The node publishes by itself every hour, and at once when its listing changes.")]
    Publish,
    /// Withdraw the listing until `weir market publish`; sessions go on
    #[command(after_help = "Examples:\n  weir market withdraw\n\n\
        A restart does not publish it again. A clean stop of the node withdraws it too.")]
    Withdraw,
}

pub(super) fn run(
    client: &Client,
    command: MarketCommand,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let view: MarketView = match command {
        MarketCommand::Show => client.get("/v1/market")?,
        MarketCommand::Publish => client.post("/v1/market/publish", &Value::Null)?,
        MarketCommand::Withdraw => client.post("/v1/market/withdraw", &Value::Null)?,
    };
    if json {
        return out.json(&view);
    }
    out.folded(&screen(&view, unix_now()), 12)?;
    Ok(())
}

fn screen(view: &MarketView, now: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        writeln!(text, "{name:<12}{value}").ok();
    };
    let state = match (view.state, view.expires_at) {
        (MarketState::Published, Some(until)) => {
            format!("published, counts for {}", units::span(until.saturating_sub(now)))
        }
        (MarketState::Withdrawn, _) => "withdrawn until `weir market publish`".to_owned(),
        (state, _) => state.as_str().to_owned(),
    };
    line("state", &state);
    line("key", &view.key);
    if let Some(listing) = &view.listing {
        describe(listing, &mut line);
    }
    for relay in &view.relays {
        line("relay", &answer(relay, now));
    }
    for note in &view.notes {
        line("note", note);
    }
    text
}

fn describe(listing: &Value, line: &mut impl FnMut(&str, &str)) {
    let word = |name: &str| listing[name].as_str().unwrap_or("-").to_owned();
    line("title", &word("title"));
    line("for sale", if listing["state"] == "active" { "yes" } else { "no: sold" });
    line("country", &format!("{} ({})", word("country"), word("country_basis")));
    line("line", &format!("{} ({})", word("ip_type"), word("ip_type_basis")));
    for price in listing["prices"].as_array().into_iter().flatten() {
        let word = |name: &str| price[name].as_str().unwrap_or_default();
        line("price", &format!("{} {}/{}", word("amount"), word("currency"), word("unit")));
    }
    let words = |value: &Value| {
        let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        words.collect::<Vec<_>>().join(" ")
    };
    for payment in listing["payments"].as_array().into_iter().flatten() {
        line("payment", &words(payment));
    }
    for endpoint in listing["endpoints"].as_array().into_iter().flatten() {
        line("endpoint", &words(&endpoint["addresses"]));
    }
    line("reach", &word("reach"));
    if let Some(measured) = listing["measured"].as_object() {
        let rate = |name| measured.get(name).and_then(Value::as_u64).unwrap_or_default();
        line("capacity", &format!("{} Mbit/s up, {} Mbit/s down", rate("up"), rate("down")));
    }
    if let Some(free) = listing["free_slots"].as_u64() {
        line("free slots", &format!("{free} (rounded down)"));
    }
    line("features", &words(&listing["features"]));
}

fn answer(relay: &RelayView, now: u64) -> String {
    let mut text = format!("{}: {}", relay.url, relay.state.as_str());
    if let Some(at) = relay.answered_at {
        // Writing to a string cannot fail.
        write!(text, ", {}", units::ago(at, now)).ok();
    }
    if !relay.answer.is_empty() {
        write!(text, ": {}", relay.answer).ok();
    }
    if let Some(next) = relay.next_try {
        write!(text, "; next try in {}", units::span(next.saturating_sub(now))).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use weir_control::market::view::RelayState;

    use super::*;

    #[test]
    fn the_screen_says_where_the_listing_is_and_why_not_elsewhere() {
        let relay = |url: &str, state, answer: &str, next_try| RelayView {
            url: url.into(),
            state,
            answer: answer.into(),
            answered_at: Some(90),
            next_try,
            accepted: 0,
            refused: 0,
            failed: 0,
        };
        let view = MarketView {
            state: MarketState::Published,
            key: "ab".repeat(32),
            listing: Some(serde_json::json!({
                "title": "weir exit DE", "state": "sold", "country": "DE",
                "country_basis": "claimed", "ip_type": "residential", "ip_type_basis": "database",
                "prices": [
                    {"amount": "100", "currency": "sat", "unit": "GiB"},
                    {"amount": "0.00006", "currency": "MYST", "unit": "hour"},
                ],
                "payments": [["cashu", "https://mint.example", "02aa", "https://a.example/purchase"]], "reach": "direct",
                "endpoints": [{"key": "k", "addresses": ["192.0.2.1:51820"]}],
                "measured": {"up": 912, "down": 934, "measured_at": 1}, "free_slots": 4000,
                "features": ["ipv6", "dns"],
            })),
            event: None,
            published_at: Some(1),
            expires_at: Some(10_900),
            notes: vec!["the listing has no capacity".into()],
            relays: vec![
                relay("wss://a.example/", RelayState::Accepted, "", None),
                relay("wss://b.example/", RelayState::Refused, "blocked: no", Some(110)),
            ],
        };
        let text = screen(&view, 100);
        for part in [
            "state       published, counts for 3 h 0 min",
            "for sale    no: sold",
            "country     DE (claimed)",
            "line        residential (database)",
            "price       100 sat/GiB",
            "price       0.00006 MYST/hour",
            "payment     cashu https://mint.example 02aa https://a.example/purchase",
            "endpoint    192.0.2.1:51820",
            "capacity    912 Mbit/s up, 934 Mbit/s down",
            "features    ipv6 dns",
            "relay       wss://a.example/: accepted, 10 s ago",
            "relay       wss://b.example/: refused, 10 s ago: blocked: no; next try in 10 s",
            "note        the listing has no capacity",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
