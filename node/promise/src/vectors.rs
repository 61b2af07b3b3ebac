//! The network's own test vectors, both ways where their keys are given. The keys are public test
//! keys.

use alloy_primitives::{Address, B256, U256, hex, keccak256};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k256::ecdsa::SigningKey;
use serde_json::Value;

use super::{
    channel,
    exchange::ExchangeMessage,
    promise::{self, LengthError, Promise},
    signature::{self, SignatureError},
    wire::{self, ExchangeText},
};

pub(super) fn vectors() -> Value {
    serde_json::from_str(include_str!("../testdata/mysterium_promises.json")).expect("JSON")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    hex::decode(text(value, key)).expect("hex")
}

fn address(value: &Value, key: &str) -> Address {
    Address::from_slice(&bytes(value, key))
}

fn list<'v>(vectors: &'v Value, key: &str) -> &'v Vec<Value> {
    let list = vectors[key].as_array().expect("a list");
    assert!(!list.is_empty());
    list
}

pub(super) fn key(name: &str) -> (SigningKey, Address) {
    let vectors = vectors();
    let key = &vectors["keys"][name];
    let signing = SigningKey::from_slice(&bytes(key, "priv")).expect("a key");
    let address = address(key, "address");
    assert_eq!(signature::address_of(signing.verifying_key()), address, "{name}");
    (signing, address)
}

fn promise_of(vector: &Value) -> Promise {
    Promise {
        chain_id: vector["chain_id"].as_u64().expect("a chain"),
        channel_id: promise::channel_id(&bytes(vector, "channel_id")).expect("20 or 32 bytes"),
        amount: wire::number("amount", text(vector, "amount")).expect("a number"),
        fee: wire::number("fee", text(vector, "fee")).expect("a number"),
        hashlock: promise::hashlock(&bytes(vector, "hashlock")).expect("32 bytes"),
        signature: bytes(vector, "signature").try_into().expect("65 bytes"),
    }
}

fn message_of(vector: &Value, promise: Promise) -> ExchangeMessage {
    ExchangeMessage {
        promise,
        agreement_id: wire::number("id", text(vector, "agreement_id")).expect("a number"),
        agreement_total: wire::number("total", text(vector, "agreement_total")).expect("a number"),
        provider: address(vector, "provider"),
        hermes: (!text(vector, "hermes_id").is_empty()).then(|| address(vector, "hermes_id")),
        chain_id: vector["chain_id"].as_u64().expect("a chain"),
        signature: bytes(vector, "signature").try_into().expect("65 bytes"),
    }
}

#[test]
fn promises_hash_sign_and_recover_as_the_network_does() {
    for vector in list(&vectors(), "promises") {
        let promise = promise_of(vector);
        assert_eq!(promise.hash(), B256::from_slice(&bytes(vector, "hash")), "{vector}");
        let signer = match vector["signer"].as_str() {
            Some(name) => {
                let (key, address) = key(name);
                let unsigned = Promise { signature: [0; 65], ..promise };
                assert_eq!(unsigned.signed(&key), Ok(promise), "the same signature, byte by byte");
                address
            }
            None => address(vector, "signer_address"),
        };
        assert_eq!(promise.signer(), Ok(signer));
    }
}

#[test]
fn exchange_messages_hash_sign_and_recover_as_the_network_does() {
    let vectors = vectors();
    let named = |name: &str| {
        let mut promises = list(&vectors, "promises").iter();
        promise_of(promises.find(|promise| promise["name"] == name).expect("there"))
    };
    let (consumer, consumer_address) = key("consumer");
    let mut strangers = 0;
    for vector in list(&vectors, "exchange_messages") {
        let message = message_of(vector, named(text(vector, "promise")));
        assert_eq!(message.hash(), B256::from_slice(&bytes(vector, "hash")), "{vector}");
        let signer = address(vector, "recovers_to");
        assert_eq!(message.signer(), Ok(signer));
        let signed = message.signed(&consumer).expect("signed");
        if signer == consumer_address {
            assert_eq!(signed, message, "the same signature, byte by byte");
        } else {
            // Upstream put another message's signature there: it is not this consumer's.
            assert_ne!(signed, message);
            strangers += 1;
        }
        let text = ExchangeText::from(&message);
        assert_eq!(ExchangeMessage::try_from(&text), Ok(message), "as JSON and back");
    }
    assert_eq!(strangers, 1);
}

#[test]
fn hashlocks_and_channels_are_where_the_network_has_them() {
    let vectors = vectors();
    let lock = &vectors["hashlock"];
    assert_eq!(keccak256(bytes(lock, "r")), B256::from_slice(&bytes(lock, "hashlock")));
    for vector in list(&vectors, "channel_ids") {
        match vector["operator"].as_str() {
            Some(_) => assert_eq!(
                channel::hermes(
                    address(vector, "operator"),
                    address(vector, "registry"),
                    address(vector, "hermes_impl"),
                ),
                address(vector, "address"),
            ),
            None if vector["registry"].is_string() => assert_eq!(
                channel::consumer(
                    address(vector, "identity"),
                    address(vector, "hermes"),
                    address(vector, "registry"),
                    address(vector, "channel_impl"),
                ),
                address(vector, "address"),
            ),
            None => assert_eq!(
                channel::provider(address(vector, "identity"), address(vector, "hermes")),
                B256::from_slice(&bytes(vector, "channel_id")),
            ),
        }
    }
}

#[test]
fn identity_signatures_have_the_other_recovery_byte() {
    let (key, address) = key("node_signer");
    for vector in list(&vectors(), "identity_signatures") {
        let expected = match vector["signature_hex"].as_str() {
            Some(_) => bytes(vector, "signature_hex"),
            None => STANDARD.decode(text(vector, "signature_base64")).expect("base64"),
        };
        let digest = keccak256(text(vector, "message_utf8"));
        assert_eq!(signature::recover(&digest, &expected), Ok(address));
        let mut made = signature::sign(&digest, &key).expect("signed");
        assert_eq!(signature::recover(&digest, &made), Ok(address));
        made[64] -= 27;
        assert_eq!(made.as_slice(), expected);
    }
}

#[test]
fn what_is_no_signature_is_refused_by_name() {
    let promise = promise_of(&list(&vectors(), "promises")[0]);
    let digest = promise.hash();
    let good = promise.signature;
    for len in [0, 64, 66] {
        let error = signature::recover(&digest, &vec![1; len]);
        assert_eq!(error, Err(SignatureError::Length(len)));
    }
    for byte in (0..=255).filter(|byte| ![0, 1, 27, 28].contains(byte)) {
        let mut bad = good;
        bad[64] = byte;
        let error = signature::recover(&digest, &bad);
        assert_eq!(error, Err(SignatureError::RecoveryByte(byte)));
    }
    for half in [0..32, 32..64] {
        for fill in [0, 0xff] {
            let mut bad = good;
            bad[half.clone()].fill(fill);
            assert_eq!(signature::recover(&digest, &bad), Err(SignatureError::Range));
        }
    }
    // The order of the curve less s, with the other v, is the same signature's second spelling.
    const ORDER: U256 = alloy_primitives::uint!(
        0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256
    );
    let s = U256::from_be_slice(&good[32..64]);
    let mut high = good;
    high[32..64].copy_from_slice(&(ORDER - s).to_be_bytes::<32>());
    high[64] = 27 + (28 - high[64]);
    assert_eq!(signature::recover(&digest, &high), Err(SignatureError::HighS));
}

#[test]
fn lengths_that_the_hash_would_pad_over_are_refused() {
    for len in [0, 19, 21, 31, 33, 64] {
        assert_eq!(promise::channel_id(&vec![0; len]), Err(LengthError::Channel(len)));
        assert_eq!(promise::hashlock(&vec![0; len]), Err(LengthError::Hashlock(len)));
    }
    assert_eq!(promise::hashlock(&[0; 20]), Err(LengthError::Hashlock(20)));
}
