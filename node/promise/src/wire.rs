//! Invoices and exchange messages as JSON: numbers are decimal texts (they are larger than what
//! JSON readers keep exactly), bytes are hex with or without `0x`.

use alloy_primitives::{Address, U256, hex};
use serde::{Deserialize, Serialize};

use super::{
    exchange::ExchangeMessage,
    invoice::Invoice,
    promise::{self, LengthError, Promise},
    signature::SignatureError,
};

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not hex.
    #[error("{0} is not hex")]
    Hex(&'static str),
    /// Not a number.
    #[error("{0} is not a decimal number below 2^256")]
    Number(&'static str),
    /// Not 20 bytes.
    #[error("{0} is not an address: it has 20 bytes in hex")]
    Address(&'static str),
    /// A field of the promise has the wrong length.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// The signature of one of the two has the wrong length.
    #[error("{0}: {1}")]
    Signature(&'static str, SignatureError),
}

/// A promise in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Promise`")]
pub struct PromiseText {
    pub chain_id: u64,
    pub channel_id: String,
    pub amount: String,
    pub fee: String,
    pub hashlock: String,
    pub signature: String,
}

/// An exchange message in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `ExchangeMessage`")]
pub struct ExchangeText {
    pub promise: PromiseText,
    pub agreement_id: String,
    pub agreement_total: String,
    pub provider: String,
    /// Empty for none.
    #[serde(default)]
    pub hermes_id: String,
    pub chain_id: u64,
    pub signature: String,
}

/// An invoice in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Invoice`")]
pub struct InvoiceText {
    pub agreement_id: String,
    pub agreement_total: String,
    pub transactor_fee: String,
    pub hashlock: String,
    pub provider: String,
    pub chain_id: u64,
}

impl From<&Invoice> for InvoiceText {
    fn from(invoice: &Invoice) -> Self {
        Self {
            agreement_id: invoice.agreement_id.to_string(),
            agreement_total: invoice.agreement_total.to_string(),
            transactor_fee: invoice.fee.to_string(),
            hashlock: hex::encode(invoice.hashlock),
            provider: invoice.provider.to_string(),
            chain_id: invoice.chain_id,
        }
    }
}

impl From<&ExchangeMessage> for ExchangeText {
    fn from(message: &ExchangeMessage) -> Self {
        let promise = &message.promise;
        Self {
            promise: PromiseText {
                chain_id: promise.chain_id,
                channel_id: hex::encode(promise.channel_id),
                amount: promise.amount.to_string(),
                fee: promise.fee.to_string(),
                hashlock: hex::encode(promise.hashlock),
                signature: hex::encode(promise.signature),
            },
            agreement_id: message.agreement_id.to_string(),
            agreement_total: message.agreement_total.to_string(),
            provider: message.provider.to_string(),
            hermes_id: message.hermes.map(|hermes| hermes.to_string()).unwrap_or_default(),
            chain_id: message.chain_id,
            signature: hex::encode(message.signature),
        }
    }
}

impl TryFrom<&ExchangeText> for ExchangeMessage {
    type Error = WireError;

    fn try_from(text: &ExchangeText) -> Result<Self, WireError> {
        let promise = &text.promise;
        Ok(Self {
            promise: Promise {
                chain_id: promise.chain_id,
                channel_id: promise::channel_id(&bytes("channel_id", &promise.channel_id)?)?,
                amount: number("amount", &promise.amount)?,
                fee: number("fee", &promise.fee)?,
                hashlock: promise::hashlock(&bytes("hashlock", &promise.hashlock)?)?,
                signature: signature("the promise", &promise.signature)?,
            },
            agreement_id: number("agreement_id", &text.agreement_id)?,
            agreement_total: number("agreement_total", &text.agreement_total)?,
            provider: address("provider", &text.provider)?,
            hermes: match text.hermes_id.as_str() {
                "" => None,
                hermes => Some(address("hermes_id", hermes)?),
            },
            chain_id: text.chain_id,
            signature: signature("the message", &text.signature)?,
        })
    }
}

fn bytes(what: &'static str, text: &str) -> Result<Vec<u8>, WireError> {
    hex::decode(text).map_err(|_| WireError::Hex(what))
}

/// A decimal number, without sign, spaces or other spellings.
///
/// # Errors
///
/// When it is none, or does not fit 256 bits.
pub fn number(what: &'static str, text: &str) -> Result<U256, WireError> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| U256::from_str_radix(text, 10).ok()).flatten().ok_or(WireError::Number(what))
}

/// An address of 20 bytes in hex.
///
/// # Errors
///
/// When it is none.
pub fn address(what: &'static str, text: &str) -> Result<Address, WireError> {
    let bytes = bytes(what, text)?;
    Address::try_from(bytes.as_slice()).map_err(|_| WireError::Address(what))
}

fn signature(what: &'static str, text: &str) -> Result<[u8; 65], WireError> {
    let bytes = bytes(what, text)?;
    let len = bytes.len();
    bytes.try_into().map_err(|_| WireError::Signature(what, SignatureError::Length(len)))
}
