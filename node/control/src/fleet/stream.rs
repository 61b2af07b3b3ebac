//! Usage records published to the stream, each once the server says that it has it.

use anyhow::{Context as _, bail};
use async_nats::jetstream::{
    self,
    message::PublishMessage,
    stream::{Config, StorageType},
};
use serde::Serialize;
use tokio::time::timeout;

use super::{Link, SERVER_TIMEOUT};
use crate::delivery::Receiver;
use weir_ledger::UsageRecord;

/// Its name in the ledger.
pub const NAME: &str = "fleet";

/// The window in which the server drops a record that it already has.
const DUPLICATE_WINDOW: std::time::Duration = std::time::Duration::from_secs(3600);

/// The stream of all nodes.
pub struct Stream {
    link: Link,
    context: jetstream::Context,
    config: Config,
    name: String,
    /// Whether the stream was there since the last failure.
    is_there: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("link", &self.link).finish_non_exhaustive()
    }
}

/// A record, and whose it is.
#[derive(Serialize)]
struct Message<'a> {
    node: &'a str,
    #[serde(flatten)]
    record: &'a UsageRecord,
}

impl Stream {
    /// The stream behind a connection. It is made when there is none.
    #[must_use]
    pub fn new(link: Link, fleet: &weir_config::Fleet) -> Self {
        let mut context = jetstream::new(link.client.clone());
        context.set_timeout(SERVER_TIMEOUT);
        let config = Config {
            name: fleet.stream.clone(),
            subjects: vec![format!("{}.*.usage", fleet.subject)],
            storage: StorageType::File,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        };
        Self { link, context, config, name: fleet.name.clone(), is_there: false }
    }

    async fn publish(&mut self, batch: &[UsageRecord]) -> anyhow::Result<()> {
        let stream = self.config.name.clone();
        if !self.is_there {
            let made = self.context.get_or_create_stream(self.config.clone()).await;
            made.with_context(|| format!("no stream {stream}"))?;
            self.is_there = true;
        }
        let subject = format!("{}.usage", self.link.subject);
        let mut acks = Vec::with_capacity(batch.len());
        for record in batch {
            let payload = serde_json::to_vec(&Message { node: &self.name, record })?;
            let id = format!("{}/{}/{}", self.name, record.session, record.sequence);
            let message = PublishMessage::build()
                .payload(payload.into())
                .message_id(id)
                .expected_stream(&stream);
            acks.push(self.context.send_publish(subject.clone(), message).await?);
        }
        for ack in acks {
            ack.await.with_context(|| format!("the stream {stream} did not take a record"))?;
        }
        Ok(())
    }
}

impl Receiver for Stream {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take(&mut self, batch: &[UsageRecord]) -> anyhow::Result<()> {
        if !self.link.is_up() {
            bail!("{}", self.link.describe());
        }
        let published = timeout(2 * SERVER_TIMEOUT, self.publish(batch)).await;
        let published = published.context("the fleet's server did not answer").flatten();
        self.is_there &= published.is_ok();
        published
    }
}
