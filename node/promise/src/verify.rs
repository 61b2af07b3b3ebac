//! Whether a payment is one. Everything that must be equal is compared first, so that each wrong
//! field has its own answer; the signatures settle the rest.

use alloy_primitives::{Address, U256};

use super::{channel, exchange::ExchangeMessage, invoice::Invoice, signature::SignatureError};

/// What a node settles with. The defaults of the network are in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The chain.
    pub chain_id: u64,
    /// The node's address.
    pub provider: Address,
    /// The hub.
    pub hermes: Address,
    /// The contract that makes the channels.
    pub registry: Address,
    /// The code of the channels.
    pub channel_implementation: Address,
}

/// What is known of an agreement before a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// The consumer's address.
    pub consumer: Address,
    /// The highest amount that its channel has promised us.
    pub amount: U256,
    /// What the agreement has had paid, in wei.
    pub paid: U256,
}

/// A payment that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    /// What the agreement has had paid now, in wei.
    pub total: U256,
    /// How much of that is new: credit is extended for this, never for the promise's amount.
    pub gained: U256,
}

/// Why a payment is refused. Nothing is credited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Refusal {
    #[error("the promise is for chain {found}, this node settles on chain {expected}")]
    PromiseChain { expected: u64, found: u64 },
    #[error("the message is for chain {found}, this node settles on chain {expected}")]
    MessageChain { expected: u64, found: u64 },
    #[error("the promise is of channel {found}, the consumer's with this node's hub is {expected}")]
    Channel { expected: Address, found: alloy_primitives::B256 },
    #[error("the message pays {found}, this node is {expected}")]
    Provider { expected: Address, found: Address },
    #[error("the message names another hub than {expected}, through which this node is paid")]
    Hermes { expected: Address },
    #[error("the message is for agreement {found}, this session's is {expected}")]
    Agreement { expected: U256, found: U256 },
    #[error("the promise's hashlock is not the invoice's")]
    Hashlock,
    #[error("the promise's fee is {found} wei, the invoice's is {expected}")]
    Fee { expected: U256, found: U256 },
    #[error("too little: the agreement's total is {found} wei, the invoice asks for {expected}")]
    TooLittle { expected: U256, found: U256 },
    #[error("the agreement's total is {found} wei, the invoice asks for {expected} only")]
    TooMuch { expected: U256, found: U256 },
    #[error("this invoice is paid already: the agreement has had {paid} wei")]
    Replayed { paid: U256 },
    #[error("the promise's amount is {found} wei: with what this adds it must be {least} or more")]
    Amount { least: U256, found: U256 },
    #[error("the promise: {0}")]
    PromiseSignature(SignatureError),
    #[error("the message: {0}")]
    MessageSignature(SignatureError),
    #[error("the promise was altered, or signed by {found} and not by the consumer")]
    PromiseSigner { found: Address },
    #[error("the message was altered, or signed by {found} and not by the consumer")]
    MessageSigner { found: Address },
}

impl Terms {
    /// The channel from which this consumer pays.
    #[must_use]
    pub fn channel_of(&self, consumer: Address) -> Address {
        channel::consumer(consumer, self.hermes, self.registry, self.channel_implementation)
    }

    /// Judges the answer to an invoice.
    ///
    /// # Errors
    ///
    /// Says which rule it breaks; see [`Refusal`].
    pub fn verify(
        &self,
        message: &ExchangeMessage,
        invoice: &Invoice,
        before: &Before,
    ) -> Result<Paid, Refusal> {
        let promise = &message.promise;
        let expected = self.chain_id;
        require(promise.chain_id == expected, || Refusal::PromiseChain {
            expected,
            found: promise.chain_id,
        })?;
        require(message.chain_id == expected, || Refusal::MessageChain {
            expected,
            found: message.chain_id,
        })?;
        require(message.provider == self.provider, || Refusal::Provider {
            expected: self.provider,
            found: message.provider,
        })?;
        require(message.hermes == Some(self.hermes), || Refusal::Hermes { expected: self.hermes })?;
        let channel = self.channel_of(before.consumer);
        require(promise.channel_id == channel.into_word(), || Refusal::Channel {
            expected: channel,
            found: promise.channel_id,
        })?;
        require(message.agreement_id == invoice.agreement_id, || Refusal::Agreement {
            expected: invoice.agreement_id,
            found: message.agreement_id,
        })?;
        require(promise.hashlock == invoice.hashlock, || Refusal::Hashlock)?;
        require(promise.fee == invoice.fee, || Refusal::Fee {
            expected: invoice.fee,
            found: promise.fee,
        })?;
        let (expected, found) = (invoice.agreement_total, message.agreement_total);
        require(found >= expected, || Refusal::TooLittle { expected, found })?;
        require(found <= expected, || Refusal::TooMuch { expected, found })?;
        require(found > before.paid, || Refusal::Replayed { paid: before.paid })?;

        // Others are paid from the same channel, so its amount may have risen by more.
        let gained = found - before.paid;
        let least = before.amount.saturating_add(gained);
        require(promise.amount >= least, || Refusal::Amount { least, found: promise.amount })?;

        let found = promise.signer().map_err(Refusal::PromiseSignature)?;
        require(found == before.consumer, || Refusal::PromiseSigner { found })?;
        let found = message.signer().map_err(Refusal::MessageSignature)?;
        require(found == before.consumer, || Refusal::MessageSigner { found })?;
        Ok(Paid { total: message.agreement_total, gained })
    }
}

fn require(holds: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal()) }
}

#[cfg(test)]
mod tests;
