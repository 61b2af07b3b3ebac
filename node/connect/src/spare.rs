//! Another exit, bought before it is needed: through the tunnel, so that nothing has to leave beside
//! it when the present exit fails.

use std::thread::{self, JoinHandle};

use anyhow::anyhow;

use crate::{clock::SECOND, source::Candidate};

/// From the first answer of an exit to the purchase of another one, in nanoseconds.
const DELAY: u64 = 3 * SECOND;
/// Between two tries, in nanoseconds.
const RETRY_DELAY: u64 = 300 * SECOND;

/// Somebody who buys exits. It blocks, and does its network traffic as any program does.
pub trait Buyer: Send {
    /// What an exit costs at most, in the unit of the budget.
    fn price(&self) -> u64;

    /// Buys another exit than those before, for at most this much.
    ///
    /// # Errors
    ///
    /// Says why there is none, and whether it may have been paid nevertheless.
    fn buy(&mut self, at_most: u64) -> Result<Bought, NotBought>;
}

/// An exit that was bought.
#[derive(Debug)]
pub struct Bought {
    /// It.
    pub candidate: Candidate,
    /// What it cost.
    pub spent: u64,
}

/// No exit was bought.
#[derive(Debug)]
pub struct NotBought {
    /// Why.
    pub error: anyhow::Error,
    /// Whether the money may be gone.
    pub may_be_paid: bool,
}

type Purchase = JoinHandle<(Box<dyn Buyer>, Result<Bought, NotBought>)>;

/// The purchases of one connection, one at a time.
#[derive(Default)]
pub(crate) struct Spares {
    buyer: Option<Box<dyn Buyer>>,
    /// The purchase under way, and what it may cost.
    under_way: Option<(Purchase, u64)>,
    next: u64,
}

impl Spares {
    pub(crate) fn new(buyer: Option<Box<dyn Buyer>>) -> Self {
        Self { buyer, ..Self::default() }
    }

    /// An exit has just answered: the next purchase is by its tunnel.
    pub(crate) fn connected(&mut self, now: u64) {
        self.next = self.next.max(now.saturating_add(DELAY));
    }

    /// Begins a purchase, if the budget has it and as much again for the present exit. What it may
    /// cost is taken off the budget at once.
    pub(crate) fn begin(&mut self, now: u64, budget: &mut u64) {
        let Some(buyer) = self
            .buyer
            .take_if(|buyer| now >= self.next && buyer.price() > 0 && *budget / 2 >= buyer.price())
        else {
            return;
        };
        self.next = now.saturating_add(RETRY_DELAY);
        let at_most = buyer.price();
        let work = move || {
            let mut buyer = buyer;
            let bought = buyer.buy(at_most);
            (buyer, bought)
        };
        // Without a thread there is no buyer any more, and the connection goes on without spares.
        if let Ok(purchase) = thread::Builder::new().name("purchase".into()).spawn(work) {
            *budget -= at_most;
            self.under_way = Some((purchase, at_most));
        }
    }

    /// Whether a purchase is under way.
    pub(crate) const fn is_buying(&self) -> bool {
        self.under_way.is_some()
    }

    /// The purchase that has just ended. What it did not cost goes back to the budget.
    pub(crate) fn ended(&mut self, budget: &mut u64) -> Option<anyhow::Result<Bought>> {
        let (purchase, at_most) = self.under_way.take_if(|(purchase, _)| purchase.is_finished())?;
        let Ok((buyer, bought)) = purchase.join() else {
            return Some(Err(anyhow!("a thread panicked")));
        };
        self.buyer = Some(buyer);
        let spent = match &bought {
            Ok(bought) => bought.spent,
            Err(not) if not.may_be_paid => at_most,
            Err(_) => 0,
        };
        *budget = budget.saturating_add(at_most.saturating_sub(spent));
        Some(bought.map_err(|not| not.error))
    }
}

#[cfg(test)]
mod tests;
