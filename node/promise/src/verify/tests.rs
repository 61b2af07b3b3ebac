use alloy_primitives::{B256, U256};
use k256::ecdsa::SigningKey;

use super::*;
use crate::{invoice::Preimage, promise::Promise, vectors};

struct Deal {
    terms: Terms,
    key: SigningKey,
    invoice: Invoice,
    before: Before,
}

fn deal() -> Deal {
    let (key, consumer) = vectors::key("consumer");
    let address = |byte| Address::repeat_byte(byte);
    let terms = Terms {
        chain_id: 137,
        provider: address(0x11),
        hermes: address(0x22),
        registry: address(0x33),
        channel_implementation: address(0x44),
    };
    let invoice = Invoice {
        agreement_id: U256::from(0x1234_5678),
        agreement_total: U256::from(5000),
        fee: U256::from(8),
        hashlock: Preimage::new([7; 32]).hashlock(),
        provider: terms.provider,
        chain_id: 137,
    };
    let before = Before { consumer, amount: U256::from(70_000), paid: U256::from(4000) };
    Deal { terms, key, invoice, before }
}

impl Deal {
    fn promise(&self) -> Promise {
        Promise {
            chain_id: 137,
            channel_id: self.terms.channel_of(self.before.consumer).into_word(),
            amount: U256::from(71_000),
            fee: self.invoice.fee,
            hashlock: self.invoice.hashlock,
            signature: [0; 65],
        }
    }

    fn message_with(&self, promise: Promise) -> ExchangeMessage {
        ExchangeMessage {
            promise: promise.signed(&self.key).expect("signed"),
            agreement_id: self.invoice.agreement_id,
            agreement_total: self.invoice.agreement_total,
            provider: self.terms.provider,
            hermes: Some(self.terms.hermes),
            chain_id: 137,
            signature: [0; 65],
        }
    }

    fn message(&self) -> ExchangeMessage {
        self.signed(self.message_with(self.promise()))
    }

    fn signed(&self, message: ExchangeMessage) -> ExchangeMessage {
        message.signed(&self.key).expect("signed")
    }

    fn judge(&self, message: &ExchangeMessage) -> Result<Paid, Refusal> {
        self.terms.verify(message, &self.invoice, &self.before)
    }
}

#[test]
fn a_good_payment_is_worth_what_the_agreement_gained() {
    let deal = deal();
    let paid = Paid { total: U256::from(5000), gained: U256::from(1000) };
    assert_eq!(deal.judge(&deal.message()), Ok(paid));
    // Another provider was paid from the same channel meanwhile: that is no credit with us.
    let promise = Promise { amount: U256::from(99_000), ..deal.promise() };
    assert_eq!(deal.judge(&deal.signed(deal.message_with(promise))), Ok(paid));
}

/// Every bit of a number, and of bytes.
fn number(value: U256) -> impl Iterator<Item = U256> {
    (0..256).map(move |bit| value ^ (U256::from(1) << bit))
}

fn flipped<const N: usize>(value: [u8; N]) -> impl Iterator<Item = [u8; N]> {
    (0..N * 8).map(move |bit| {
        let mut other = value;
        other[bit / 8] ^= 1 << (bit % 8);
        other
    })
}

fn chains() -> impl Iterator<Item = u64> {
    (0..64).map(|bit| 137 ^ (1 << bit))
}

#[test]
fn every_field_altered_by_one_bit_is_refused_with_its_own_error() {
    use Refusal as R;
    let deal = deal();
    let good = deal.message();
    let altered = |alter: &dyn Fn(&mut ExchangeMessage)| {
        let mut message = good;
        alter(&mut message);
        deal.judge(&message).expect_err("altered")
    };
    for chain in chains() {
        let refusal = altered(&|m| m.promise.chain_id = chain);
        assert!(matches!(refusal, R::PromiseChain { .. }), "{refusal}");
        let refusal = altered(&|m| m.chain_id = chain);
        assert!(matches!(refusal, R::MessageChain { .. }), "{refusal}");
    }
    for id in flipped(good.promise.channel_id.0) {
        let refusal = altered(&|m| m.promise.channel_id = B256::new(id));
        assert!(matches!(refusal, R::Channel { .. }), "{refusal}");
    }
    for lock in flipped(good.promise.hashlock.0) {
        assert_eq!(altered(&|m| m.promise.hashlock = B256::new(lock)), R::Hashlock);
    }
    for amount in number(good.promise.amount) {
        // A higher one is in order by itself; that it is not what was signed gives it away.
        let refusal = altered(&|m| m.promise.amount = amount);
        let is_lower = amount < good.promise.amount;
        assert!(
            matches!(refusal, R::Amount { .. }) && is_lower
                || matches!(refusal, R::PromiseSigner { .. } | R::PromiseSignature(_)) && !is_lower,
            "{refusal}"
        );
    }
    for fee in number(good.promise.fee) {
        let refusal = altered(&|m| m.promise.fee = fee);
        assert!(matches!(refusal, R::Fee { .. }), "{refusal}");
    }
    for id in number(good.agreement_id) {
        let refusal = altered(&|m| m.agreement_id = id);
        assert!(matches!(refusal, R::Agreement { .. }), "{refusal}");
    }
    for total in number(good.agreement_total) {
        let refusal = altered(&|m| m.agreement_total = total);
        assert!(matches!(refusal, R::TooLittle { .. } | R::TooMuch { .. }), "{refusal}");
    }
    for provider in flipped(good.provider.into_array()) {
        let refusal = altered(&|m| m.provider = provider.into());
        assert!(matches!(refusal, R::Provider { .. }), "{refusal}");
    }
    for hermes in flipped(deal.terms.hermes.into_array()) {
        let refusal = altered(&|m| m.hermes = Some(hermes.into()));
        assert!(matches!(refusal, R::Hermes { .. }), "{refusal}");
    }
    assert!(matches!(altered(&|m| m.hermes = None), R::Hermes { .. }));
    for signature in flipped(good.promise.signature) {
        let refusal = altered(&|m| m.promise.signature = signature);
        assert!(matches!(refusal, R::PromiseSigner { .. } | R::PromiseSignature(_)), "{refusal}");
    }
    for signature in flipped(good.signature) {
        let refusal = altered(&|m| m.signature = signature);
        assert!(matches!(refusal, R::MessageSigner { .. } | R::MessageSignature(_)), "{refusal}");
    }
}

#[test]
fn a_cheat_who_signs_what_he_alters_is_refused_all_the_same() {
    use Refusal as R;
    let deal = deal();
    let judge = |promise: Promise, alter: &dyn Fn(&mut ExchangeMessage)| {
        let mut message = deal.message_with(promise);
        alter(&mut message);
        deal.judge(&deal.signed(message)).expect_err("a cheat")
    };
    let good = deal.promise();
    let none = |_: &mut ExchangeMessage| {};
    let too_low = Promise { amount: good.amount - U256::from(1), ..good };
    assert!(matches!(judge(too_low, &none), R::Amount { .. }));
    let other = Promise { channel_id: B256::repeat_byte(5), ..good };
    assert!(matches!(judge(other, &none), R::Channel { .. }));
    let pays_less = |m: &mut ExchangeMessage| m.agreement_total -= U256::from(1);
    assert!(matches!(judge(good, &pays_less), R::TooLittle { .. }));
    let replay = Before { paid: deal.invoice.agreement_total, ..deal.before };
    let refusal = deal.terms.verify(&deal.message(), &deal.invoice, &replay);
    assert!(matches!(refusal, Err(R::Replayed { .. })));

    let (stranger, address) = vectors::key("provider");
    let promise = deal.promise().signed(&stranger).expect("signed");
    let message = deal.signed(ExchangeMessage { promise, ..deal.message() });
    assert_eq!(deal.judge(&message), Err(R::PromiseSigner { found: address }));
    let message = deal.message().signed(&stranger).expect("signed");
    assert_eq!(deal.judge(&message), Err(R::MessageSigner { found: address }));
}
