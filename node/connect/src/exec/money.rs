//! Pays a node on while a program runs, from inside its namespace: what asks the mint goes through the
//! tunnel too.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use tokio::{sync::watch, time::sleep};

use super::hide_resolvers;
use crate::{
    clock, firewall,
    gateway::Gateway,
    namespace,
    pay::{Decision, Left, PayLoop, Payer},
};

/// Between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Who pays the node on.
pub struct Money {
    payer: Box<dyn Payer + Send>,
    /// The most to pay, in the payer's unit.
    budget: u64,
    pay: PayLoop,
}

impl Money {
    /// Pays by `payer`, for at most `budget` in its unit.
    #[must_use]
    pub fn new(payer: Box<dyn Payer + Send>, budget: u64) -> Self {
        Self { payer, budget, pay: PayLoop::default() }
    }

    /// Pays when a quarter is left, until `ended` changes. For a thread in the tunnel's namespace.
    pub(super) fn pay_on(
        mut self,
        gateway: &Gateway,
        resolvers: &[IpAddr],
        mut ended: watch::Receiver<bool>,
        say: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<()> {
        namespace::leave_mounts().context("cannot make a mount namespace")?;
        hide_resolvers(resolvers).context("cannot use the tunnel's resolver")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut is_told, mut is_held) = (false, false);
            while !*ended.borrow() {
                let left = gateway.left().await;
                // A node takes few datagrams of a paused session, whatever is in them, and may not
                // even get the question.
                let hold = left.as_ref().map_or(true, Left::is_out_of_credit);
                if hold != is_held {
                    let to = hold.then(|| gateway.address().ip());
                    match firewall::hold(gateway.interface(), to) {
                        Ok(()) => is_held = hold,
                        Err(error) => say(&format!("cannot hold the program back: {error:#}")),
                    }
                }
                // It answers again later, or the program finds out that the tunnel is dead.
                if let Ok(left) = left {
                    match self.pay.decide(clock::now(), &left, self.budget) {
                        Decision::Nothing => {
                            is_told &= left.is_out_of_credit();
                            let (payer, budget) = (self.payer.as_mut(), self.budget);
                            self.pay.prepare(clock::now(), payer, gateway, &left, budget).await;
                        }
                        Decision::OutOfMoney if is_told => {}
                        Decision::OutOfMoney => {
                            is_told = true;
                            say("The session and the budget are used up: nothing passes any more.");
                        }
                        Decision::Pay { at_most } => self.pay(gateway, at_most, say).await,
                    }
                }
                tokio::select! {
                    () = sleep(LOOK_INTERVAL) => {}
                    _ = ended.changed() => {}
                }
            }
        });
        Ok(())
    }

    async fn pay(&mut self, gateway: &Gateway, at_most: u64, say: &(dyn Fn(&str) + Sync)) {
        match self.payer.top_up(gateway, at_most).await {
            Ok(cost) => {
                self.pay.paid(clock::now(), self.payer.as_ref());
                if cost == 0 {
                    return;
                }
                self.budget = self.budget.saturating_sub(cost);
                let (unit, left) = (self.payer.unit(), self.budget);
                say(&format!("Paid {cost} {unit}. {left} left of the budget."));
            }
            Err(error) => {
                self.pay.failed(&error);
                say(&format!("cannot pay: {error:#}"));
            }
        }
    }
}
