//! Some limits, as the API is told them.

use serde::{Deserialize, Serialize};

use weir_config::{
    Limits,
    amounts::{AtMost, BitRate, ByteCount},
    schedule::NotAWindow,
};

/// Limits to be changed; what is absent stays as it is. Rates are in bits per second, and 0 is no
/// limit, of rates, bytes and numbers alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// All consumers' uploads together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_rate_up: Option<u64>,
    /// All consumers' downloads together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_rate_down: Option<u64>,
    /// The uploads of each session that has no rate of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_rate_up: Option<u64>,
    /// The downloads of each session that has no rate of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_rate_down: Option<u64>,
    /// New flows per second of each session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_new_flows: Option<u32>,
    /// Different destinations of each session in ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_destinations: Option<u32>,
    /// The most sessions at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Billed bytes a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<u64>,
    /// Billed bytes a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_month: Option<u64>,
    /// The day on which the month begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub month_reset_day: Option<u32>,
    /// Minutes by which the node's days and hours are ahead of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utc_offset_minutes: Option<i32>,
    /// Times of the week at which the node has other rates or is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Vec<String>>,
}

/// What cannot be a limit.
#[derive(Debug, thiserror::Error)]
pub enum BadLimit {
    /// A time of the week.
    #[error(transparent)]
    Window(#[from] NotAWindow),
    /// A number out of its range.
    #[error("{key} {value} is out of range: write a number from {low} to {high}")]
    Range {
        /// Which.
        key: &'static str,
        /// What it was to be.
        value: i64,
        /// The least.
        low: i64,
        /// The most.
        high: i64,
    },
}

/// The largest rate or amount: what SQLite and JSON readers hold exactly.
const MOST: i64 = 1 << 53;

impl Change {
    /// All of these limits.
    #[must_use]
    pub fn all(limits: &Limits) -> Self {
        Self {
            node_rate_up: Some(limits.node_rate_up.bits()),
            node_rate_down: Some(limits.node_rate_down.bits()),
            session_rate_up: Some(limits.session_rate_up.bits()),
            session_rate_down: Some(limits.session_rate_down.bits()),
            session_new_flows: Some(limits.session_new_flows.get()),
            session_destinations: Some(limits.session_destinations.get()),
            sessions: Some(limits.sessions),
            bytes_per_day: Some(limits.bytes_per_day.bytes()),
            bytes_per_month: Some(limits.bytes_per_month.bytes()),
            month_reset_day: Some(limits.month_reset_day),
            utc_offset_minutes: Some(limits.utc_offset_minutes),
            schedule: Some(limits.schedule.iter().map(ToString::to_string).collect()),
        }
    }

    /// Makes these changes, on a node with room for `slots` sessions.
    ///
    /// # Errors
    ///
    /// Names the first that cannot be; `limits` may have the others then.
    pub fn apply_to(&self, limits: &mut Limits, slots: u32) -> Result<(), BadLimit> {
        let within = |key, value: i64, low, high| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(BadLimit::Range { key, value, low, high }),
        };
        let amount = |key, value: u64| {
            within(key, i64::try_from(value).unwrap_or(i64::MAX), 0, MOST).map(|()| value)
        };
        let rate = |key, value, into: &mut BitRate| -> Result<(), BadLimit> {
            if let Some(value) = value {
                *into = BitRate::new(amount(key, value)?);
            }
            Ok(())
        };
        rate("node_rate_up", self.node_rate_up, &mut limits.node_rate_up)?;
        rate("node_rate_down", self.node_rate_down, &mut limits.node_rate_down)?;
        rate("session_rate_up", self.session_rate_up, &mut limits.session_rate_up)?;
        rate("session_rate_down", self.session_rate_down, &mut limits.session_rate_down)?;
        let at_most =
            |key, value: Option<u32>, most: u32, into: &mut AtMost| -> Result<(), BadLimit> {
                if let Some(value) = value {
                    within(key, value.into(), 0, most.into())?;
                    *into = AtMost::new(value);
                }
                Ok(())
            };
        let (flows, destinations) = (self.session_new_flows, self.session_destinations);
        at_most(
            "session_new_flows",
            flows,
            weir_config::MAX_SESSION_NEW_FLOWS,
            &mut limits.session_new_flows,
        )?;
        let into = &mut limits.session_destinations;
        at_most("session_destinations", destinations, weir_config::MAX_SESSION_DESTINATIONS, into)?;
        if let Some(sessions) = self.sessions {
            within("sessions", sessions.into(), 0, slots.into())?;
            limits.sessions = sessions;
        }
        if let Some(bytes) = self.bytes_per_day {
            limits.bytes_per_day = ByteCount::new(amount("bytes_per_day", bytes)?);
        }
        if let Some(bytes) = self.bytes_per_month {
            limits.bytes_per_month = ByteCount::new(amount("bytes_per_month", bytes)?);
        }
        if let Some(day) = self.month_reset_day {
            within("month_reset_day", day.into(), 1, 31)?;
            limits.month_reset_day = day;
        }
        if let Some(minutes) = self.utc_offset_minutes {
            within("utc_offset_minutes", minutes.into(), -720, 840)?;
            limits.utc_offset_minutes = minutes;
        }
        if let Some(windows) = &self.schedule {
            limits.schedule = windows.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_limits_changed_to_what_they_are_stay_so() {
        let mut limits = Limits {
            node_rate_up: BitRate::new(5_000_000),
            bytes_per_month: ByteCount::new(7),
            sessions: 3,
            session_new_flows: AtMost::new(7),
            session_destinations: AtMost::default(),
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
            r#"{"utc_offset_minutes": 841}"#,
            r#"{"node_rate_up": 18446744073709551615}"#,
            r#"{"schedule": ["never"]}"#,
        ] {
            let change: Change = serde_json::from_str(text).expect("JSON");
            assert!(change.apply_to(&mut Limits::default(), 4).is_err(), "{text}");
        }
    }
}
