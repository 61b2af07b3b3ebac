//! Usage records pushed to the payment layer by HTTP.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use tokio::time::timeout;

use super::{Receiver, post::Target};
use crate::resolver::Resolver;
use weir_ledger::{UsageRecord, unix_now};

/// Its name in the ledger.
pub const NAME: &str = "webhook";

/// How long the receiver may take to answer. After that the delivery has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The header with the signature.
pub const SIGNATURE: &str = "weir-signature";
/// The header with the time at which it was made, in seconds since 1970.
pub const TIMESTAMP: &str = "weir-timestamp";

/// A receiver behind a URL.
pub struct Webhook {
    target: Target,
    key: hmac::Key,
    answer_timeout: Duration,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Webhook {
    /// A receiver at `url`. Each batch to it is signed with `secret`.
    ///
    /// # Errors
    ///
    /// When the URL is not `http[s]://host[:port]/path`, or the secret is empty.
    pub fn new(url: &str, secret: &[u8]) -> anyhow::Result<Self> {
        let target = Target::new(url)?;
        ensure!(!secret.is_empty(), "the webhook's secret is empty");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Self { target, key, answer_timeout: ANSWER_TIMEOUT })
    }

    /// Reads the TLS roots for `https`: those in a PEM file, or this machine's.
    ///
    /// # Errors
    ///
    /// When there are no TLS roots.
    pub fn with_roots(self, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let target = self.target.with_roots(ca_file, "ledger.webhook_ca_file")?;
        Ok(Self { target, ..self })
    }

    /// The same, with names looked up by `resolver`.
    #[must_use]
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self { target: self.target.with_resolver(resolver), ..self }
    }

    /// The same, with another limit on how long an answer may take.
    #[cfg(test)]
    pub(super) fn with_timeout(self, answer_timeout: Duration) -> Self {
        Self { answer_timeout, ..self }
    }

    async fn send(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let now = unix_now().to_string();
        let signature = sign(&self.key, &now, &body);
        let headers = [(TIMESTAMP, now), (SIGNATURE, signature)];
        let status = self.target.post(body, &headers).await?;
        if !status.is_success() {
            bail!("{} answered {status}", self.target.host());
        }
        Ok(())
    }
}

impl Receiver for Webhook {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take(&mut self, batch: &[UsageRecord]) -> anyhow::Result<()> {
        let cursor = batch.last().map(|record| record.cursor);
        let body = serde_json::to_vec(&serde_json::json!({ "records": batch, "cursor": cursor }))?;
        let seconds = self.answer_timeout.as_secs();
        timeout(self.answer_timeout, self.send(body))
            .await
            .with_context(|| format!("{} did not answer within {seconds} s", self.target.host()))?
    }
}

/// HMAC-SHA256 over the timestamp, a dot and the body, in base64.
fn sign(key: &hmac::Key, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body);
    STANDARD.encode(context.sign())
}
