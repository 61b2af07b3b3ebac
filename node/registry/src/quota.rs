//! How much each network may publish: where those who make up many exits pay.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use weir_common::gcra::{Gcra, Rate};

use crate::{network::Network, refusal::Refusal};

/// The maximum number of networks that are remembered. Beyond it, those that were silent for longest
/// are forgotten.
const MAX_NETWORKS: usize = 65_536;
/// Seconds for which a network's new keys count.
const DAY: u64 = 24 * 3600;
/// Sealed letters of one network.
const LETTERS: Rate = Rate::every(Duration::from_secs(2), 60);
/// Attestations of one network: one watcher measures 20,000 exits every two days. Beyond that, one
/// network could push those of others out of the registry.
const ATTESTATIONS: Rate = Rate::every(Duration::from_secs(8), 256);
/// Requests (subscriptions and queries) of one network.
const REQUESTS: Rate = Rate::new(20, 200);
/// How many times the events of a second one network may publish at once.
const BURST: u32 = 10;

/// What each network has used up. Times are seconds since 1970, and nanoseconds of a clock that does
/// not go backwards.
#[derive(Debug)]
pub struct Quotas {
    keys_per_network: u32,
    events: Rate,
    networks: HashMap<Network, Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// When the first of the keys was new, and the keys since.
    since: u64,
    keys: HashSet<[u8; 32]>,
    events: Gcra,
    letters: Gcra,
    attestations: Gcra,
    requests: Gcra,
    /// When it was last heard of, in nanoseconds.
    last: u64,
}

impl Quotas {
    /// Nothing is used up.
    #[must_use]
    pub fn new(keys_per_network: u32, events_per_second: u32) -> Self {
        let burst = events_per_second.saturating_mul(BURST);
        Self {
            keys_per_network,
            events: Rate::new(events_per_second, burst),
            networks: HashMap::new(),
        }
    }

    fn of(&mut self, network: Network, tick: u64) -> &mut Used {
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&network) {
            self.forget();
        }
        let used = self.networks.entry(network).or_default();
        used.last = tick;
        used
    }

    /// Forgets a quarter of the networks: those that were silent for longest.
    fn forget(&mut self) {
        let mut all: Vec<u64> = self.networks.values().map(|used| used.last).collect();
        let (_, &mut bound, _) = all.select_nth_unstable(MAX_NETWORKS / 4);
        self.networks.retain(|_, used| used.last > bound);
    }

    /// Takes one event of a network.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn take_event(&mut self, from: Network, tick: u64) -> Result<(), Refusal> {
        let rate = self.events;
        if self.of(from, tick).events.take(rate, tick) { Ok(()) } else { Err(Refusal::TooFast) }
    }

    /// Takes one sealed letter of a network.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn take_letter(&mut self, from: Network, tick: u64) -> Result<(), Refusal> {
        if self.of(from, tick).letters.take(LETTERS, tick) { Ok(()) } else { Err(Refusal::Letters) }
    }

    /// Takes one attestation of a network.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn take_attestation(&mut self, from: Network, tick: u64) -> Result<(), Refusal> {
        let taken = self.of(from, tick).attestations.take(ATTESTATIONS, tick);
        if taken { Ok(()) } else { Err(Refusal::Attestations) }
    }

    /// Takes one request of a network; `false` if there were too many.
    #[must_use]
    pub fn take_request(&mut self, from: Network, tick: u64) -> bool {
        self.of(from, tick).requests.take(REQUESTS, tick)
    }

    /// Whether a key that has nothing stored may publish from this network.
    ///
    /// # Errors
    ///
    /// When the network has used up its new keys.
    pub fn check_key(
        &mut self,
        from: Network,
        key: &[u8; 32],
        now: u64,
        tick: u64,
    ) -> Result<(), Refusal> {
        let max = self.keys_per_network;
        let used = self.of(from, tick);
        if now >= used.since.saturating_add(DAY) {
            used.keys.clear();
        }
        if used.keys.contains(key) || used.keys.len() < max as usize {
            return Ok(());
        }
        Err(Refusal::NewKeys(max))
    }

    /// Counts a new key that has published.
    pub fn count_key(&mut self, from: Network, key: [u8; 32], now: u64, tick: u64) {
        let used = self.of(from, tick);
        if used.keys.is_empty() {
            used.since = now;
        }
        used.keys.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn network(number: u32) -> Network {
        IpAddr::from(Ipv4Addr::from_bits(number << 8)).into()
    }

    fn key(number: u8) -> [u8; 32] {
        [number; 32]
    }

    #[test]
    fn a_network_has_a_few_new_keys_a_day() {
        let mut quotas = Quotas::new(2, 10);
        for number in 0..2 {
            assert_eq!(quotas.check_key(network(1), &key(number), NOW, 0), Ok(()));
            quotas.count_key(network(1), key(number), NOW, 0);
        }
        assert_eq!(quotas.check_key(network(1), &key(2), NOW, 0), Err(Refusal::NewKeys(2)));
        assert_eq!(quotas.check_key(network(1), &key(1), NOW, 0), Ok(()), "it is not new");
        assert_eq!(quotas.check_key(network(2), &key(2), NOW, 0), Ok(()), "another network");
        let before = quotas.check_key(network(1), &key(2), NOW + DAY - 1, 0);
        assert_eq!(before, Err(Refusal::NewKeys(2)));
        assert_eq!(quotas.check_key(network(1), &key(2), NOW + DAY, 0), Ok(()), "the next day");
    }

    #[test]
    fn events_letters_and_requests_have_rates_of_their_own() {
        let mut quotas = Quotas::new(5, 1);
        let second = 1_000_000_000;
        let taken = (0..100).filter(|_| quotas.take_event(network(1), second).is_ok()).count();
        assert_eq!(taken, 10);
        assert_eq!(quotas.take_event(network(1), 2 * second), Ok(()), "one more in a second");
        assert_eq!(quotas.take_event(network(1), 2 * second), Err(Refusal::TooFast));
        assert_eq!(quotas.take_event(network(2), 2 * second), Ok(()));
        let taken = (0..100).filter(|_| quotas.take_letter(network(1), second).is_ok()).count();
        assert_eq!(taken, 60);
        let taken =
            (0..300).filter(|_| quotas.take_attestation(network(1), second).is_ok()).count();
        assert_eq!(taken, 256);
        let taken = (0..300).filter(|_| quotas.take_request(network(1), second)).count();
        assert_eq!(taken, 200);
    }

    #[test]
    fn the_memory_for_networks_has_a_bound() {
        let mut quotas = Quotas::new(5, 1);
        for number in 0..MAX_NETWORKS as u32 + 10 {
            assert_eq!(quotas.take_event(network(number), u64::from(number)), Ok(()));
        }
        assert!(quotas.networks.len() <= MAX_NETWORKS);
        let newest = network(MAX_NETWORKS as u32 + 9);
        assert!(
            quotas.networks.contains_key(&newest) && !quotas.networks.contains_key(&network(0))
        );
    }
}
