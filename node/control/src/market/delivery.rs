//! Gives the current event to one relay, again and again until it has it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{debug, warn};
use weir_config::WebSocketUrl;
use weir_ledger::unix_now;
use weir_market::{
    client::{Answer, ClientError, Connector},
    event::Event,
};

use super::view::{RelayState, RelayView};

/// Seconds until the first retry; each failure doubles it.
const FIRST_RETRY: u64 = 5;
/// The most seconds until a retry.
const MAX_RETRY: u64 = 600;

/// Delivers to one relay. Clones share what is known of it.
#[derive(Clone)]
pub(super) struct Delivery {
    url: WebSocketUrl,
    connector: Connector,
    events: watch::Receiver<Option<Arc<Event>>>,
    known: Arc<Mutex<Known>>,
    retry: Arc<Notify>,
    /// Changes whenever an attempt has ended.
    attempts: watch::Sender<u64>,
}

/// What came of the attempts.
#[derive(Debug, Default)]
struct Known {
    /// The last event that was tried, by its identifier.
    tried: Option<[u8; 32]>,
    /// The last event that the relay has taken.
    taken: Option<[u8; 32]>,
    /// Whether the last answer was a refusal, and its words, or why there was none.
    refused: bool,
    answer: String,
    answered_at: Option<u64>,
    next_try: Option<u64>,
    failures: u32,
    accepted_total: u64,
    refused_total: u64,
    failed_total: u64,
}

impl Delivery {
    pub(super) fn new(
        url: WebSocketUrl,
        connector: Connector,
        events: watch::Receiver<Option<Arc<Event>>>,
    ) -> Self {
        let (attempts, _) = watch::channel(0);
        let (known, retry) = Default::default();
        Self { url, connector, events, known, retry, attempts }
    }

    /// Delivers until the task is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let event = self.events.borrow_and_update().clone();
            let Some(event) = event else {
                if self.events.changed().await.is_err() {
                    return;
                }
                continue;
            };
            self.attempt(&event).await;
            let wait = self.note_next_try();
            tokio::select! {
                changed = self.events.changed() => if changed.is_err() { return },
                () = self.retry.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    async fn attempt(&self, event: &Event) {
        let id = event.id.to_bytes();
        if self.known().taken == Some(id) {
            return;
        }
        let answer = self.publish(event).await;
        let mut known = self.known();
        known.tried = Some(id);
        known.answered_at = Some(unix_now());
        match answer {
            Ok(answer) if answer.accepted || answer.reason.starts_with("duplicate:") => {
                if known.failures > 0 {
                    debug!(relay = %self.url, "the relay has the listing again");
                }
                known.taken = Some(id);
                known.failures = 0;
                known.refused = false;
                known.accepted_total += 1;
                known.answer = answer.reason;
            }
            Ok(answer) => {
                if !known.refused || known.answer != answer.reason {
                    warn!(relay = %self.url, reason = answer.reason, "the relay refuses the listing");
                }
                known.failures = known.failures.saturating_add(1);
                known.refused = true;
                known.refused_total += 1;
                known.answer = answer.reason;
            }
            Err(error) => {
                let words = error.to_string();
                if known.failures == 0 {
                    warn!(relay = %self.url, reason = words, "the relay cannot be given the listing");
                }
                known.failures = known.failures.saturating_add(1);
                known.refused = false;
                known.failed_total += 1;
                known.answer = words;
            }
        }
        drop(known);
        self.attempts.send_modify(|number| *number += 1);
    }

    async fn publish(&self, event: &Event) -> Result<Answer, ClientError> {
        let mut relay = self.connector.connect(&self.url).await?;
        let answer = relay.publish(event).await;
        relay.close().await;
        answer
    }

    /// When to try again; `None` if the relay has the event.
    fn note_next_try(&self) -> Option<Duration> {
        let mut known = self.known();
        let wait = (known.failures > 0).then(|| retry_after(known.failures));
        known.next_try = wait.map(|wait| unix_now() + wait);
        wait.map(Duration::from_secs)
    }

    /// Tries again now.
    pub(super) fn retry(&self) {
        self.retry.notify_one();
    }

    /// Waits until the current event was tried once.
    pub(super) async fn settled(&self) {
        let mut attempts = self.attempts.subscribe();
        loop {
            let current = self.events.borrow().as_ref().map(|event| event.id.to_bytes());
            if self.known().tried == current || attempts.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn view(&self, current: Option<&Event>) -> RelayView {
        let known = self.known();
        let current = current.map(|event| event.id.to_bytes());
        let state = if current.is_some() && known.taken == current {
            RelayState::Accepted
        } else if known.failures == 0 {
            RelayState::Pending
        } else if known.refused {
            RelayState::Refused
        } else {
            RelayState::Unreachable
        };
        RelayView {
            url: self.url.to_string(),
            state,
            answer: known.answer.clone(),
            answered_at: known.answered_at,
            next_try: known.next_try,
            accepted: known.accepted_total,
            refused: known.refused_total,
            failed: known.failed_total,
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seconds to wait after this number of failures in a row.
fn retry_after(failures: u32) -> u64 {
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1).min(32)).unwrap_or(u64::MAX);
    FIRST_RETRY.saturating_mul(doubled).min(MAX_RETRY)
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep_until(Instant::now() + wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_become_rarer_and_never_end() {
        let waits: Vec<_> = (1..=9).map(retry_after).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(retry_after(u32::MAX), MAX_RETRY);
    }
}
