//! The token buckets of [`weir_common::meter`] that user space keeps: those of each session, at its
//! worker, and those of its initiations, at the handshake thread. Each is a [`Gcra`], which names
//! its source. They apply with and without a guard in front of them.

use weir_common::{
    DropReason, Slot,
    gcra::{Gcra, Rate},
    meter::{Meter, Origin, PAUSED_ANSWERS, PEER_INITIATIONS},
};

/// The answers to refused packets that a session gets: 100 a second (RFC 1812, section 4.3.2.8;
/// RFC 4443, section 2.4 (f)).
const REFUSALS: Rate = Rate { interval: 10_000_000, window: 500_000_000 };

/// The buckets of one session. Times are nanoseconds of a clock that does not go backwards.
#[derive(Debug, Default)]
pub struct PeerMeters {
    paused_data: Gcra,
    roaming_data: Gcra,
    responses: Gcra,
    paused_answers: Gcra,
    refusals: Gcra,
}

impl PeerMeters {
    /// Whether a message from `origin` would be within `meter`. Takes nothing.
    #[must_use]
    pub fn has_room(&self, meter: Meter, origin: Origin, now: u64) -> bool {
        self.bucket(meter).next(meter.rate(origin), now).is_some()
    }

    /// Takes a message from `origin` from the bucket of `meter`.
    ///
    /// # Errors
    ///
    /// Says why it is to be dropped if the bucket is empty.
    pub fn take(&mut self, meter: Meter, origin: Origin, now: u64) -> Result<(), DropReason> {
        let (bucket, refusal) = match meter {
            Meter::PausedData => (&mut self.paused_data, DropReason::Paused),
            Meter::RoamingData => (&mut self.roaming_data, DropReason::Roaming),
            Meter::Responses => (&mut self.responses, DropReason::Responses),
        };
        if bucket.take(meter.rate(origin), now) { Ok(()) } else { Err(refusal) }
    }

    /// Takes a packet from the gateway to a paused session.
    pub fn take_answer(&mut self, now: u64) -> bool {
        self.paused_answers.take(PAUSED_ANSWERS, now)
    }

    /// Takes an answer to a refused packet: a reset or an ICMP error.
    pub fn take_refusal(&mut self, now: u64) -> bool {
        self.refusals.take(REFUSALS, now)
    }

    fn bucket(&self, meter: Meter) -> &Gcra {
        match meter {
            Meter::PausedData => &self.paused_data,
            Meter::RoamingData => &self.roaming_data,
            Meter::Responses => &self.responses,
        }
    }
}

/// The buckets of all sessions' initiations, by slot.
#[derive(Debug, Default)]
pub(crate) struct InitiationMeters(Vec<Gcra>);

impl InitiationMeters {
    /// Takes a new initiation by the key of the session at `slot`. Only who has the key can make
    /// one: replays and forged ones are refused before.
    pub(crate) fn take(&mut self, slot: Slot, now: u64) -> bool {
        let place = slot.0.min(Slot::MAX_COUNT) as usize;
        if place >= self.0.len() {
            self.0.resize_with(place + 1, Gcra::default);
        }
        self.0.get_mut(place).is_some_and(|bucket| bucket.take(PEER_INITIATIONS, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1000 * SECOND;

    #[test]
    fn each_key_has_initiations_of_its_own() {
        let mut meters = InitiationMeters::default();
        let mut taken = |slot, now| (0..1000).filter(|_| meters.take(Slot(slot), now)).count();
        assert_eq!(taken(7, START), 20);
        assert_eq!(taken(3, START), 20, "another key");
        assert_eq!(taken(7, START + SECOND), 20);
    }

    #[test]
    fn in_the_long_run_a_key_has_fifty_initiations_a_second() {
        let mut meters = InitiationMeters::default();
        let times = (START..START + 10 * SECOND).step_by(1_000_000);
        let taken = times.filter(|now| meters.take(Slot(0), *now)).count();
        assert!((500..=521).contains(&taken), "{taken}");
    }

    #[test]
    fn to_look_takes_nothing() {
        let mut meters = PeerMeters::default();
        assert!((0..100).all(|_| meters.has_room(Meter::Responses, Origin::Endpoint, START)));
        while meters.take(Meter::Responses, Origin::Endpoint, START).is_ok() {}
        assert!(!meters.has_room(Meter::Responses, Origin::Endpoint, START));
        assert_eq!(
            meters.take(Meter::Responses, Origin::Endpoint, START),
            Err(DropReason::Responses)
        );
        assert!(meters.has_room(Meter::RoamingData, Origin::Elsewhere, START), "its own bucket");
    }
}
