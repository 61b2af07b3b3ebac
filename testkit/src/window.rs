//! How much may be under way: as much as the node takes without losing any.

use std::time::{Duration, Instant};

/// Without any arrival for this long, what is under way counts as lost.
const SILENCE: Duration = Duration::from_millis(4);
const LEAST: u64 = 44;

/// A window of packets under way, which grows while nothing is lost and halves when something is.
#[derive(Debug)]
pub struct Window {
    most: u64,
    size: u64,
    grown_at: u64,
    lost: u64,
    received: u64,
    since: Instant,
}

impl Window {
    /// A window of at most `most` packets.
    #[must_use]
    pub fn new(most: u64) -> Self {
        let most = most.max(LEAST);
        // About what the receive ring of a network card or a veth holds.
        let size = most.min(256);
        Self { most, size, grown_at: 0, lost: 0, received: 0, since: Instant::now() }
    }

    /// Whether `more` packets may follow the `sent` ones, of which `received` have arrived.
    #[must_use]
    pub fn has_room(&mut self, sent: u64, received: u64, more: u64) -> bool {
        if received != self.received {
            self.received = received;
            self.since = Instant::now();
        }
        let under_way = sent.saturating_sub(received + self.lost);
        if under_way + more <= self.size.max(more) {
            if received - self.grown_at > self.size {
                self.grown_at = received;
                self.size = (self.size + LEAST).min(self.most);
            }
            return true;
        }
        if self.since.elapsed() > SILENCE {
            self.lost += under_way;
            self.size = (self.size / 2).max(LEAST);
            self.since = Instant::now();
            return true;
        }
        false
    }

    /// Packets, at the end.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_waits_and_silence_halves_it() {
        let mut window = Window::new(1024);
        assert!(window.has_room(0, 0, 44));
        assert!(!window.has_room(256, 0, 44));
        std::thread::sleep(SILENCE * 2);
        assert!(window.has_room(256, 0, 44));
        assert_eq!(window.size(), 128);
        assert!(window.has_room(256 + 44, 0, 44), "the lost ones are not under way");
    }

    #[test]
    fn it_grows_with_what_arrives() {
        let mut window = Window::new(4096);
        for received in (0..10_000).step_by(100) {
            assert!(window.has_room(received, received, 44));
        }
        assert!(window.size() > 512);
    }
}
