//! When to pay, and how much at most. Pure; a [`Payer`] does it.

use std::{future::Future, pin::Pin};

use serde::Deserialize;

use crate::{clock::SECOND, gateway::Gateway};

/// The share of the last credit at which more is bought: a quarter.
const QUARTER: u64 = 4;
/// Between two payments, or two tries, in nanoseconds.
const MIN_INTERVAL: u64 = 10 * SECOND;

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

    /// Buys more of the session at this gateway, for at most this much. Says what it cost, which is
    /// never more.
    fn top_up<'a>(&'a mut self, gateway: &'a Gateway, at_most: u64) -> TopUp<'a>;
}

/// A payment under way: what it cost in the end.
pub type TopUp<'a> = Pin<Box<dyn Future<Output = anyhow::Result<u64>> + 'a>>;

/// When to pay one node. The budget is that of the whole connection.
#[derive(Clone, Debug, Default)]
pub struct PayLoop {
    full_bytes: u64,
    full_seconds: u64,
    last: Option<u64>,
}

impl PayLoop {
    /// Looks at what is left.
    pub fn decide(&mut self, now: u64, left: &Left, budget: u64) -> Decision {
        self.full_bytes = self.full_bytes.max(left.bytes.unwrap_or_default());
        self.full_seconds = self.full_seconds.max(left.seconds.unwrap_or_default());
        let is_low = |left: Option<u64>, full: u64| left.is_some_and(|left| left <= full / QUARTER);
        let needs = left.is_out_of_credit()
            || left.state == "open"
                && (is_low(left.bytes, self.full_bytes) || is_low(left.seconds, self.full_seconds));
        match needs {
            false => Decision::Nothing,
            true if budget == 0 && left.is_out_of_credit() => Decision::OutOfMoney,
            true if budget == 0 => Decision::Nothing,
            true if self.last.is_some_and(|last| now.saturating_sub(last) < MIN_INTERVAL) => {
                Decision::Nothing
            }
            true => {
                self.last = Some(now);
                // What comes next is a new credit, with a quarter of its own.
                (self.full_bytes, self.full_seconds) = (0, 0);
                Decision::Pay { at_most: budget }
            }
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

    fn paused() -> Left {
        Left {
            state: "paused".into(),
            paused_for: Some("credit".into()),
            bytes: Some(0),
            ..Left::default()
        }
    }

    #[test]
    fn a_quarter_left_is_time_to_pay() {
        let mut pay = PayLoop::default();
        assert_eq!(pay.decide(0, &open(Some(1000), None), 5), Decision::Nothing);
        assert_eq!(pay.decide(1, &open(Some(251), None), 5), Decision::Nothing);
        assert_eq!(pay.decide(2, &open(Some(250), None), 5), Decision::Pay { at_most: 5 });
        assert_eq!(pay.decide(MIN_INTERVAL + 2, &open(Some(1200), None), 4), Decision::Nothing);
        let low = open(Some(300), None);
        assert_eq!(pay.decide(2 * MIN_INTERVAL + 2, &low, 4), Decision::Pay { at_most: 4 });
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
    fn a_session_that_the_operator_paused_is_not_paid_for() {
        let mut pay = PayLoop::default();
        let left = Left { paused_for: Some("operator".into()), ..paused() };
        assert_eq!(pay.decide(0, &left, 5), Decision::Nothing);
    }
}
