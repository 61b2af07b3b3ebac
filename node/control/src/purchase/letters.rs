//! Orders in sealed letters, which come through relays: for an exit that has no domain and no open TCP
//! port.
//!
//! A letter's sender is nobody in particular, so the limits hold for all of them together. What does
//! not get through them is dropped; a good order can be sent again.

use std::sync::Arc;

use nostr::event::Event;
use tokio::sync::{Semaphore, watch};
use weir_config::WebSocketUrl;
use weir_ledger::unix_now;
use weir_market::client::Connector;
use weir_market::purchase::{
    Answer, Reason,
    letter::{NotALetter, OpenedOrder, check_envelope},
};

use super::{Shop, counts::Way, shop::Source};
use crate::gateway::allowance::Allowance;

mod relay;

/// Letters that are opened, of all relays: per second, and at once. Each costs about a millisecond.
const OPENED_PER_SECOND: u32 = 50;
const OPENED_BURST: u32 = 200;
/// Letters that are worked on at once. A sale may wait for a mint.
const MAX_AT_WORK: usize = 32;

/// Reads letters and answers them. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Letters {
    shop: Shop,
    opened: Arc<Allowance<()>>,
    at_work: Arc<Semaphore>,
}

impl Letters {
    pub(super) fn new(shop: Shop) -> Self {
        Self {
            shop,
            opened: Arc::new(Allowance::new(OPENED_PER_SECOND, OPENED_BURST)),
            at_work: Arc::new(Semaphore::new(MAX_AT_WORK)),
        }
    }

    /// Answers a letter. `None` if it is not an order, or there are too many.
    pub(super) async fn answer(&self, letter: Event) -> Option<Event> {
        let answered = self.try_answer(letter).await;
        if answered.is_none() {
            self.shop.counts.dropped();
        }
        answered
    }

    async fn try_answer(&self, letter: Event) -> Option<Event> {
        let key = self.shop.key().clone();
        check_envelope(&letter, &key.public()).ok()?;
        let _at_work = self.at_work.try_acquire().ok()?;
        if !self.opened.take(()) {
            return None;
        }
        let opening = key.clone();
        let opened = off_thread(move || OpenedOrder::open(&opening, &letter)).await?.ok()?;
        let answer = match self.sell(&opened).await {
            Ok(answer) => answer,
            // A relay gives out what it has kept again and again.
            Err(Stale) => return None,
        };
        if let Answer::Refused(refusal) = &answer {
            self.shop.counts.refused(Way::Letter, refusal);
        }
        let sealed = off_thread(move || opened.answer(&key, &answer, unix_now())).await?;
        sealed
            .inspect_err(|error: &NotALetter| tracing::warn!(%error, "cannot seal an answer"))
            .ok()
    }

    async fn sell(&self, opened: &OpenedOrder) -> Result<Answer, Stale> {
        let order = match opened.order() {
            Ok(order) => order,
            Err(refusal) => return Ok(Answer::Refused(refusal)),
        };
        match self.shop.check_letter(opened, &order.payment) {
            Err(refusal) if refusal.reason == Reason::ExpiredAuth => return Err(Stale),
            Err(refusal) => return Ok(Answer::Refused(refusal)),
            Ok(()) => {}
        }
        Ok(self.shop.sell(Way::Letter, Source::Letters, order).await.into())
    }

    /// Awaits letters at these relays until `stopped` says so.
    pub(super) async fn serve(
        self,
        relays: Vec<WebSocketUrl>,
        connector: Connector,
        stopped: watch::Receiver<bool>,
    ) {
        let mut tasks = tokio::task::JoinSet::new();
        for url in relays {
            let line = relay::Line { url, connector: connector.clone(), letters: self.clone() };
            tasks.spawn(line.hold(stopped.clone()));
        }
        tasks.join_all().await;
    }

    /// The key that letters are addressed to, in hex.
    fn address(&self) -> String {
        self.shop.key().public().to_hex()
    }
}

/// The order has expired.
struct Stale;

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
