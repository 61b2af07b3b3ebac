//! A consumer who pays, for tests.

use alloy_primitives::{Address, U256};
use k256::ecdsa::SigningKey;
use weir_promise::{ExchangeMessage, Invoice, Promise, Terms, signature};

/// A consumer who pays what it is asked.
pub struct Consumer {
    pub key: SigningKey,
    pub promised: U256,
    pub paid: U256,
}

impl Default for Consumer {
    fn default() -> Self {
        Self::new()
    }
}

impl Consumer {
    pub fn new() -> Self {
        let key = SigningKey::from_slice(&[9; 32]).expect("a key");
        Self { key, promised: U256::from(500), paid: U256::ZERO }
    }

    pub fn address(&self) -> Address {
        signature::address_of(self.key.verifying_key())
    }

    pub fn answer_by(&mut self, terms: &Terms, invoice: &Invoice) -> ExchangeMessage {
        self.promised += invoice.agreement_total - self.paid;
        self.paid = invoice.agreement_total;
        let promise = Promise {
            chain_id: terms.chain_id,
            channel_id: terms.channel_of(self.address()).into_word(),
            amount: self.promised,
            fee: invoice.fee,
            hashlock: invoice.hashlock,
            signature: [0; 65],
        };
        let message = ExchangeMessage {
            promise: promise.signed(&self.key).expect("signed"),
            agreement_id: invoice.agreement_id,
            agreement_total: invoice.agreement_total,
            provider: invoice.provider,
            hermes: Some(terms.hermes),
            chain_id: terms.chain_id,
            signature: [0; 65],
        };
        message.signed(&self.key).expect("signed")
    }
}
