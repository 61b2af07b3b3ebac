//! Numbers as people read them.

/// Bytes with a binary unit and three digits or so: `1.46 GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // From here on the value would be printed as 1024 of the smaller unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Bytes per second as bits per second with three digits or so: `1.46 Gbit/s`.
pub(super) fn rate(bytes_per_second: f64) -> String {
    let mut value = bytes_per_second.max(0.0) * 8.0;
    let mut unit = 0;
    const UNITS: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match unit {
        0 => 0,
        _ if value < 9.995 => 2,
        _ => usize::from(value < 99.95),
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A span of time by its two largest units: `3 h 12 min`.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// How long ago a moment was.
pub(super) fn ago(moment: u64, now: u64) -> String {
    match now.checked_sub(moment) {
        Some(seconds) => format!("{} ago", span(seconds)),
        None => "just now".to_owned(),
    }
}

/// A moment (seconds since 1970) as date and time in UTC.
pub(super) fn utc(moment: u64) -> String {
    let (days, seconds) = (moment / 86400, moment % 86400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a number of days since 1970-01-01. Years are counted from March, so
/// that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    // 1970-01-01 is this many days after 0000-03-01.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024, "10.0 KiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (150 << 30, "150 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn rates_are_in_bits() {
        for (bytes, text) in [
            (0.0, "0 bit/s"),
            (124.9, "999 bit/s"),
            (125.0, "1.00 kbit/s"),
            (1.25e6, "10.0 Mbit/s"),
            (1.5e8, "1.20 Gbit/s"),
            (f64::INFINITY, "inf Tbit/s"),
        ] {
            assert_eq!(rate(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn moments_have_the_right_date() {
        for (moment, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(moment), text);
        }
        assert!(utc(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn spans_have_their_two_largest_units() {
        assert_eq!(span(59), "59 s");
        assert_eq!(span(61), "1 min 1 s");
        assert_eq!(span(3 * 3600 + 12 * 60), "3 h 12 min");
        assert_eq!(span(90_000), "1 d 1 h");
        assert_eq!(ago(10, 5), "just now");
    }
}
