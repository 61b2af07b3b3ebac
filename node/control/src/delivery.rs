//! Delivers usage records to the payment layer: pushes them to a webhook, appends them to a file.
//!
//! Each receiver has a cursor in the ledger. It moves only after the receiver has stored the records
//! before it, so a receiver that was down misses none. It may get a record twice, and detects that
//! by `(session, sequence)`.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};

use weir_ledger::{MAX_RECORDS, UsageLog, UsageRecord};

pub mod file;
pub mod post;
pub mod webhook;

pub use file::UsageFile;
pub use webhook::Webhook;

/// The first delay after a failure, and the maximum. Each delay is twice the one before.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Receives usage records.
pub trait Receiver: Send {
    /// Its name in the ledger.
    fn name(&self) -> &'static str;

    /// Takes a batch. Once this returns without an error, the receiver has stored it.
    fn take(&mut self, batch: &[UsageRecord]) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Delivers to a receiver every record that it does not have yet, for as long as this is polled.
pub async fn run(usage: UsageLog, receiver: impl Receiver) {
    run_with(usage, receiver, RETRY_DELAYS).await;
}

async fn run_with(
    usage: UsageLog,
    mut receiver: impl Receiver,
    (first, longest): (Duration, Duration),
) {
    let mut written = usage.watch();
    let mut delay = first;
    let mut failing = false;
    loop {
        written.borrow_and_update();
        match step(&usage, &mut receiver).await {
            Ok(more) => {
                if failing {
                    info!(receiver = receiver.name(), "delivery of usage records has resumed");
                    failing = false;
                }
                delay = first;
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
                sleep(delay).await;
                delay = (delay * 2).min(longest);
            }
        }
    }
}

/// Delivers one batch. Returns whether there may be more.
async fn step(usage: &UsageLog, receiver: &mut impl Receiver) -> anyhow::Result<bool> {
    let name = receiver.name();
    let reader = usage.clone();
    let batch =
        tokio::task::spawn_blocking(move || reader.after(reader.delivered(name)?, MAX_RECORDS))
            .await??;
    let Some(last) = batch.last().map(|record| record.cursor) else { return Ok(false) };
    receiver.take(&batch).await?;
    let writer = usage.clone();
    tokio::task::spawn_blocking(move || writer.set_delivered(name, last)).await??;
    Ok(true)
}

#[cfg(test)]
mod tests;
