//! `weir limits`.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};

use super::{out::Out, units};
use weir_config::{
    amounts::{BitRate, ByteCount},
    limit::BadAssignment,
};
use weir_control::api::view::LimitsView;
use weir_control::client::Client;
use weir_sessions::limits::{Change, QuotaNow};

/// The keys that can precede the `=`.
fn keys() -> String {
    Change::KEYS.join(", ").replace('_', "-")
}

pub(super) fn show(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let limits: LimitsView = client.get("/v1/limits")?;
    print(&limits, json, out)
}

pub(super) fn set(
    client: &Client,
    assignments: &[String],
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let limits: LimitsView = client.put("/v1/limits", &change(assignments)?)?;
    print(&limits, json, out)
}

/// Parses `KEY=VALUE` arguments.
fn change(assignments: &[String]) -> anyhow::Result<Change> {
    let mut change = Change::default();
    for assignment in assignments {
        let (key, value) = assignment
            .split_once('=')
            .with_context(|| format!("{assignment:?} is not KEY=VALUE; the keys are {}", keys()))?;
        match change.assign(&key.replace('-', "_"), value) {
            Err(BadAssignment::Unknown(_)) => {
                bail!("unknown limit {key:?}; the keys are {}", keys())
            }
            assigned => assigned?,
        }
    }
    Ok(change)
}

fn print(limits: &LimitsView, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(limits);
    }
    out.text(&screen(limits))?;
    Ok(())
}

/// The limits, one per line.
fn screen(view: &LimitsView) -> String {
    let (limits, now) = (&view.limits, &view.now);
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        // Writing to a string cannot fail.
        writeln!(text, "{what:<18}{value}").ok();
    };
    let rate = |bits: Option<u64>| BitRate::new(bits.unwrap_or(0)).to_string();
    let both = |up, down| format!("up {}, down {}", rate(up), rate(down));
    line("node rate", &both(limits.node_rate_up, limits.node_rate_down));
    line("session rate", &both(limits.session_rate_up, limits.session_rate_down));
    let at_most = |most: u32, unit: &str| match most {
        0 => "off".to_owned(),
        most => format!("at most {most} {unit}").trim_end().to_owned(),
    };
    for (limit, number) in now.each_session.shown() {
        line(limit.label, &at_most(number, limit.unit));
    }
    line("sessions", &at_most(limits.sessions.unwrap_or(0), ""));
    line("bytes per day", &quota(now.day));
    line("bytes per month", &quota(now.month));
    let windows = limits.schedule.iter().flatten();
    for (index, window) in windows.enumerate() {
        line(if index == 0 { "schedule" } else { "" }, window);
    }
    if limits.schedule.iter().flatten().next().is_none() {
        line("schedule", "off");
    }
    let share = |bits: u64| match bits {
        0 => "off".to_owned(),
        // Whole kbit/s, because the share changes constantly.
        bits => BitRate::new((bits / 1000).max(1) * 1000).to_string(),
    };
    line("now", &both(Some(now.rate_up), Some(now.rate_down)));
    let shares = format!("up {}, down {}", share(now.share_up), share(now.share_down));
    line("a session's share", &shares);
    match now.paused_for.as_deref() {
        Some("quota") => line("paused", "all sessions: the quota is used up"),
        Some(reason) => line("paused", &format!("all sessions: {reason}")),
        None => {}
    }
    text
}

fn quota(quota: QuotaNow) -> String {
    let QuotaNow { bytes, used, resets } = quota;
    let used = units::bytes(used);
    let resets = units::utc(resets);
    match bytes {
        0 => format!("off ({used} used; resets at {resets})"),
        bytes => format!("{}; {used} used until {resets}", ByteCount::new(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_config::{
        limit::{AutoNumber, AutoWord},
        limits::EachSession,
    };
    use weir_sessions::limits::LimitsNow;

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn assignments_are_read_with_their_units() {
        let assignments = words(&[
            "node-rate-down=200 Mbit/s",
            "session_rate_up=off",
            "bytes-per-month=2TB",
            "sessions=7",
            "session-new-flows=50",
            "session_destinations=off",
            "session-flows=auto",
            "utc-offset-minutes=-60",
            "schedule=Sat,Sun 00:00-24:00 closed; Mon-Fri 08:00-18:00 down=1mbit",
        ]);
        let change = change(&assignments).expect("read");
        assert_eq!((change.node_rate_down, change.session_rate_up), (Some(200_000_000), Some(0)));
        assert_eq!((change.bytes_per_month, change.sessions), (Some(2_000_000_000_000), Some(7)));
        assert_eq!((change.session_new_flows, change.session_destinations), (Some(50), Some(0)));
        assert_eq!(change.session_flows, Some(AutoNumber::Auto(AutoWord::Auto)));
        assert_eq!(change.utc_offset_minutes, Some(-60));
        assert_eq!(change.schedule.map(|windows| windows.len()), Some(2));
        assert_eq!(change.node_rate_up, None, "what is not named stays");
    }

    #[test]
    fn what_is_unclear_is_refused_with_the_keys() {
        for (word, why) in [
            ("node-rate", "is not KEY=VALUE; the keys are node-rate-up"),
            ("rate=5 Mbit/s", "unknown limit \"rate\"; the keys are"),
            ("node-rate-up=5", "is not a rate: write for example"),
            ("sessions=many", "sessions: \"many\" is not a whole number"),
            ("session-flows=some", "\"some\" is not a whole number, nor \"auto\""),
            ("schedule=never", "never"),
        ] {
            let error = format!("{:#}", change(&words(&[word])).expect_err(word));
            assert!(error.contains(why), "{word}: {error}");
        }
    }

    #[test]
    fn the_screen_says_what_holds_and_what_is_left() {
        let month = QuotaNow { bytes: 2_000_000_000_000, used: 3 << 30, resets: 1_700_000_000 };
        let view = LimitsView {
            limits: Change { node_rate_down: Some(200_000_000), ..Change::default() },
            now: LimitsNow {
                rate_down: 200_000_000,
                share_down: 20_000_123,
                each_session: EachSession {
                    session_new_flows: 200,
                    session_destinations: 0,
                    session_flows: 2048,
                },
                paused_for: Some("quota".into()),
                month,
                ..LimitsNow::default()
            },
        };
        let text = screen(&view);
        for line in [
            "node rate         up off, down 200 Mbit/s",
            "session flows     at most 200 new ones a second",
            "destinations      off",
            "open flows        at most 2048 of each session, of IPv4 and of IPv6 each",
            "sessions          off",
            "bytes per month   2 TB; 3.00 GiB used until 2023-11-14 22:13:20 UTC",
            "schedule          off",
            "a session's share up off, down 20 Mbit/s",
            "paused            all sessions: the quota is used up",
        ] {
            assert!(text.lines().any(|is| is == line), "{line:?} is not in\n{text}");
        }
    }
}
