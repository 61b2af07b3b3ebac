//! Which neighbours the kernel is had to confirm, and when. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::routing::{Neighbour, State};

/// The most neighbours beside the gateways that are kept fresh. The one that was asked for longest
/// ago goes first.
const MAX_ASKED: usize = 1024;
/// The most neighbours beside the gateways that the kernel looks for at one time: its table has room
/// for 1024 of each family by default, and the host needs it too (RFC 6583).
const MAX_RESOLVING: usize = 64;
/// For how long a neighbour is kept fresh after it was asked for.
const ASKED_TIMEOUT: Duration = Duration::from_secs(1800);
/// Between two probes of a stale neighbour, which the kernel takes up to 8 s to confirm.
const STALE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two probes of a neighbour that does not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The neighbours that are kept fresh.
#[derive(Debug, Default)]
pub(super) struct Probes {
    asked: BTreeMap<IpAddr, Asked>,
    /// When each was probed last, as far as that can matter still.
    probed: BTreeMap<IpAddr, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    /// Whether no probe has been sent since.
    is_open: bool,
}

impl Probes {
    /// Somebody needs this neighbour's Ethernet address.
    pub(super) fn ask(&mut self, address: IpAddr, now: Instant) {
        self.asked.insert(address, Asked { at: now, is_open: true });
        while self.asked.len() > MAX_ASKED {
            let oldest = self.asked.iter().min_by_key(|(_, asked)| asked.at);
            let Some(oldest) = oldest.map(|(address, _)| *address) else { break };
            self.asked.remove(&oldest);
        }
    }

    /// The neighbours that were asked for and are kept fresh.
    pub(super) fn asked(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        self.asked.retain(|_, asked| now.saturating_duration_since(asked.at) < ASKED_TIMEOUT);
        self.asked.keys().copied().collect()
    }

    /// The neighbours to be probed now, and when to ask again if nothing else happens. `is_on_link`
    /// tells which addresses can be neighbours at all.
    pub(super) fn due(
        &mut self,
        gateways: &[IpAddr],
        is_on_link: impl Fn(IpAddr) -> bool,
        neighbours: &[Neighbour],
        now: Instant,
    ) -> (Vec<IpAddr>, Option<Instant>) {
        self.probed.retain(|_, at| now.saturating_duration_since(*at) < STALE_INTERVAL);
        self.asked.retain(|address, _| is_on_link(*address) || gateways.contains(address));
        let states: BTreeMap<IpAddr, State> =
            neighbours.iter().map(|neighbour| (neighbour.address, neighbour.state)).collect();
        let state_of = |address: &IpAddr| states.get(address).copied().unwrap_or(State::Failed);
        let is_resolving = |address: &&IpAddr| state_of(address) == State::Resolving;
        let mut resolving = self.asked.keys().filter(is_resolving).count();
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        let others = self.asked.keys().filter(|address| !gateways.contains(address));
        let all: Vec<IpAddr> = gateways.iter().chain(others).copied().collect();
        for address in all {
            let is_gateway = gateways.contains(&address);
            let asked = self.asked.get_mut(&address);
            let interval = match state_of(&address) {
                State::Stale => STALE_INTERVAL,
                State::Failed if is_gateway => RETRY_INTERVAL,
                State::Failed if asked.as_ref().is_some_and(|asked| asked.is_open) => {
                    RETRY_INTERVAL
                }
                _ => continue,
            };
            let again = self.probed.get(&address).map(|at| *at + interval);
            if let Some(again) = again.filter(|again| *again > now) {
                next = Some(next.map_or(again, |next| next.min(again)));
                continue;
            }
            if interval == RETRY_INTERVAL && !is_gateway {
                if resolving >= MAX_RESOLVING {
                    let again = now + RETRY_INTERVAL;
                    next = Some(next.map_or(again, |next| next.min(again)));
                    continue;
                }
                resolving += 1;
            }
            if let Some(asked) = asked {
                asked.is_open = false;
            }
            self.probed.insert(address, now);
            due.push(address);
            if is_gateway {
                let again = now + interval;
                next = Some(next.map_or(again, |next| next.min(again)));
            }
        }
        (due, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        IpAddr::from([45, 80, high, low])
    }

    fn neighbour(address: IpAddr, state: State) -> Neighbour {
        Neighbour { address, mac: None, state }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_gateway_is_probed_when_it_is_stale_and_again_until_it_answers() {
        let (mut probes, now, router) = (Probes::default(), Instant::now(), address(1));
        let mut due = |state: Option<State>, after: u32| {
            let known: Vec<_> = state.iter().map(|state| neighbour(router, *state)).collect();
            let now = now + after * SECOND;
            let (due, next) = probes.due(&[router], |_| false, &known, now);
            (!due.is_empty(), next.map(|next| (next - now).as_secs()))
        };
        assert_eq!(due(Some(State::Fresh), 0), (false, None));
        assert_eq!(due(Some(State::Stale), 1), (true, Some(5)));
        assert_eq!(due(Some(State::Stale), 2), (false, Some(4)));
        assert_eq!(due(Some(State::Stale), 6), (true, Some(5)));
        // The kernel asks it, and gives up.
        assert_eq!(due(Some(State::Resolving), 8), (false, None));
        assert_eq!(due(Some(State::Failed), 9), (true, Some(1)));
        assert_eq!(due(None, 9), (false, Some(1)));
        assert_eq!(due(None, 10), (true, Some(1)));
        assert_eq!(due(Some(State::Kept), 20), (false, None));
    }

    #[test]
    fn a_neighbour_that_was_asked_for_is_kept_fresh_and_a_missing_one_is_sought_once() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        let (near, silent, far) = (address(7), address(8), address(9));
        for address in [near, silent, far] {
            probes.ask(address, now);
        }
        let known = [neighbour(near, State::Stale), neighbour(address(10), State::Stale)];
        let is_on_link = |address| address != far;
        assert_eq!(probes.due(&[], is_on_link, &known, now).0, [near, silent]);
        assert_eq!(probes.asked(now), BTreeSet::from([near, silent]));
        let later = now + 6 * SECOND;
        assert_eq!(probes.due(&[], is_on_link, &known, later).0, [near]);
        probes.ask(silent, later);
        assert_eq!(probes.due(&[], is_on_link, &known, later).0, [silent]);
        // It is asked for again at once, and is sought a second after the last time.
        probes.ask(silent, later);
        assert_eq!(probes.due(&[], is_on_link, &known, later), (Vec::new(), Some(later + SECOND)));
        assert_eq!(probes.asked(now + ASKED_TIMEOUT), BTreeSet::from([silent]));
    }

    #[test]
    fn a_scan_of_the_link_does_not_fill_the_kernels_table() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        for last in 0..4000 {
            probes.ask(address(last), now + u32::from(last) * Duration::from_millis(1));
        }
        let now = now + 4 * SECOND;
        assert_eq!(probes.asked(now).len(), MAX_ASKED);
        let (first, next) = probes.due(&[address(1)], |_| true, &[], now);
        assert_eq!(
            (first.len(), first[0], next),
            (MAX_RESOLVING + 1, address(1), Some(now + SECOND))
        );
        let resolving: Vec<_> =
            first.iter().map(|address| neighbour(*address, State::Resolving)).collect();
        assert_eq!(
            probes.due(&[address(1)], |_| true, &resolving, now + SECOND).0,
            Vec::<IpAddr>::new()
        );
        let failed: Vec<_> =
            first.iter().map(|address| neighbour(*address, State::Failed)).collect();
        let (second, _) = probes.due(&[address(1)], |_| true, &failed, now + 2 * SECOND);
        assert_eq!(second.len(), MAX_RESOLVING + 1);
        assert!(second[1..].iter().all(|address| !first[1..].contains(address)));
    }
}
