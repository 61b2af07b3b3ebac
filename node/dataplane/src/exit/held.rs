//! Frames that wait for a neighbour's link address, as in the kernel's stack (`__neigh_event_send` in
//! net/core/neighbour.c): else the first packet to each neighbour would be lost.

use std::{collections::VecDeque, net::IpAddr};

use weir_common::Slot;

/// The frames that wait at once. The oldest makes room.
const MAX_HELD: usize = 64;
/// The frames that wait for one neighbour.
const MAX_OF_NEIGHBOUR: usize = 16;
/// How long a frame waits, in nanoseconds: the kernel asks three times, a second apart.
const MAX_WAIT: u64 = 3_000_000_000;

struct Held {
    slot: Slot,
    neighbour: IpAddr,
    frame: Vec<u8>,
    /// When it is given up, in nanoseconds.
    until: u64,
}

/// The frames that wait, in the order in which they came.
#[derive(Default)]
pub(super) struct HeldFrames(VecDeque<Held>);

impl HeldFrames {
    /// Keeps a frame, but for the Ethernet header finished. Returns the number of frames that were
    /// given up for it.
    pub(super) fn hold(&mut self, slot: Slot, neighbour: IpAddr, frame: &[u8], now: u64) -> u64 {
        let of_neighbour = self.0.iter().filter(|held| held.neighbour == neighbour).count();
        let oldest = if of_neighbour >= MAX_OF_NEIGHBOUR {
            self.0.iter().position(|held| held.neighbour == neighbour)
        } else {
            (self.0.len() >= MAX_HELD).then_some(0)
        };
        let given_up = oldest.and_then(|oldest| self.0.remove(oldest)).map_or(0, |_| 1);
        let until = now.saturating_add(MAX_WAIT);
        self.0.push_back(Held { slot, neighbour, frame: frame.to_vec(), until });
        given_up
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives up a session's frames: it ended.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.0.retain(|held| held.slot != slot);
    }

    /// Calls `send` with each frame, which returns whether its neighbour is known now. Returns the
    /// number of frames that have waited too long.
    pub(super) fn release(
        &mut self,
        now: u64,
        mut send: impl FnMut(IpAddr, &mut [u8]) -> bool,
    ) -> u64 {
        let mut given_up = 0;
        self.0.retain_mut(|held| {
            if send(held.neighbour, &mut held.frame) {
                return false;
            }
            let is_late = now >= held.until;
            given_up += u64::from(is_late);
            !is_late
        });
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn neighbour(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn sent(held: &mut HeldFrames, now: u64, known: Option<IpAddr>) -> (Vec<u8>, u64) {
        let mut sent = Vec::new();
        let given_up = held.release(now, |neighbour, frame| {
            let is_known = known == Some(neighbour);
            sent.extend(frame.first().filter(|_| is_known));
            is_known
        });
        (sent, given_up)
    }

    #[test]
    fn frames_leave_in_order_once_their_neighbour_is_known() {
        let mut held = HeldFrames::default();
        for number in 0..6 {
            assert_eq!(held.hold(Slot(0), neighbour(number % 2), &[number], 0), 0);
        }
        assert_eq!(sent(&mut held, SECOND, Some(neighbour(1))), (vec![1, 3, 5], 0));
        assert_eq!(sent(&mut held, 2 * SECOND, None), (vec![], 0));
        assert_eq!(sent(&mut held, 3 * SECOND, None), (vec![], 3), "given up");
        assert!(held.is_empty());
    }

    #[test]
    fn one_neighbour_has_few_places_and_the_oldest_frame_makes_room() {
        let mut held = HeldFrames::default();
        let given_up: u64 = (0..20).map(|it| held.hold(Slot(0), neighbour(1), &[it], 0)).sum();
        assert_eq!(given_up, 4);
        let (frames, _) = sent(&mut held, 0, Some(neighbour(1)));
        assert_eq!(frames, (4..20).collect::<Vec<_>>());
        let given_up: u64 = (0..80).map(|it| held.hold(Slot(0), neighbour(it), &[it], 0)).sum();
        assert_eq!(given_up, 16);
    }

    #[test]
    fn nothing_of_an_ended_session_leaves() {
        let mut held = HeldFrames::default();
        held.hold(Slot(1), neighbour(1), &[1], 0);
        held.hold(Slot(2), neighbour(1), &[2], 0);
        held.remove(Slot(1));
        assert_eq!(sent(&mut held, 0, Some(neighbour(1))), (vec![2], 0));
    }
}
