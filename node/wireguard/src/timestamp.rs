//! The timestamp of a handshake initiation, by which an old one is known.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The label of the second 1970-01-01 00:00:00 TAI (TAI64).
const EPOCH: u64 = 1 << 62;
/// Bits for the nanoseconds of a second.
const NANOS_BITS: u32 = 30;
const MAX_NANOS: u64 = (1 << NANOS_BITS) - 1;
/// TAI is ahead of UTC by so many seconds, since 2017.
const LEAP_SECONDS: u64 = 37;
/// The last second that fits: in the year 2242.
const MAX_SECONDS: u64 = (1 << (63 - NANOS_BITS)) - 1;

/// When an initiator says that it made an initiation (whitepaper, section 5.4.2).
///
/// To the responder it is a number that has to rise, whatever the initiator's clock says. It is
/// kept as one word, so that an account can hold it and a reader never sees half of it: 33 bits of
/// seconds since 1970, then 30 bits of nanoseconds. What lies outside is taken for the nearest
/// that fits, so that of two of these the second is never the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Length of a TAI64N label.
    pub const LEN: usize = 12;

    /// Reads a TAI64N label: big-endian, eight bytes of seconds and four of nanoseconds.
    #[must_use]
    pub fn from_tai64n(label: &[u8; Self::LEN]) -> Self {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = *label;
        let label = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let nanos = u64::from(u32::from_be_bytes([n0, n1, n2, n3])).min(MAX_NANOS);
        match label.checked_sub(EPOCH) {
            None => Self(0),
            Some(seconds) if seconds > MAX_SECONDS => Self(MAX_SECONDS << NANOS_BITS | MAX_NANOS),
            Some(seconds) => Self(seconds << NANOS_BITS | nanos),
        }
    }

    /// The time in UTC: seconds since 1970 and nanoseconds.
    #[must_use]
    pub fn from_unix(seconds: u64, nanos: u32) -> Self {
        let seconds = seconds.saturating_add(LEAP_SECONDS).min(MAX_SECONDS);
        Self(seconds << NANOS_BITS | u64::from(nanos).min(MAX_NANOS))
    }

    /// The TAI64N label.
    #[must_use]
    pub fn to_tai64n(self) -> [u8; Self::LEN] {
        let mut label = [0; Self::LEN];
        let (seconds, nanos) = label.split_at_mut(8);
        seconds.copy_from_slice(&(EPOCH + (self.0 >> NANOS_BITS)).to_be_bytes());
        nanos.copy_from_slice(&((self.0 & MAX_NANOS) as u32).to_be_bytes());
        label
    }

    /// The earliest that is newer.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Its seconds since 1970, without the leap seconds that TAI is ahead of UTC.
    #[must_use]
    #[cfg(test)]
    pub const fn unix_seconds(self) -> u64 {
        self.0 >> NANOS_BITS
    }

    /// Whether it is newer than the newest that `newest` holds.
    #[must_use]
    pub fn is_after(self, newest: &AtomicU64) -> bool {
        self.0 > newest.load(Relaxed)
    }

    /// Makes it the newest. Only the handshake thread writes one while the session is served.
    pub fn save(self, newest: &AtomicU64) {
        newest.store(self.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(seconds: u64, nanos: u32) -> [u8; Timestamp::LEN] {
        let mut label = [0; Timestamp::LEN];
        label[..8].copy_from_slice(&seconds.to_be_bytes());
        label[8..].copy_from_slice(&nanos.to_be_bytes());
        label
    }

    #[test]
    fn they_are_in_the_order_of_their_labels() {
        let labels = [
            (EPOCH, 1),
            (EPOCH + 1, 0),
            (EPOCH + 1, 999_999_999),
            (EPOCH + 1_800_000_000, 5),
            (EPOCH + MAX_SECONDS, 0),
        ];
        let times = labels.map(|(seconds, nanos)| Timestamp::from_tai64n(&label(seconds, nanos)));
        assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
        assert_eq!(times[3].unix_seconds(), 1_800_000_000);
        assert!(times.iter().all(|time| i64::try_from(time.0).is_ok()), "SQLite has signed words");
    }

    #[test]
    fn labels_read_back_and_the_next_one_is_newer() {
        for (seconds, nanos) in [(0, 0), (1_700_000_000, 999_999_999), (u64::MAX, u32::MAX)] {
            let time = Timestamp::from_unix(seconds, nanos);
            assert_eq!(Timestamp::from_tai64n(&time.to_tai64n()), time);
            let next = time.next();
            assert!(seconds == u64::MAX || next.to_tai64n() > time.to_tai64n());
            assert!(seconds == u64::MAX || Timestamp::from_tai64n(&next.to_tai64n()) > time);
        }
    }

    #[test]
    fn only_a_newer_one_is_after_the_newest() {
        let newest = AtomicU64::new(0);
        let first = Timestamp::from_tai64n(&label(EPOCH + 7, 7));
        assert!(first.is_after(&newest));
        first.save(&newest);
        assert!(!first.is_after(&newest));
        assert!(!Timestamp::from_tai64n(&label(EPOCH + 7, 6)).is_after(&newest));
        assert!(Timestamp::from_tai64n(&label(EPOCH + 7, 8)).is_after(&newest));
    }

    #[test]
    fn what_is_out_of_range_is_taken_once_at_the_most() {
        let newest = AtomicU64::new(0);
        for label in [label(0, 0), label(EPOCH - 1, u32::MAX), label(EPOCH, 0)] {
            assert!(!Timestamp::from_tai64n(&label).is_after(&newest));
        }
        let far = [label(EPOCH + MAX_SECONDS + 1, 0), label(u64::MAX, u32::MAX)];
        let [first, second] = far.map(|label| Timestamp::from_tai64n(&label));
        assert!(first.is_after(&newest));
        first.save(&newest);
        assert!(!second.is_after(&newest));
    }
}
