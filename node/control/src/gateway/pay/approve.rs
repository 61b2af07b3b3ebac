//! Asks the operator's URL to approve a promise before it is credited.
//!
//! A signature proves only that the consumer promises. weir cannot know whether its channel exists,
//! has funds, and has not promised them elsewhere. The hub knows, or a service that serves several
//! nodes.

use std::{path::Path, time::Duration};

use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};

use crate::{delivery::post::Target, resolver::Resolver};
use weir_config::Payment;
use weir_ledger::SessionId;
use weir_promise::{Agreement, ExchangeMessage};

/// The time after which a promise without an answer is not credited.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of concurrent requests. Others wait, within their timeout.
const MAX_QUESTIONS: usize = 16;

/// Why a promise is not credited.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotApproved {
    /// The service refused.
    #[error(
        "the operator's approval service refuses promises of this identity and channel: nothing \
         was credited"
    )]
    Refused,
    /// There was no clear answer.
    #[error(
        "the operator's approval service cannot be reached: nothing was credited; try again later"
    )]
    NoAnswer,
}

/// A client of the approval service.
#[derive(Debug)]
pub(super) struct Approver {
    target: Target,
    permits: Semaphore,
    timeout: Duration,
}

/// A request for approval. Amounts are decimal texts in wei.
#[derive(Debug, Serialize)]
struct Question {
    session: String,
    chain_id: u64,
    identity: String,
    provider: String,
    hermes: Option<String>,
    channel_id: String,
    /// The total that the channel has promised.
    amount: String,
    agreement_id: String,
    /// The part of it for this agreement.
    agreement_total: String,
}

impl Approver {
    /// Creates the client, if the configuration names a service.
    pub(super) fn new(config: &Payment, resolver: &Resolver) -> anyhow::Result<Option<Self>> {
        if config.approve_url.is_empty() {
            return Ok(None);
        }
        let ca_file = Path::new(&config.approve_ca_file);
        let ca_file = (!ca_file.as_os_str().is_empty()).then_some(ca_file);
        let target = Target::new(&config.approve_url)?;
        let target = target.with_roots(ca_file, "payment.approve_ca_file")?;
        let target = target.with_resolver(resolver.clone());
        Ok(Some(Self { target, permits: Semaphore::new(MAX_QUESTIONS), timeout: TIMEOUT }))
    }

    /// The same with another timeout.
    #[cfg(test)]
    pub(super) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Asks about a promise with valid signatures. Only an explicit approval counts.
    pub(super) async fn ask(
        &self,
        session: SessionId,
        agreement: &Agreement,
        message: &ExchangeMessage,
    ) -> Result<(), NotApproved> {
        let question = Question {
            session: session.to_string(),
            chain_id: message.chain_id,
            identity: agreement.consumer.to_string(),
            provider: message.provider.to_string(),
            hermes: message.hermes.map(|hermes| hermes.to_string()),
            channel_id: message.promise.channel_id.to_string(),
            amount: message.promise.amount.to_string(),
            agreement_id: agreement.id.to_string(),
            agreement_total: message.agreement_total.to_string(),
        };
        let json = serde_json::to_vec(&question).unwrap_or_default();
        let asked = async {
            // The semaphore is never closed.
            let _permit = self.permits.acquire().await;
            self.target.post(json, &[]).await
        };
        let host = self.target.host();
        match timeout(self.timeout, asked).await {
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status)) if status.is_client_error() => {
                tracing::info!(%session, %status, "a promise was not approved");
                Err(NotApproved::Refused)
            }
            Ok(Ok(status)) => {
                tracing::warn!(host, %status, "payment.approve_url gave no clear answer");
                Err(NotApproved::NoAnswer)
            }
            Ok(Err(error)) => {
                tracing::warn!(host, "cannot reach payment.approve_url: {error:#}");
                Err(NotApproved::NoAnswer)
            }
            Err(_) => {
                tracing::warn!(host, "payment.approve_url did not answer in time");
                Err(NotApproved::NoAnswer)
            }
        }
    }
}
