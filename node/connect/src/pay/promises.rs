//! Promises that pay as the session goes (`docs/payments.md`). Its unit is one wei.

mod record;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, U256, hex};
use anyhow::{Context as _, ensure};
use k256::ecdsa::SigningKey;
use weir_promise::{
    ExchangeMessage, Price, Promise, Use,
    account::{AccountView, AgreementRequest, AgreementView},
    signature::address_of,
    wire::{InvoiceText, address, number},
};

use self::record::{Agreed, Channel, Record};
use super::{OverBudget, Payer, TopUp};
use crate::{clock::SECOND, gateway::Gateway};

const UNIT: &str = "wei";
/// Between two payments, in nanoseconds: no mint is asked, and a node renews its invoice each second.
const MIN_INTERVAL: u64 = SECOND;
/// What a node's count of seconds may be ahead of this machine's.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// A consumer's identity on the chain, and what its channels have promised so far.
pub struct Promises {
    key: SigningKey,
    record: Record,
    /// The seconds of the session at the first payment here, and when that was.
    began: Option<(u64, Instant)>,
}

impl std::fmt::Debug for Promises {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Promises").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

/// What is to be paid, checked against what was agreed and promised before.
struct Due {
    message: ExchangeMessage,
    channel: Channel,
    agreed: Agreed,
    cost: u64,
}

impl Promises {
    /// Reads the key of the identity, 32 bytes in hex, from a file that its owner alone can read.
    /// What the channels have promised is in a file beside it, with `.promised` at the end. One
    /// process can use a key at a time.
    ///
    /// # Errors
    ///
    /// When one of the files cannot be used, or another process uses the key.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let key = record::read_key(path)?;
        let record = Record::open(path)?;
        Ok(Self { key, record, began: None })
    }

    /// The identity's address on the chain.
    #[must_use]
    pub fn identity(&self) -> Address {
        address_of(self.key.verifying_key())
    }

    async fn pay(&mut self, gateway: &Gateway, at_most: u64) -> anyhow::Result<u64> {
        let mut account = gateway.account().await?;
        if account.agreement.is_none() {
            let consumer = self.identity().to_string();
            let request = AgreementRequest { consumer, per_gib: None, per_hour: None };
            account = gateway.agree(&request).await?;
        }
        let now = Instant::now();
        let (began, at) = *self.began.get_or_insert((account.seconds, now));
        let passed = now.duration_since(at) + CLOCK_TOLERANCE;
        ensure!(
            account.seconds.saturating_sub(began) <= passed.as_secs(),
            "the node counts {} s in {} s, so its invoice is not paid",
            account.seconds.saturating_sub(began),
            now.duration_since(at).as_secs()
        );
        let Some(due) = self.due(&account, at_most)? else { return Ok(0) };
        // A promise that was sent may be settled, whatever the node answers.
        self.record.promised(due.channel, due.agreed).context("nothing was paid")?;
        gateway.pay_promise(&due.message).await?;
        Ok(due.cost)
    }

    /// What the account's invoice asks for; `None` if nothing is due.
    fn due(&self, account: &AccountView, at_most: u64) -> anyhow::Result<Option<Due>> {
        let agreement = account.agreement.as_ref().context("the node makes no agreement")?;
        let identity = self.identity();
        ensure!(
            address("consumer", &agreement.consumer)? == identity,
            "the session is paid by {}, and this key is that of {identity}. Fix: use the key of \
             that identity, or get a new session",
            agreement.consumer
        );
        let Some(invoice) = &account.invoice else { return Ok(None) };
        let terms = account.terms.terms()?;
        ensure!(
            invoice.agreement_id == agreement.agreement_id
                && invoice.chain_id == terms.chain_id
                && address("provider", &invoice.provider)? == terms.provider,
            "the node's invoice is not one of this session's agreement"
        );
        let price = price_of(agreement)?;
        let channel_id = terms.channel_of(identity);
        let (promised, before) = (
            self.record.promised_by(terms.chain_id, channel_id),
            self.record.agreed(&agreement.agreement_id),
        );
        if let Some(before) = &before {
            ensure!(
                before.price == price,
                "the node asks for another price than it agreed to, so its invoice is not paid"
            );
        }
        let total = total_of(invoice, account, price)?;
        let theirs = number("paid", &agreement.paid)?;
        let paid = before.map_or(U256::ZERO, |before| before.paid).max(theirs);
        if total <= paid {
            return Ok(None);
        }
        // What the node knows of the channel counts where the record was lost. It is no free gift:
        // all that is promised beyond the record is part of the cost.
        let known = promised.max(number("promised", &agreement.promised)?);
        let amount = known.checked_add(total - paid).context("the amount is too large")?;
        let cost = u64::try_from(amount - promised).ok().filter(|cost| *cost <= at_most);
        let Some(cost) = cost else {
            let asked = (amount - promised).to_string();
            return Err(OverBudget { asked, left: at_most, unit: UNIT }.into());
        };
        let promise = Promise {
            chain_id: terms.chain_id,
            channel_id: channel_id.into_word(),
            amount,
            fee: number("transactor_fee", &invoice.transactor_fee)?,
            hashlock: hex::decode_to_array(&invoice.hashlock).context("the hashlock")?.into(),
            signature: [0; 65],
        };
        let message = ExchangeMessage {
            promise: promise.signed(&self.key)?,
            agreement_id: number("agreement_id", &agreement.agreement_id)?,
            agreement_total: total,
            provider: terms.provider,
            hermes: Some(terms.hermes),
            chain_id: terms.chain_id,
            signature: [0; 65],
        };
        let message = message.signed(&self.key)?;
        let channel = Channel { chain_id: terms.chain_id, id: channel_id, promised: amount };
        let agreed = Agreed { id: agreement.agreement_id.clone(), price, paid: total };
        Ok(Some(Due { message, channel, agreed, cost }))
    }
}

/// The price that was agreed.
fn price_of(agreement: &AgreementView) -> anyhow::Result<Price> {
    let wei = |what: &'static str, text: &str| -> anyhow::Result<u128> {
        u128::try_from(number(what, text)?).with_context(|| format!("{what} is too large"))
    };
    Ok(Price {
        per_gib: wei("per_gib", &agreement.per_gib)?,
        per_hour: wei("per_hour", &agreement.per_hour)?,
    })
}

/// What an invoice asks for in all. It must not be more than what the price gives for the use that
/// the node bills, which is compared with this machine's own count elsewhere.
fn total_of(invoice: &InvoiceText, account: &AccountView, price: Price) -> anyhow::Result<U256> {
    let total = number("agreement_total", &invoice.agreement_total)?;
    let bytes = account.bytes.saturating_sub(account.covered_bytes);
    let due = price.due(Use { bytes, seconds: account.seconds });
    // The first invoice is for 1 wei, before anything was used.
    ensure!(
        total <= due.max(U256::from(1)),
        "the node asks for {total} wei, and what it bills costs {due}, so its invoice is not paid"
    );
    Ok(total)
}

impl Payer for Promises {
    fn unit(&self) -> &'static str {
        UNIT
    }

    fn min_interval(&self) -> u64 {
        MIN_INTERVAL
    }

    fn top_up<'a>(&'a mut self, gateway: &'a Gateway, at_most: u64) -> TopUp<'a> {
        Box::pin(self.pay(gateway, at_most))
    }
}

#[cfg(test)]
mod tests;
