//! Fuzz targets over what people and programs write: promises, the configuration, lists, DNS
//! messages, ecash, vouchers, listings, orders. They are apart from those over packets (`weir_fuzz`), because they need
//! the ledger and
//! the control plane.

mod attestations;
mod orders;

use std::sync::OnceLock;

mod registry;

pub use registry::{filters, queries, relay};

use alloy_primitives::{Address, U256};
use k256::ecdsa::SigningKey;
use tokio::runtime::Runtime;
use weir_config::check;
use weir_control::gateway::dns::forwarder::Forwarder;
use weir_ecash::{
    Keysets, Outputs, Rules, WalletToken, WantedPayment, check_response, testing::FakeMint, verify,
};
use weir_fuzz::Target;
use weir_ledger::vouchers::Code;
use weir_market::{
    event::{
        Address as ListingAddress, Event, MAX_AGE, SignedListing, deleted, expires, sign_listing,
        work,
    },
    key::MarketKey,
    place,
};
use weir_policy::Lists;
use weir_promise::{
    exchange::ExchangeMessage,
    invoice::{Invoice, Preimage},
    promise::Promise,
    signature::address_of,
    verify::{Before, Terms},
    wire::ExchangeText,
};
use weir_receipt::Answer;

pub use attestations::attestations;
pub use orders::orders;

/// All of them, by name. The cases of each are in `cases/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("promises", promises),
    ("config", config),
    ("lists", lists),
    ("names", names),
    ("tokens", tokens),
    ("vouchers", vouchers),
    ("receipts", receipts),
    ("relay", relay),
    ("filters", filters),
    ("queries", queries),
    ("orders", orders),
    ("listings", listings),
    ("attestations", attestations),
];

/// A deal, and the message that pays it.
struct Deal {
    terms: Terms,
    invoice: Invoice,
    before: Before,
    message: ExchangeMessage,
    text: Vec<u8>,
}

fn deal() -> &'static Deal {
    static DEAL: OnceLock<Deal> = OnceLock::new();
    DEAL.get_or_init(|| {
        let key = SigningKey::from_slice(&[7; 32]).expect("a key");
        let consumer = address_of(key.verifying_key());
        let address = Address::repeat_byte;
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
        let promise = Promise {
            chain_id: 137,
            channel_id: terms.channel_of(consumer).into_word(),
            amount: U256::from(71_000),
            fee: invoice.fee,
            hashlock: invoice.hashlock,
            signature: [0; 65],
        };
        let message = ExchangeMessage {
            promise: promise.signed(&key).expect("signed"),
            agreement_id: invoice.agreement_id,
            agreement_total: invoice.agreement_total,
            provider: terms.provider,
            hermes: Some(terms.hermes),
            chain_id: 137,
            signature: [0; 65],
        };
        let message = message.signed(&key).expect("signed");
        let text = serde_json::to_vec(&ExchangeText::from(&message)).expect("JSON");
        Deal { terms, invoice, before, message, text }
    })
}

/// A message is any text, or the right one with changes: what passes is the right one.
pub fn promises(bytes: &[u8]) {
    let deal = deal();
    let mut text = match bytes.split_first() {
        Some((0, changes)) => {
            let mut text = deal.text.clone();
            for change in changes.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % text.len();
                text[at] = change[2];
            }
            text
        }
        _ => bytes.to_vec(),
    };
    let Ok(read) = serde_json::from_slice::<ExchangeText>(&text) else { return };
    let Ok(message) = ExchangeMessage::try_from(&read) else { return };
    text = serde_json::to_vec(&ExchangeText::from(&message)).expect("JSON");
    let again = serde_json::from_slice::<ExchangeText>(&text).expect("it was written so");
    assert_eq!(ExchangeMessage::try_from(&again), Ok(message));
    if let Ok(paid) = deal.terms.verify(&message, &deal.invoice, &deal.before) {
        assert_eq!(message, deal.message, "a forged message is taken");
        assert_eq!(paid.gained, U256::from(1000));
    }
}

/// A configuration has its mistakes named, each once, or none.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(mistakes) = check(&text, Some(1500)) {
        assert!(!mistakes.is_empty());
        for mistake in mistakes {
            assert!(!mistake.to_string().is_empty());
        }
    }
}

/// A list is read as a whole or refused by its lines, with short words.
pub fn lists(bytes: &[u8]) {
    match Lists::of_texts(bytes, bytes) {
        Ok(lists) => {
            let ports = lists.blocked_ports();
            for (low, high) in ports.tcp.iter().chain(&ports.udp) {
                assert!(low <= high);
            }
        }
        Err(error) => assert!(error.to_string().len() < 64 * 1024),
    }
}

/// A question is answered by a message that is no question, in so many bytes, or not at all; of
/// what comes from upstream nothing makes the filter panic.
pub fn names(bytes: &[u8]) {
    static SERVICE: OnceLock<(Runtime, Forwarder)> = OnceLock::new();
    let (runtime, forwarder) = SERVICE.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let forwarder = Forwarder::new(&[], 16, Vec::new()).expect("a forwarder");
        (runtime, forwarder)
    });
    for is_datagram in [false, true] {
        let answer = runtime.block_on(forwarder.answer(bytes, is_datagram));
        let Some(answer) = answer else { continue };
        assert!(answer.len() >= 12 && answer[2] & 0x80 != 0, "{answer:x?} is no answer");
        assert_eq!(answer[..2], bytes[..2], "another question's number");
        assert!(!is_datagram || answer.len() <= 1232, "{} bytes", answer.len());
    }
    drop(forwarder.filter(bytes));
}

/// A token is any text, or the right one with changes: what is taken is worth no more than the right one, to the same
/// key. What a mint answers is read or refused.
pub fn tokens(bytes: &[u8]) {
    static PAID: OnceLock<(Keysets, String, [u8; 32])> = OnceLock::new();
    let lock = weir_ecash::testing::key(5);
    let rules = Rules { lock: &lock, locked_until: 1_800_000_000 };
    let (known, good, hash) = PAID.get_or_init(|| {
        let mint = FakeMint::new("http://mint.example", 7, 0);
        let (known, token) = (mint.known(), mint.token(21, &lock.public()));
        let verified = verify(&token, |_| Some(&known), &rules).expect("it is good");
        (known, token, verified.hash)
    });
    let text = match bytes.split_first() {
        Some((0, changes)) => {
            let mut text = good.clone().into_bytes();
            for change in changes.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % text.len();
                text[at] = change[2];
            }
            String::from_utf8_lossy(&text).into_owned()
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    match verify(&text, |_| Some(known), &rules) {
        Ok(taken) => assert_eq!((taken.worth, taken.hash), (21, *hash), "a forged token is taken"),
        Err(refusal) => assert!(!refusal.word().is_empty()),
    }
    // As a consumer's wallet reads a token, and what a node asks a payer for.
    drop(WalletToken::parse(&text).and_then(|token| token.proofs(known)));
    drop(WantedPayment::parse(&text));
    let mut keysets = known.clone();
    drop(keysets.update(bytes));
    drop(keysets.add_keys(bytes));
    drop(check_response(&[[2; 33]], bytes));
    if let Ok(outputs) = Outputs::from_json(&text) {
        drop(outputs.open(known, bytes));
        drop(outputs.open_restored(known, bytes));
    }
}

/// A text is a voucher's code, which is printed and read again, or none.
pub fn vouchers(bytes: &[u8]) {
    if let Some(code) = Code::parse(&String::from_utf8_lossy(bytes)) {
        assert_eq!(Code::parse(&code.to_string()), Some(code));
    }
}

/// What a node answers about a session's use. A receipt that verifies is the one that was signed:
/// nothing in it was changed.
pub fn receipts(bytes: &[u8]) {
    static SIGNED: OnceLock<Answer> = OnceLock::new();
    let signed = SIGNED.get_or_init(|| {
        let case = include_str!("../cases/receipts/signed");
        serde_json::from_str(case).expect("an answer")
    });
    let Ok(answer) = serde_json::from_slice::<Answer>(bytes) else { return };
    let Some(receipt) = &answer.receipt else { return };
    if receipt.verify(&signed.signer).is_ok() {
        assert_eq!(Some(receipt), signed.receipt.as_ref(), "a forged receipt is believed");
    }
}

/// When the cases of [`listings`] count, in seconds since 1970.
const LISTED_AT: u64 = 1_800_000_000;

/// An event of a stranger is a listing or none. One that counts is verified and expires, and what is
/// read of it is read again when it is written. The same text is a database of addresses.
pub fn listings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    drop(place::parse(&text));
    if let Ok(signed) = SignedListing::from_json(&text, LISTED_AT) {
        assert!(signed.event.verify().is_ok());
        assert!(signed.expires() > LISTED_AT && signed.expires() <= LISTED_AT + 2 * MAX_AGE);
    }
    let Ok(event) = Event::from_json(text.as_bytes()) else { return };
    // What it says about others' listings does not count.
    let own = |address: &ListingAddress| address.key == event.pubkey.to_bytes();
    assert!(deleted(&event).addresses.iter().all(own));
    let _ = (work(&event), expires(&event), ListingAddress::of(&event));
    if let Ok(signed) = SignedListing::read(event) {
        let written = sign_listing(listing_key(), &signed.listing, LISTED_AT, 0);
        let read = SignedListing::read(written).expect("what weir writes, it reads");
        assert_eq!(read.listing, signed.listing);
    }
}

fn listing_key() -> &'static MarketKey {
    static KEY: OnceLock<MarketKey> = OnceLock::new();
    KEY.get_or_init(MarketKey::random)
}
