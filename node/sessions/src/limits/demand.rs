//! What each session would take of the node's rate, seen from its account.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use weir_common::{Account, Slot, wire::DATA_OVERHEAD};

use weir_accounts::Accounts;

/// For so long after a drop for its rate, a session counts as wanting any amount: a connection that
/// has just backed off is not content.
const HUNGRY: Duration = Duration::from_millis(800);
/// Over so much time demand is averaged.
const SMOOTHING: Duration = Duration::from_millis(150);
/// Below this, in bytes per second, a session is silent.
const SILENT: f64 = 100.0;

/// Up and down.
type Both<T> = [T; 2];

#[derive(Clone, Copy, Debug)]
struct Session {
    slot: Slot,
    id: u64,
    passed: Both<u64>,
    limited: Both<u64>,
    demand: Both<f64>,
    /// How much longer it is hungry.
    hungry: Both<Duration>,
}

/// Follows the accounts of all sessions.
#[derive(Debug, Default)]
pub struct Demands {
    sessions: Vec<Session>,
}

/// What a session has had so far, in bytes of inner packets (with padding).
fn passed(account: &Account) -> Both<u64> {
    let metered = &account.metered;
    let inner = |bytes: u64, packets: u64| bytes.saturating_sub(packets * DATA_OVERHEAD as u64);
    [
        inner(metered.bytes_up.load(Relaxed), metered.packets_up.load(Relaxed)),
        inner(metered.bytes_down.load(Relaxed), metered.packets_down.load(Relaxed)),
    ]
}

fn limited(account: &Account) -> Both<u64> {
    let worker = &account.worker;
    [worker.limited_up.load(Relaxed), worker.limited_down.load(Relaxed)]
}

impl Demands {
    /// Finds the sessions that there are. Those known stay known.
    pub fn refresh(&mut self, accounts: &Accounts) {
        let named = |slot: Slot| {
            let account = accounts.get(slot)?;
            let id = account.control.session.load(Relaxed);
            (id != 0).then_some((slot, id, account))
        };
        let mut known = std::mem::take(&mut self.sessions).into_iter().peekable();
        for (slot, id, account) in (0..accounts.len()).map(Slot).filter_map(named) {
            while known.next_if(|session| session.slot < slot).is_some() {}
            let same = known.next_if(|session| session.slot == slot && session.id == id);
            let new = || Session {
                slot,
                id,
                passed: passed(account),
                limited: limited(account),
                demand: [0.0; 2],
                hungry: [Duration::ZERO; 2],
            };
            self.sessions.push(same.unwrap_or_else(new));
        }
    }

    /// What each session would take, up and down, in bytes of inner packets per second, now that
    /// `elapsed` has passed since the last time. Silent sessions are left out.
    pub fn measure(&mut self, accounts: &Accounts, elapsed: Duration) -> Both<Vec<u64>> {
        let mut wants = [Vec::new(), Vec::new()];
        let seconds = elapsed.as_secs_f64().max(1e-6);
        let weight = (seconds / SMOOTHING.as_secs_f64()).min(1.0);
        for session in &mut self.sessions {
            let Some(account) = accounts.get(session.slot) else { continue };
            let (passed, limited) = (passed(account), limited(account));
            let control = &account.control;
            let caps = [control.rate_up.load(Relaxed), control.rate_down.load(Relaxed)];
            for way in 0..2 {
                let more = passed[way].saturating_sub(session.passed[way]);
                let refused = limited[way].saturating_sub(session.limited[way]);
                let now = more.saturating_add(refused) as f64 / seconds;
                session.demand[way] += (now - session.demand[way]) * weight;
                session.hungry[way] = match refused {
                    0 => session.hungry[way].saturating_sub(elapsed),
                    _ => HUNGRY,
                };
                let is_hungry = session.hungry[way] > Duration::ZERO;
                if session.demand[way] < SILENT && !is_hungry {
                    continue;
                }
                let cap = if caps[way] == 0 { u64::MAX } else { caps[way] };
                let want = if is_hungry { u64::MAX } else { session.demand[way] as u64 };
                wants[way].push(want.min(cap));
            }
            (session.passed, session.limited) = (passed, limited);
        }
        wants
    }

    /// How many sessions are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use weir_common::account::Counters;

    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    fn accounts(ids: &[u64]) -> Accounts {
        let accounts = Accounts::private(8).expect("memory");
        for (slot, id) in ids.iter().enumerate() {
            let account = accounts.get(Slot(slot as u32)).expect("a slot");
            account.assign(*id, &Counters::default());
        }
        accounts
    }

    fn account(accounts: &Accounts, slot: u32) -> &Account {
        accounts.get(Slot(slot)).expect("a slot")
    }

    #[test]
    fn who_was_refused_wants_any_amount_for_a_while_but_no_more_than_its_own_rate() {
        let accounts = accounts(&[11, 12, 13]);
        let mut demands = Demands::default();
        demands.refresh(&accounts);
        account(&accounts, 0).worker.limited_down.store(1, Relaxed);
        account(&accounts, 1).worker.limited_down.store(1, Relaxed);
        account(&accounts, 1).set_rates(0, 5000);
        assert_eq!(demands.measure(&accounts, TICK), [vec![], vec![u64::MAX, 5000]]);
        assert_eq!(demands.measure(&accounts, TICK), [vec![], vec![u64::MAX, 5000]]);
        assert!(demands.measure(&accounts, HUNGRY).iter().all(Vec::is_empty), "it gave up");
    }

    #[test]
    fn demand_is_the_average_of_what_passed_without_overhead() {
        let accounts = accounts(&[11]);
        let mut demands = Demands::default();
        demands.refresh(&accounts);
        let metered = &account(&accounts, 0).metered;
        for _ in 0..200 {
            metered.bytes_up.fetch_add(20_000 + 32 * 14, Relaxed);
            metered.packets_up.fetch_add(14, Relaxed);
            demands.measure(&accounts, TICK);
        }
        let [up, down] = demands.measure(&accounts, Duration::from_nanos(1));
        assert!((990_000..=1_000_000).contains(&up[0]), "{up:?}");
        assert!(down.is_empty());
    }

    #[test]
    fn sessions_come_and_go_and_a_slots_next_session_begins_anew() {
        let accounts = accounts(&[11, 12]);
        let mut demands = Demands::default();
        demands.refresh(&accounts);
        account(&accounts, 0).worker.limited_up.store(1, Relaxed);
        account(&accounts, 1).worker.limited_up.store(1, Relaxed);
        demands.measure(&accounts, TICK);
        account(&accounts, 0).assign(21, &Counters { bytes_up: 1 << 40, ..Counters::default() });
        account(&accounts, 3).assign(14, &Counters::default());
        demands.refresh(&accounts);
        assert_eq!(demands.len(), 3);
        assert_eq!(demands.measure(&accounts, TICK), [vec![u64::MAX], vec![]], "the known one");
    }
}
