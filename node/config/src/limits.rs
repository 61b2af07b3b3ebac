//! Every limit, once. The macro of [`limit`](super::limit) says what is made from this list.

use weir_common::Slot;

use super::{
    amounts::{AtMost, BitRate, ByteCount},
    kinds::Auto,
    limit::{BadLimit, MAX_AMOUNT},
    schedule::Window,
};

/// The highest `limits.session_new_flows`, in flows per second. The packet path cannot count more.
pub const MAX_SESSION_NEW_FLOWS: u32 = 300;
/// The highest `limits.session_destinations`. The packet path cannot tell more apart.
pub const MAX_SESSION_DESTINATIONS: u32 = 1500;

/// About the number of ports that NAT can translate to.
const MAX_SESSION_FLOWS: i64 = 65_000;

limits! {
    /// Rate limits and quotas. `weir limits set` changes them while the node runs; see
    /// docs/limits.md. Rates count the packets inside the tunnel. Up is from the consumer to the
    /// internet, down is from the internet to the consumer.
    Limits {
        /// The rate limit of all sessions together, up, for example "200 Mbit/s", or "off".
        /// It is shared fairly among the sessions that need it (max-min).
        node_rate_up: BitRate = BitRate::OFF, in 0..=MAX_AMOUNT;
        /// The rate limit of all sessions together, down, or "off".
        node_rate_down: BitRate = BitRate::OFF, in 0..=MAX_AMOUNT;
        /// The rate limit of each session, up, unless the session has its own, or "off".
        session_rate_up: BitRate = BitRate::OFF, in 0..=MAX_AMOUNT;
        /// The rate limit of each session, down, unless the session has its own, or "off".
        session_rate_down: BitRate = BitRate::OFF, in 0..=MAX_AMOUNT;
        /// New flows (connections) per second that each session may open, 1 to 300, or "off"; the
        /// burst is five times that. Beyond it, new flows are dropped; open flows continue.
        session_new_flows: AtMost = AtMost::new(200), in 0..=i64::from(MAX_SESSION_NEW_FLOWS),
            gauge "session_new_flows_limit_per_second":
                "New flows per second that a session may open; 0 for no limit.",
            line "session flows": "new ones a second";
        /// Distinct destinations that each session may reach in ten seconds, 1 to 1500, or "off".
        /// Browsing and file sharing stay below the default; scans, which cause abuse notices, do
        /// not. No destination is stored.
        session_destinations: AtMost = AtMost::new(1000), in 0..=i64::from(MAX_SESSION_DESTINATIONS),
            gauge "session_destinations_limit":
                "Distinct destinations that a session may reach in ten seconds; 0 for no limit.",
            line "destinations": "of each session in 10 seconds";
        /// Flows (connections) that each session may have open at once, for IPv4 and IPv6 each,
        /// 1 to 65000, or "off". "auto" is 1/64 of the kernel's flow table, from 256 to 4096.
        session_flows: Auto<AtMost> = Auto::Auto, in 0..=MAX_SESSION_FLOWS,
            gauge "session_flows_limit":
                "Concurrent flows per address family that a session may have; 0 for no limit.",
            line "open flows": "of each session, of IPv4 and of IPv6 each";
        /// The maximum number of sessions; 0 means node.max_sessions. Lowering it ends no session,
        /// but stops new ones.
        sessions: u32 = 0, in 0..=i64::from(Slot::MAX_COUNT);
        /// The quota of billed bytes per day for all sessions, up and down together, for example
        /// "500 GB", or "off". When it is used up, all sessions are paused until the day ends.
        bytes_per_day: ByteCount = ByteCount::default(), in 0..=MAX_AMOUNT;
        /// The same quota per month, for example "20 TB", or "off".
        bytes_per_month: ByteCount = ByteCount::default(), in 0..=MAX_AMOUNT;
        /// The day on which the quota's month begins, 1 to 31; in a shorter month, its last day.
        month_reset_day: u32 = 1, in 1..=31;
        /// The offset of this node's days and hours from UTC, in minutes. -720 to 840; 60 is Central
        /// European Time. Daylight saving time is not applied.
        utc_offset_minutes: i32 = 0, in -720..=840;
        /// Times of the week with other rate limits, or at which the node is closed. If several
        /// apply, the first one counts. For example
        /// ["Mon-Fri 08:00-18:00 up=50mbit down=100mbit", "Sat,Sun 00:00-24:00 closed"].
        schedule: Vec<Window> = Vec::new();
    }
}

impl Change {
    /// Applies these changes, on a node with `slots` slots.
    ///
    /// # Errors
    ///
    /// Fails at the first invalid change. `limits` may then contain others.
    pub fn apply_to(&self, limits: &mut Limits, slots: u32) -> Result<(), BadLimit> {
        self.put_into(limits)?;
        match self.sessions {
            Some(sessions) if sessions > slots => Err(BadLimit::Range {
                key: "sessions",
                value: sessions.into(),
                low: 0,
                high: slots.into(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limit::BadAssignment, section::Section};

    #[test]
    fn all_limits_changed_to_what_they_are_stay_so() {
        let mut limits = Limits {
            node_rate_up: BitRate::new(5_000_000),
            bytes_per_month: ByteCount::new(7),
            sessions: 3,
            session_new_flows: AtMost::new(7),
            session_destinations: AtMost::default(),
            session_flows: Auto::Set(AtMost::new(40)),
            schedule: vec!["Sun 22:00-06:00 closed".parse().expect("a window")],
            ..Limits::default()
        };
        let all = Change::all(&limits);
        let mut other = Limits::default();
        all.apply_to(&mut other, 4).expect("applied");
        assert_eq!(other, limits);
        Change::default().apply_to(&mut limits, 4).expect("applied");
        assert_eq!(other, limits);
        let text = serde_json::to_string(&all).expect("JSON");
        assert_eq!(serde_json::from_str::<Change>(&text).expect("JSON"), all);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            r#"{"month_reset_day": 0}"#,
            r#"{"month_reset_day": 32}"#,
            r#"{"sessions": 5}"#,
            r#"{"session_new_flows": 301}"#,
            r#"{"session_destinations": 1501}"#,
            r#"{"session_flows": 65001}"#,
            r#"{"utc_offset_minutes": 841}"#,
            r#"{"node_rate_up": 18446744073709551615}"#,
            r#"{"schedule": ["never"]}"#,
        ] {
            let change: Change = serde_json::from_str(text).expect("JSON");
            assert!(change.apply_to(&mut Limits::default(), 4).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_flow_limit_says_what_would_be() {
        let error = serde_json::from_str::<Change>(r#"{"session_flows": "some"}"#);
        let error = error.expect_err("no number").to_string();
        assert!(error.contains("expected a whole number or \"auto\""), "{error}");
    }

    /// What the configuration refuses, a change refuses, and the other way about.
    #[test]
    fn the_configuration_and_a_change_have_the_same_ranges() {
        let limits = |text: &str| crate::check(&format!("[limits]\n{text}"), None);
        for (key, fits, too_much) in [
            ("session_new_flows", "300", "301"),
            ("session_destinations", "1500", "1501"),
            ("session_flows", "65000", "65001"),
            ("month_reset_day", "31", "32"),
            ("utc_offset_minutes", "840", "841"),
            ("utc_offset_minutes", "-720", "-721"),
        ] {
            for (value, is_right) in [(fits, true), (too_much, false)] {
                assert_eq!(limits(&format!("{key} = {value}")).is_ok(), is_right, "{key} {value}");
                let json = format!("{{\"{key}\": {value}}}");
                let change: Change = serde_json::from_str(&json).expect("JSON");
                let applied = change.apply_to(&mut Limits::default(), 4);
                assert_eq!(applied.is_ok(), is_right, "{json}");
            }
        }
        let mistakes = limits("session_flows = 65001\nnode_rate_up = \"10000 Tbit/s\"");
        let fixes: Vec<_> = mistakes.expect_err("two").into_iter().map(|one| one.fix).collect();
        assert_eq!(fixes[0], "write a number from 1 to 65000, or \"off\"");
        assert_eq!(fixes[1], "write at most \"9007199254740992 bit/s\", or \"off\"");
    }

    /// The command line, the API and the configuration write a limit each in its own way, and mean
    /// the same.
    #[test]
    fn every_limit_can_be_assigned_as_the_default_file_writes_it() {
        let defaults = Limits::default();
        let mut change = Change::default();
        for key in Change::KEYS {
            let (_, value) = Section::describe(&defaults, key);
            let text = if *key == "schedule" { "off" } else { value.trim_matches('"') };
            change.assign(key, text).unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        assert_eq!(change, Change::all(&defaults));
        assert!(matches!(change.assign("rate", "1"), Err(BadAssignment::Unknown(_))));
        assert_eq!(Limits::FULL_KEYS.len(), Change::KEYS.len());
    }

    /// The API's document has the ranges of the list.
    #[test]
    fn the_api_is_described_with_these_ranges() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/openapi.json")).expect("JSON");
        let described = &document["components"]["schemas"]["Limits"]["properties"];
        for key in Change::KEYS {
            let field = &described[key];
            // A number, or one of several.
            let number = if field["oneOf"].is_array() { &field["oneOf"][0] } else { field };
            for (bound, step) in [("minimum", -1), ("maximum", 1)] {
                let Some(bound) = number[bound].as_i64() else { continue };
                for (value, is_right) in [(bound, true), (bound + step, false)] {
                    let json = format!("{{\"{key}\": {value}}}");
                    let change = serde_json::from_str::<Change>(&json);
                    let applied = change
                        .is_ok_and(|one| one.apply_to(&mut Limits::default(), u32::MAX).is_ok());
                    assert_eq!(applied, is_right, "{json}");
                }
            }
        }
    }
}
