//! What a connection pays: more of the exit in use, and another exit for when that one fails.

use super::{
    connection::{Connection, place},
    live::{self, Said},
};
use crate::{change_over::Cause, receipt::store::Store};

impl Connection<'_> {
    /// Asks the active node what is left, compares its bill, and pays.
    pub(super) async fn pay(&mut self, now: u64) -> anyhow::Result<()> {
        let Some((slot, _)) = self.change.active() else { return Ok(()) };
        let Some(Some(live)) = self.tunnels.get_mut(place(slot)) else { return Ok(()) };
        let Some(Said { left, receipt }) = live.poll(now).await else { return Ok(()) };
        (self.status.left_bytes, self.status.left_seconds) = (left.bytes, left.seconds);
        self.status.billed_bytes = Some(left.used_bytes);
        match receipt.map(|given| live.receive(given, left.used_bytes)) {
            None | Some(live::Receipt::Known) => {}
            Some(live::Receipt::Missing) => {
                let name = &live.name;
                (self.say)(&format!(
                    "{name} gives no usage receipts, although its configuration names a key for them."
                ));
            }
            Some(live::Receipt::New(verified)) => {
                if let Err(error) = Store::default().save(&verified) {
                    (self.say)(&format!("{error:#}"));
                }
                self.status.receipt = Some(*verified);
            }
            Some(live::Receipt::Wrong(fault)) => {
                return self.failed(slot, Cause::Receipt, &format!(": {fault}")).await;
            }
        }
        let budget = if self.options.payer.is_some() { self.options.budget } else { 0 };
        match live.account(now, &left, budget) {
            live::Account::Good => {
                if let (Some(gateway), Some(payer)) = (&live.gateway, &mut self.options.payer) {
                    live.pay.prepare(now, payer.as_mut(), gateway, &left, budget).await;
                }
                Ok(())
            }
            live::Account::Cheats(text) => self.failed(slot, Cause::Bill, &text).await,
            live::Account::OutOfMoney => self.failed(slot, Cause::OutOfMoney, "").await,
            live::Account::Pay { at_most } => {
                let (Some(gateway), Some(payer)) = (&live.gateway, &mut self.options.payer) else {
                    return Ok(());
                };
                match payer.top_up(gateway, at_most).await {
                    Ok(cost) => {
                        live.pay.paid(now, payer.as_ref());
                        if cost == 0 {
                            return Ok(());
                        }
                        self.options.budget = self.options.budget.saturating_sub(cost);
                        let text = format!(
                            "Paid {cost} {} to {}. {} left of the budget.",
                            payer.unit(),
                            live.name,
                            self.options.budget
                        );
                        (self.say)(&text);
                    }
                    Err(error) => {
                        live.pay.failed(&error);
                        (self.say)(&format!("cannot pay {}: {error:#}", live.name));
                    }
                }
                Ok(())
            }
        }
    }

    /// Buys another exit by the tunnel of the present one, if there is none left to change to.
    pub(super) fn spare(&mut self, now: u64) {
        let budget = &mut self.options.budget;
        let is_alone = self.change.active().is_some() && self.change.spares() == 0;
        if is_alone && !self.change.is_trying() {
            self.spares.begin(now, budget);
        }
        match self.spares.ended(budget) {
            None => {}
            Some(Ok(bought)) => {
                let name = &bought.candidate.name;
                let text = format!("Bought {name} too, to change to it if this exit fails.");
                (self.say)(&text);
                self.options.candidates.push(bought.candidate);
                self.change.add();
            }
            Some(Err(error)) => {
                (self.say)(&format!("There is no other exit to change to: {error:#}"));
            }
        }
    }
}
