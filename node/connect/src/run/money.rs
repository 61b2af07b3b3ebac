//! What a connection pays: more of the exit in use and of the entry, and another exit for when that
//! one fails.

use std::{mem, pin::pin, time::Duration};

use tokio::time::sleep;

use super::{
    connection::Connection,
    entry::Role,
    live::{self, Live, Observed, Said},
};
use crate::{
    ENTRY_INTERFACE, Slot,
    change_over::Cause,
    clock,
    firewall::Held,
    pay::{Left, Payer},
    receipt::{Verified, store::Store},
    source::Candidate,
    spare::Bought,
};

/// Between two looks at a node while a payment waits for it, or for a mint behind it.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Which node is asked and paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Exit(Slot),
    Entry,
}

/// What a node said about its session, and what became of it.
struct Settled {
    left: Left,
    receipt: Option<Verified>,
    /// Why the node is to be left, and what more there is to say.
    fault: Option<(Cause, String)>,
}

impl Connection<'_> {
    /// Asks the active node what is left, compares its bill, and pays; and then the entry in the same
    /// way.
    pub(super) async fn pay(&mut self, now: u64) -> anyhow::Result<()> {
        let held = self.held();
        self.pay_exit(now).await?;
        self.pay_entry(now).await?;
        if self.held() != held {
            self.load()?;
            self.begin_again(&held);
        }
        Ok(())
    }

    async fn pay_exit(&mut self, now: u64) -> anyhow::Result<()> {
        let Some((slot, _)) = self.change.active() else { return Ok(()) };
        let Some(settled) = self.settle(now, Which::Exit(slot)).await? else { return Ok(()) };
        let Settled { left, receipt, fault } = settled;
        (self.status.left_bytes, self.status.left_seconds) = (left.bytes, left.seconds);
        self.status.billed_bytes = Some(left.used_bytes);
        self.status.receipt = receipt.or(self.status.receipt.take());
        match fault {
            Some((cause, detail)) => self.failed(slot, cause, &detail).await,
            None => Ok(()),
        }
    }

    async fn pay_entry(&mut self, now: u64) -> anyhow::Result<()> {
        // Who cheats is not paid any more. What is used up may be paid by hand.
        let is_fraud = |entry: &Live| entry.failure.is_some_and(Cause::is_fraud);
        if self.entry.as_ref().is_none_or(is_fraud) {
            return Ok(());
        }
        let settled = self.settle(now, Which::Entry).await?;
        let Some(Settled { fault: Some((cause, detail)), .. }) = settled else { return Ok(()) };
        self.entry_failed(now, cause, &detail).await
    }

    /// The exit could not answer while the entry's tunnel was held, and is not blamed for that.
    fn begin_again(&mut self, held_before: &[Held]) {
        let is_free = self.entry.as_ref().is_some_and(|entry| !entry.is_held);
        let was_held = held_before.iter().any(|held| held.interface == ENTRY_INTERFACE);
        if is_free
            && was_held
            && let Some((slot, _)) = self.change.active()
            && let Some(live) = self.live(Which::Exit(slot))
        {
            live.begin(clock::now());
        }
    }

    fn live(&mut self, which: Which) -> Option<&mut Live> {
        match which {
            Which::Exit(slot) => self.exit_mut(slot),
            Which::Entry => self.entry.as_mut(),
        }
    }

    /// Buys another exit by the tunnel of the present one, if there is none left to change to; and then
    /// another entry.
    pub(super) fn spare(&mut self, now: u64) {
        let is_connected = self.change.active().is_some() && !self.change.is_trying();
        let budget = &mut self.options.budget;
        if is_connected && self.change.spares() == 0 && !self.entry_spares.is_buying() {
            self.spares.begin(now, budget);
        }
        let has_entry = !self.options.entries.is_empty();
        if is_connected && has_entry && self.entries.spares() == 0 && !self.spares.is_buying() {
            self.entry_spares.begin(now, budget);
        }
        if let Some(ended) = self.spares.ended(budget)
            && let Some(exit) = self.bought(ended, Role::Exit)
        {
            self.options.candidates.push(exit);
            self.change.add();
        }
        if let Some(ended) = self.entry_spares.ended(&mut self.options.budget)
            && let Some(entry) = self.bought(ended, Role::Entry)
        {
            self.options.entries.push(entry);
            self.entries.add();
        }
    }

    /// Says what came of a purchase.
    fn bought(&mut self, ended: anyhow::Result<Bought>, role: Role) -> Option<Candidate> {
        let what = role.as_str();
        let (text, candidate) = match ended {
            Err(error) => (format!("There is no other {what} to change to: {error:#}"), None),
            Ok(Bought { candidate, .. }) if self.is_shared(&candidate, role) => {
                let Candidate { name, endpoint, .. } = candidate;
                let at = endpoint.ip();
                (format!("Bought {name} in vain: exit and entry would both be at {at}."), None)
            }
            Ok(Bought { candidate, .. }) => {
                let name = &candidate.name;
                let text = format!("Bought {name} too, to change to it if this {what} fails.");
                (text, Some(candidate))
            }
        };
        (self.say)(&text);
        candidate
    }

    /// Takes what a node has answered, if it has: its usage receipt and its bill are checked, and it is
    /// paid if it is time to.
    async fn settle(&mut self, now: u64, which: Which) -> anyhow::Result<Option<Settled>> {
        let Some(live) = self.live(which) else { return Ok(None) };
        let Some(Said { left, receipt }) = live.poll(now).await else { return Ok(None) };
        let receipt = receipt.map(|given| live.receive(given, left.used_bytes));
        let name = live.name.clone();
        let mut settled = Settled { left, receipt: None, fault: None };
        match receipt {
            None | Some(live::Receipt::Known) => {}
            Some(live::Receipt::Missing) => (self.say)(&format!(
                "{name} gives no usage receipts, although its configuration names a key for them."
            )),
            Some(live::Receipt::New(verified)) => {
                if let Err(error) = Store::default().save(&verified) {
                    (self.say)(&format!("{error:#}"));
                }
                settled.receipt = Some(*verified);
            }
            Some(live::Receipt::Wrong(fault)) => {
                settled.fault = Some((Cause::Receipt, format!(": {fault}")));
                return Ok(Some(settled));
            }
        }
        let is_for_it = |payer: &dyn Payer| which != Which::Entry || payer.is_for_any_node();
        let is_paid = self.options.payer.as_deref().is_some_and(is_for_it);
        let budget = if is_paid { self.options.budget } else { 0 };
        let Some(live) = self.live(which) else { return Ok(Some(settled)) };
        settled.fault = match live.account(now, &settled.left, budget) {
            live::Account::Good => {
                let lost = self.prepare(now, which, &settled.left, budget).await.err();
                lost.map(|cause| (cause, String::new()))
            }
            live::Account::Cheats(text) => Some((Cause::Bill, text)),
            live::Account::OutOfMoney => Some((Cause::OutOfMoney, String::new())),
            live::Account::Pay { at_most } => {
                self.top_up(now, which, at_most).await?;
                None
            }
        };
        Ok(Some(settled))
    }

    /// Has the next payment prepared when it is time to. The error is why the node is to be left
    /// meanwhile.
    async fn prepare(
        &mut self,
        now: u64,
        which: Which,
        left: &Left,
        budget: u64,
    ) -> Result<(), Cause> {
        let Some(mut payer) = self.options.payer.take() else { return Ok(()) };
        let mut done = Ok(());
        if let Some(live) = self.live(which)
            && let Some(gateway) = live.gateway.clone()
        {
            let mut pay = mem::take(&mut live.pay);
            let prepared = pay.prepare(now, payer.as_mut(), &gateway, left, budget);
            done = while_alive(live, prepared).await;
            live.pay = pay;
        }
        self.options.payer = Some(payer);
        done
    }

    /// Pays a node, and says what came of it.
    async fn top_up(&mut self, now: u64, which: Which, at_most: u64) -> anyhow::Result<()> {
        let gateway = self.live(which).and_then(|live| live.gateway.clone());
        let Some(gateway) = gateway else { return Ok(()) };
        let Some(mut payer) = self.options.payer.take() else { return Ok(()) };
        let mut payment = payer.top_up(&gateway, at_most);
        // It is not given up, because nobody would know what it has cost.
        let paid = loop {
            tokio::select! {
                paid = &mut payment => break paid,
                () = sleep(LOOK_INTERVAL) => self.hold(which)?,
            }
        };
        drop(payment);
        let unit = payer.unit().to_owned();
        let Some(live) = self.live(which) else { return Ok(()) };
        let name = live.name.clone();
        match paid {
            Ok(cost) => {
                live.pay.paid(now, payer.as_ref());
                live.poll_soon();
                if cost > 0 {
                    self.options.budget = self.options.budget.saturating_sub(cost);
                    let left = self.options.budget;
                    (self.say)(&format!(
                        "Paid {cost} {unit} to {name}. {left} left of the budget."
                    ));
                }
            }
            Err(error) => {
                live.pay.failed(&error);
                (self.say)(&format!("cannot pay {name}: {error:#}"));
            }
        }
        self.options.payer = Some(payer);
        Ok(())
    }

    /// Lets nothing but the payment through a tunnel whose session is used up by now.
    fn hold(&mut self, which: Which) -> anyhow::Result<()> {
        if let Some(live) = self.live(which)
            && !live.is_held
            && live.is_used_up()
        {
            live.is_held = true;
            self.load()?;
        }
        Ok(())
    }
}

/// Waits for what a mint prepares, for as long as the node in use is alive. What was begun with the
/// wallet is found again, as after a crash.
async fn while_alive<T>(live: &mut Live, work: impl Future<Output = T>) -> Result<T, Cause> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = sleep(LOOK_INTERVAL) => {}
        }
        if live.is_used()
            && let Observed::Failed(cause) = live.watch(clock::now())
        {
            return Err(cause);
        }
    }
}
