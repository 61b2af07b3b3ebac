//! A session's account with a node as JSON. Amounts are decimal texts in wei, because they are larger
//! than what JSON readers keep exactly.

use serde::{Deserialize, Serialize};

use crate::{
    Price, Terms,
    wire::{self, InvoiceText, WireError},
};

/// How a session stands: the answer to every request that is not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// The session's identifier.
    pub session: String,
    /// `open`, `paused` or `closed`.
    pub state: String,
    /// Whether it pays, or has to before it may use more than `covered_bytes`.
    pub must_pay: bool,
    /// Billed bytes so far, up and down together.
    pub bytes: u64,
    /// How many of them are free, or paid otherwise.
    pub covered_bytes: u64,
    /// Seconds for which it was open.
    pub seconds: u64,
    /// With whom, and at what price.
    pub terms: TermsView,
    /// What is agreed; null before that.
    pub agreement: Option<AgreementView>,
    /// What to pay now; null while nothing is due, and in the answer to a payment.
    pub invoice: Option<InvoiceText>,
}

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsView {
    /// The chain.
    pub chain_id: u64,
    /// The node's address.
    pub provider: String,
    /// The hub.
    pub hermes: String,
    /// The contract that makes the channels.
    pub registry: String,
    /// The code of the channels.
    pub channel_implementation: String,
    /// The price of a GiB.
    pub per_gib: String,
    /// The price of an hour.
    pub per_hour: String,
}

/// What is agreed, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementView {
    /// The number that is in each invoice and message.
    pub agreement_id: String,
    /// Whose promises pay.
    pub consumer: String,
    /// The consumer's channel with the hub.
    pub channel_id: String,
    /// The price of a GiB.
    pub per_gib: String,
    /// The price of an hour.
    pub per_hour: String,
    /// The bytes that may be used beyond what is paid, once anything was paid.
    pub unpaid_bytes: u64,
    /// The seconds that may be used beyond what is paid, once anything was paid.
    pub unpaid_seconds: u64,
    /// What these two cost at this price: the most that can be due beyond what is paid.
    pub leeway: String,
    /// What it has cost so far.
    pub due: String,
    /// What was paid of that.
    pub paid: String,
    /// The highest amount that the channel has promised this node.
    pub promised: String,
}

/// The request to pay as the session goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementRequest {
    /// Whose promises will pay.
    pub consumer: String,
    /// The price that is offered for a GiB; the node's where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_gib: Option<String>,
    /// The price that is offered for an hour; the node's where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<String>,
}

impl AgreementRequest {
    /// The price that is offered, where the node asks for `asked`.
    ///
    /// # Errors
    ///
    /// When it is not a number, or a larger one than prices are.
    pub fn price(&self, asked: Price) -> Result<Price, WireError> {
        let read = |what: &'static str, text: &Option<String>, asked: u128| match text {
            None => Ok(asked),
            Some(text) => {
                let number = wire::number(what, text)?;
                u128::try_from(number).map_err(|_| WireError::Number(what))
            }
        };
        Ok(Price {
            per_gib: read("per_gib", &self.per_gib, asked.per_gib)?,
            per_hour: read("per_hour", &self.per_hour, asked.per_hour)?,
        })
    }
}

impl TermsView {
    /// What a node settles with, at this price.
    #[must_use]
    pub fn new(terms: &Terms, price: &Price) -> Self {
        Self {
            chain_id: terms.chain_id,
            provider: terms.provider.to_string(),
            hermes: terms.hermes.to_string(),
            registry: terms.registry.to_string(),
            channel_implementation: terms.channel_implementation.to_string(),
            per_gib: price.per_gib.to_string(),
            per_hour: price.per_hour.to_string(),
        }
    }

    /// What the node settles with.
    ///
    /// # Errors
    ///
    /// When one of the addresses is not an address.
    pub fn terms(&self) -> Result<Terms, WireError> {
        Ok(Terms {
            chain_id: self.chain_id,
            provider: wire::address("provider", &self.provider)?,
            hermes: wire::address("hermes", &self.hermes)?,
            registry: wire::address("registry", &self.registry)?,
            channel_implementation: wire::address(
                "channel_implementation",
                &self.channel_implementation,
            )?,
        })
    }
}
