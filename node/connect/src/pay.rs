//! When to pay, and how much at most. The decisions are pure; a [`Payer`] carries them out.

mod promises;

use std::{future::Future, pin::Pin, time::Duration};

use serde::Deserialize;
use tokio::time::timeout;

use crate::{clock::SECOND, gateway::Gateway};

pub use promises::Promises;

/// The share of the last credit at which more is bought: a quarter.
const QUARTER: u64 = 4;
/// The share of the last credit at which the next payment is prepared: a half.
const HALF: u64 = 2;
/// The share of the last credit by which the sum of all must rise for another one: an eighth.
const LEAST_RISE: u64 = 8;
/// Between two tries, and between two payments where a mint or a shop is behind them, in nanoseconds.
const MIN_INTERVAL: u64 = 10 * SECOND;
/// A mint that takes longer is asked again later: who pays has other things to look after.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is left for fewer seconds than these is brief: a preparation may fail once.
const BRIEF_SECONDS: u64 = 20;

/// What a session has left, as the gateway says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Left {
    /// `open`, `paused` or `closed`.
    pub state: String,
    /// Why it is paused.
    #[serde(default)]
    pub paused_for: Option<String>,
    /// Billed bytes so far.
    pub used_bytes: u64,
    /// Bytes that it may still use; null without a limit.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Seconds that it may still use; null without a limit.
    #[serde(default)]
    pub seconds: Option<u64>,
}

impl Left {
    /// Whether the session waits for money.
    #[must_use]
    pub fn is_out_of_credit(&self) -> bool {
        self.state == "paused" && self.paused_for.as_deref() == Some("credit")
    }
}

/// What to do about the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Nothing,
    /// Pay, at most this much of the budget.
    Pay {
        /// In the payer's unit.
        at_most: u64,
    },
    /// The session is paused, and nothing may be paid any more.
    OutOfMoney,
}

/// One way to pay.
pub trait Payer {
    /// What its amounts are, for messages: for example `sat`.
    fn unit(&self) -> &str;

    /// Whether any node can be paid with it, and not only the exits of the user's files.
    fn is_for_any_node(&self) -> bool {
        true
    }

    /// The time between two payments, in nanoseconds.
    fn min_interval(&self) -> u64 {
        MIN_INTERVAL
    }

    /// Buys more of the session at this gateway, for at most this much. Says what it cost, which is
    /// never more; 0 if there is nothing to pay yet.
    fn top_up<'a>(&'a mut self, gateway: &'a Gateway, at_most: u64) -> TopUp<'a>;

    /// Gets ready what the next [`Payer::top_up`] needs from outside: a session that is paused reaches
    /// the gateway alone.
    fn prepare<'a>(&'a mut self, gateway: &'a Gateway, at_most: u64) -> Preparation<'a> {
        let _ = (gateway, at_most);
        Box::pin(async { Ok(()) })
    }
}

/// A preparation under way.
pub type Preparation<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// A node asks for more than is left of the budget, and takes no part of it.
#[derive(Debug, thiserror::Error)]
#[error("the node asks for {asked} {unit} more, and {left} are left of the budget")]
pub struct OverBudget {
    /// What it asks for.
    pub asked: String,
    /// What is left.
    pub left: u64,
    /// The payer's unit.
    pub unit: &'static str,
}

/// A payment under way: what it cost in the end. [`OverBudget`] is the error after which no payment to
/// this node will do.
pub type TopUp<'a> = Pin<Box<dyn Future<Output = anyhow::Result<u64>> + 'a>>;

/// When to pay one node. The budget is that of the whole connection.
#[derive(Clone, Debug, Default)]
pub struct PayLoop {
    /// What the session was given in all so far, in bytes.
    given_bytes: Option<u64>,
    /// What it was given last.
    credit_bytes: u64,
    /// The most that it had left since the last payment.
    full_seconds: u64,
    /// When the next payment may be made.
    next_payment: u64,
    /// Whether the next payment is prepared.
    is_ready: bool,
    /// When it is tried again.
    next_try: u64,
    /// Whether what is left of the budget is too little for this node.
    is_over_budget: bool,
    /// When the node was last asked, and what it had billed then, in bytes.
    last: Option<(u64, u64)>,
    /// Bytes per second that were billed between the last two answers.
    rate: u64,
}

impl PayLoop {
    /// Looks at what is left.
    pub fn decide(&mut self, now: u64, left: &Left, budget: u64) -> Decision {
        let budget = if self.is_over_budget { 0 } else { budget };
        self.notice_credit(left);
        self.notice_rate(now, left);
        self.full_seconds = self.full_seconds.max(left.seconds.unwrap_or_default());
        match left.is_out_of_credit() || self.is_down_to(left, QUARTER) {
            false => Decision::Nothing,
            true if budget == 0 && left.is_out_of_credit() => Decision::OutOfMoney,
            true if budget == 0 => Decision::Nothing,
            true if now < self.next_payment => Decision::Nothing,
            true => {
                self.next_payment = now.saturating_add(MIN_INTERVAL);
                // What comes next is a new credit, with a quarter of its own.
                self.full_seconds = 0;
                (self.is_ready, self.next_try) = (false, 0);
                Decision::Pay { at_most: budget }
            }
        }
    }
}

impl PayLoop {
    /// Notes that a payment was made, by which the next one may come earlier.
    pub fn paid(&mut self, now: u64, payer: &dyn Payer) {
        self.next_payment = now.saturating_add(payer.min_interval());
    }

    /// Notes why a payment was not made. Another one is tried later, if that can help.
    pub fn failed(&mut self, error: &anyhow::Error) {
        self.is_over_budget |= error.is::<OverBudget>();
    }

    /// Prepares the next payment when it is time to. Call it after [`PayLoop::decide`] said
    /// [`Decision::Nothing`]. What is not ready then is paid later, as far as the mint is reached.
    pub async fn prepare(
        &mut self,
        now: u64,
        payer: &mut dyn Payer,
        gateway: &Gateway,
        left: &Left,
        budget: u64,
    ) {
        if self.wants_preparation(now, left, budget) {
            let prepared = timeout(PREPARE_TIMEOUT, payer.prepare(gateway, budget)).await;
            self.prepared(now, matches!(prepared, Ok(Ok(()))));
        }
    }

    /// Whether the next payment is to be prepared: from a half on, so that little waits in vain for
    /// somebody who stops; or when the rest lasts for little longer than a slow mint takes.
    fn wants_preparation(&self, now: u64, left: &Left, budget: u64) -> bool {
        budget > 0
            && !self.is_ready
            && now >= self.next_try
            && (self.is_down_to(left, HALF) || self.lasts_briefly(left))
    }

    /// Notes what came of preparing it.
    fn prepared(&mut self, now: u64, is_ready: bool) {
        (self.is_ready, self.next_try) = (is_ready, now.saturating_add(MIN_INTERVAL));
    }

    /// Whether an open session has this share of its last credit left, or less.
    fn is_down_to(&self, left: &Left, share: u64) -> bool {
        let is_low = |left: Option<u64>, full: u64| left.is_some_and(|left| left <= full / share);
        left.state == "open"
            && (is_low(left.bytes, self.credit_bytes) || is_low(left.seconds, self.full_seconds))
    }

    /// Whether the rest of an open session is used up soon, at the present rate.
    fn lasts_briefly(&self, left: &Left) -> bool {
        let rest = left.bytes.filter(|_| left.state == "open");
        rest.is_some_and(|bytes| bytes < self.rate.saturating_mul(BRIEF_SECONDS))
    }

    /// Notices how fast the session is used.
    fn notice_rate(&mut self, now: u64, left: &Left) {
        if let Some((at, used)) = self.last {
            let Some(passed) = now.checked_sub(at).filter(|passed| *passed >= SECOND / 4) else {
                return;
            };
            let more = u128::from(left.used_bytes.saturating_sub(used));
            let rate = more * u128::from(SECOND) / u128::from(passed);
            self.rate = u64::try_from(rate).unwrap_or(u64::MAX);
        }
        self.last = Some((now, left.used_bytes));
    }

    /// Notices that the session was given more. What is left does not tell: much of it may be used
    /// up between two looks.
    fn notice_credit(&mut self, left: &Left) {
        let Some(bytes) = left.bytes else { return };
        let given = left.used_bytes.saturating_add(bytes);
        let more = self.given_bytes.map_or(bytes, |before| given.saturating_sub(before));
        // Both numbers move while the node reads them.
        if self.given_bytes.is_none() || more > self.credit_bytes / LEAST_RISE {
            self.given_bytes = Some(given);
            self.credit_bytes = more;
        }
    }
}

/// Voucher codes, used one by one. Its unit is one voucher.
#[derive(Debug, Default)]
pub struct Vouchers(Vec<String>);

impl Vouchers {
    /// These codes, the first first.
    #[must_use]
    pub fn new(mut codes: Vec<String>) -> Self {
        codes.reverse();
        Self(codes)
    }
}

impl Payer for Vouchers {
    fn unit(&self) -> &'static str {
        "vouchers"
    }

    fn is_for_any_node(&self) -> bool {
        false
    }

    fn top_up<'a>(&'a mut self, gateway: &'a Gateway, at_most: u64) -> TopUp<'a> {
        Box::pin(async move {
            let Some(code) = self.0.last().filter(|_| at_most > 0) else {
                anyhow::bail!("there is no voucher left. Fix: give another one with --voucher");
            };
            gateway.give_voucher(code).await?;
            self.0.pop();
            Ok(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: Option<u64>, seconds: Option<u64>) -> Left {
        Left { state: "open".into(), paused_for: None, used_bytes: 0, bytes, seconds }
    }

    /// A session that has used so much of what it was given.
    fn used(used_bytes: u64, given: u64) -> Left {
        Left { used_bytes, ..open(Some(given - used_bytes), None) }
    }

    fn paused() -> Left {
        Left {
            state: "paused".into(),
            paused_for: Some("credit".into()),
            bytes: Some(0),
            ..Left::default()
        }
    }

    #[test]
    fn a_payment_is_prepared_once_when_a_half_is_left_and_again_after_it() {
        let mut pay = PayLoop::default();
        let at = |pay: &mut PayLoop, now: u64, used_bytes: u64, given: u64, budget: u64| {
            let left = used(used_bytes, given);
            (pay.decide(now, &left, budget), pay.wants_preparation(now, &left, budget))
        };
        assert_eq!(at(&mut pay, 1, 0, 1000, 5), (Decision::Nothing, false));
        assert_eq!(at(&mut pay, 2, 500, 1000, 0), (Decision::Nothing, false), "no money");
        assert_eq!(at(&mut pay, 3, 500, 1000, 5), (Decision::Nothing, true));
        pay.prepared(3, false);
        assert_eq!(at(&mut pay, 4, 500, 1000, 5), (Decision::Nothing, false), "not at once again");
        assert!(!pay.wants_preparation(3 + MIN_INTERVAL, &paused(), 5), "no mint is reached");
        assert_eq!(at(&mut pay, 3 + MIN_INTERVAL, 500, 1000, 5), (Decision::Nothing, true));
        pay.prepared(3 + MIN_INTERVAL, true);
        assert_eq!(at(&mut pay, 9 * MIN_INTERVAL, 700, 1000, 5), (Decision::Nothing, false));
        let paid = at(&mut pay, 10 * MIN_INTERVAL, 800, 1000, 5);
        assert_eq!(paid.0, Decision::Pay { at_most: 5 });
        assert_eq!(at(&mut pay, 11 * MIN_INTERVAL, 800, 2000, 5), (Decision::Nothing, false));
        assert_eq!(at(&mut pay, 12 * MIN_INTERVAL, 1500, 2000, 5), (Decision::Nothing, true));
    }

    #[test]
    fn a_payment_is_prepared_earlier_for_who_uses_much() {
        let wants_after = |used_bytes: u64| {
            let mut pay = PayLoop::default();
            assert_eq!(pay.decide(0, &used(0, 1000), 5), Decision::Nothing);
            // Two looks at nearly the same time say nothing about a rate.
            assert_eq!(pay.decide(SECOND / 10, &used(used_bytes / 2, 1000), 5), Decision::Nothing);
            let left = used(used_bytes, 1000);
            assert_eq!(pay.decide(SECOND, &left, 5), Decision::Nothing);
            pay.wants_preparation(SECOND, &left, 5)
        };
        assert!(!wants_after(1000 / (BRIEF_SECONDS + 2)));
        assert!(wants_after(1000 / (BRIEF_SECONDS - 1)));
    }

    #[test]
    fn a_quarter_left_is_time_to_pay() {
        let mut pay = PayLoop::default();
        assert_eq!(pay.decide(0, &used(0, 1000), 5), Decision::Nothing);
        assert_eq!(pay.decide(1, &used(749, 1000), 5), Decision::Nothing);
        assert_eq!(pay.decide(2, &used(750, 1000), 5), Decision::Pay { at_most: 5 });
        let mut now = MIN_INTERVAL + 2;
        assert_eq!(pay.decide(now, &used(800, 2200), 4), Decision::Nothing);
        assert_eq!(pay.decide(now, &used(1800, 2200), 4), Decision::Nothing);
        assert_eq!(pay.decide(now, &used(1900, 2200), 4), Decision::Pay { at_most: 4 });
        // A smaller one.
        now += MIN_INTERVAL;
        assert_eq!(pay.decide(now, &used(2200, 2600), 3), Decision::Nothing);
        assert_eq!(pay.decide(now, &used(2500, 2600), 3), Decision::Pay { at_most: 3 });
    }

    #[test]
    fn a_credit_that_is_nearly_used_up_at_the_next_look_counts_in_full() {
        let mut pay = PayLoop::default();
        assert_eq!(pay.decide(0, &used(0, 1000), 5), Decision::Nothing);
        assert_eq!(pay.decide(1, &used(800, 1000), 5), Decision::Pay { at_most: 5 });
        let next = used(1900, 2000);
        assert_eq!(pay.decide(MIN_INTERVAL + 1, &next, 4), Decision::Pay { at_most: 4 });
    }

    #[test]
    fn time_counts_as_bytes_do_and_no_limit_costs_nothing() {
        let mut pay = PayLoop::default();
        assert_eq!(pay.decide(0, &open(None, Some(3600)), 5), Decision::Nothing);
        assert_eq!(pay.decide(1, &open(None, Some(900)), 5), Decision::Pay { at_most: 5 });
        let mut pay = PayLoop::default();
        assert_eq!(pay.decide(0, &open(None, None), 5), Decision::Nothing);
    }

    #[test]
    fn without_budget_a_paused_session_is_out_of_money_and_an_open_one_is_used_up() {
        let mut pay = PayLoop::default();
        assert_eq!(pay.decide(0, &paused(), 0), Decision::OutOfMoney);
        assert_eq!(pay.decide(0, &open(Some(0), None), 0), Decision::Nothing);
        assert_eq!(pay.decide(0, &paused(), 3), Decision::Pay { at_most: 3 });
        assert_eq!(pay.decide(1, &paused(), 3), Decision::Nothing, "not again at once");
        assert_eq!(pay.decide(MIN_INTERVAL, &paused(), 2), Decision::Pay { at_most: 2 });
    }

    #[test]
    fn a_node_that_asks_for_more_than_is_left_is_not_asked_again() {
        let mut pay = PayLoop::default();
        pay.decide(0, &used(0, 1000), 5);
        assert_eq!(pay.decide(1, &used(900, 1000), 5), Decision::Pay { at_most: 5 });
        pay.failed(&anyhow::anyhow!("no answer"));
        let later = 1 + MIN_INTERVAL;
        assert_eq!(pay.decide(later, &used(900, 1000), 5), Decision::Pay { at_most: 5 });
        pay.failed(&OverBudget { asked: "9".into(), left: 5, unit: "wei" }.into());
        assert_eq!(pay.decide(2 * later, &used(900, 1000), 5), Decision::Nothing);
        assert_eq!(pay.decide(2 * later, &paused(), 5), Decision::OutOfMoney);
    }

    #[test]
    fn a_payer_without_a_mint_may_pay_again_sooner() {
        struct Quick;
        impl Payer for Quick {
            fn unit(&self) -> &'static str {
                "wei"
            }
            fn min_interval(&self) -> u64 {
                SECOND
            }
            fn top_up<'a>(&'a mut self, _: &'a Gateway, _: u64) -> TopUp<'a> {
                Box::pin(async { Ok(1) })
            }
        }
        let mut pay = PayLoop::default();
        assert_eq!(pay.decide(0, &paused(), 5), Decision::Pay { at_most: 5 });
        assert_eq!(pay.decide(SECOND, &paused(), 5), Decision::Nothing, "it has failed");
        pay.paid(0, &Quick);
        assert_eq!(pay.decide(SECOND - 1, &paused(), 5), Decision::Nothing);
        assert_eq!(pay.decide(SECOND, &paused(), 5), Decision::Pay { at_most: 5 });
    }

    #[test]
    fn a_session_that_the_operator_paused_is_not_paid_for() {
        let mut pay = PayLoop::default();
        let left = Left { paused_for: Some("operator".into()), ..paused() };
        assert_eq!(pay.decide(0, &left, 5), Decision::Nothing);
    }
}
