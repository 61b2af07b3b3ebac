//! Usage records on their way to the payment layer: pushed to a webhook, appended to a file.
//!
//! Each receiver has a cursor in the ledger that moves only once it has what is before it. So a
//! receiver that was away misses nothing. It may get a record twice, and tells that by
//! `(session, sequence)`.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};

use weir_ledger::store::{receipt::Record, usage::MOST};
use weir_sessions::Sessions;

pub mod file;
pub mod post;
mod tls;
pub mod webhook;

pub use file::UsageFile;
pub use webhook::Webhook;

/// The first wait after a failure, and the longest: each is twice the one before.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Takes usage records.
pub trait Receiver: Send {
    /// Its name in the ledger.
    fn name(&self) -> &'static str;

    /// Takes a batch: once this is done without an error, the receiver has it for good.
    fn take(&mut self, batch: &[Record]) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Gives a receiver everything that it has not yet, for as long as it is polled.
pub async fn run(sessions: Arc<Sessions>, receiver: impl Receiver) {
    run_with(sessions, receiver, WAITS).await;
}

async fn run_with(
    sessions: Arc<Sessions>,
    mut receiver: impl Receiver,
    (first, longest): (Duration, Duration),
) {
    let mut written = sessions.watch_usage();
    let mut wait = first;
    let mut failing = false;
    loop {
        written.borrow_and_update();
        match step(&sessions, &mut receiver).await {
            Ok(more) => {
                if failing {
                    info!(receiver = receiver.name(), "delivery of usage records has resumed");
                    failing = false;
                }
                wait = first;
                if !more && written.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !failing {
                    let error = format!("{error:#}");
                    warn!(
                        receiver = receiver.name(),
                        error,
                        "cannot deliver usage records; they stay in the ledger until it works"
                    );
                    failing = true;
                }
                sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
        }
    }
}

/// Delivers one batch. Says whether there may be more.
async fn step(sessions: &Arc<Sessions>, receiver: &mut impl Receiver) -> anyhow::Result<bool> {
    let name = receiver.name();
    let reader = Arc::clone(sessions);
    let batch =
        tokio::task::spawn_blocking(move || reader.usage_after(reader.delivered(name)?, MOST))
            .await??;
    let Some(last) = batch.last().map(|record| record.cursor) else { return Ok(false) };
    receiver.take(&batch).await?;
    let writer = Arc::clone(sessions);
    tokio::task::spawn_blocking(move || writer.set_delivered(name, last)).await??;
    Ok(true)
}

#[cfg(test)]
mod tests;
