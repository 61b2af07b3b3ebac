//! The handshake against known vectors, and against another implementation of Noise byte by byte.

use snow::{Builder, HandshakeState, params::NoiseParams};
use weir_common::wire::{INITIATION_LEN, RESPONSE_LEN};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{
    handshake::{Initiation, Initiator, Responder},
    symmetric::derive,
};
use crate::{
    aead,
    identity::Identity,
    initiation::{Claim, agree},
    timestamp::Timestamp,
};

const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const INITIATOR: [u8; 32] = [1; 32];
const RESPONDER: [u8; 32] = [2; 32];
const EPHEMERAL_OF_INITIATOR: [u8; 32] = [3; 32];
const EPHEMERAL_OF_RESPONDER: [u8; 32] = [4; 32];

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hex")
        })
        .collect()
}

/// The vectors of wireguard-go (device/kdf_test.go).
#[test]
fn keys_are_derived_as_by_wireguard_go() {
    for (key, input, wanted) in [
        (
            "746573742d6b6579",
            "746573742d696e707574",
            [
                "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
                "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
                "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
            ],
        ),
        (
            "776972656775617264",
            "776972656775617264",
            [
                "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
                "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
                "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
            ],
        ),
        (
            "",
            "",
            [
                "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
                "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
                "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
            ],
        ),
    ] {
        let derived: [_; 3] = derive(&bytes(key), &bytes(input));
        assert_eq!(derived.map(|key| key.to_vec()), wanted.map(bytes));
        let [first]: [_; 1] = derive(&bytes(key), &bytes(input));
        assert_eq!(first.to_vec(), bytes(wanted[0]));
    }
}

/// One side by snow.
fn snow(
    private: [u8; 32],
    ephemeral: [u8; 32],
    psk: [u8; 32],
    is_initiator: bool,
) -> HandshakeState {
    let name: NoiseParams = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().expect("a name");
    let remote = PublicKey::from(&StaticSecret::from(RESPONDER)).to_bytes();
    let builder = Builder::new(name)
        .prologue(PROLOGUE)
        .and_then(|builder| builder.psk(2, &psk))
        .and_then(|builder| builder.local_private_key(&private))
        .expect("new settings")
        .fixed_ephemeral_key_for_testing_only(&ephemeral);
    if is_initiator {
        let builder = builder.remote_public_key(&remote).expect("a key");
        builder.build_initiator().expect("an initiator")
    } else {
        builder.build_responder().expect("a responder")
    }
}

/// What of the messages is Noise's: the ephemeral key and the sealed fields.
fn noise_of_initiation(message: &[u8; INITIATION_LEN]) -> &[u8] {
    &message[8..INITIATION_LEN - 32]
}

fn noise_of_response(message: &[u8; RESPONSE_LEN]) -> &[u8] {
    &message[12..RESPONSE_LEN - 32]
}

#[test]
fn both_roles_write_what_another_implementation_of_noise_writes() {
    for psk in [[0; 32], [9; 32]] {
        let (consumer, node) = (Identity::new(INITIATOR), Identity::new(RESPONDER));
        let shared = agree(&consumer, node.public().to_bytes()).expect("of full order");
        let timestamp = Timestamp::from_unix(1_700_000_000, 5);
        let mut initiation = [0; INITIATION_LEN];
        let ephemeral = StaticSecret::from(EPHEMERAL_OF_INITIATOR);
        let initiator = Initiator::begin(
            &consumer,
            node.public(),
            &shared,
            ephemeral,
            7,
            timestamp,
            &mut initiation,
        )
        .expect("keys of full order");
        let mut snow_initiator = snow(INITIATOR, EPHEMERAL_OF_INITIATOR, psk, true);
        let mut snow_responder = snow(RESPONDER, EPHEMERAL_OF_RESPONDER, psk, false);
        let mut buffer = [0; 256];
        let len = snow_initiator.write_message(&timestamp.to_tai64n(), &mut buffer).expect("fits");
        assert_eq!(&buffer[..len], noise_of_initiation(&initiation));
        let mut payload = [0; 64];
        let read = snow_responder.read_message(&buffer[..len], &mut payload).expect("authentic");
        assert_eq!(payload[..read], timestamp.to_tai64n());

        let claim = Claim::read(&node, &initiation).expect("for this node");
        assert_eq!(claim.static_public, consumer.public().to_bytes());
        let shared = agree(&node, claim.static_public).expect("of full order");
        let (read, responder) = claim.accept(&shared).expect("authentic");
        assert_eq!(read, timestamp);
        assert_eq!(responder.index, 7);
        let mut response = [0; RESPONSE_LEN];
        let ephemeral = StaticSecret::from(EPHEMERAL_OF_RESPONDER);
        let keys_of_responder = responder
            .respond(consumer.public(), &psk, &ephemeral, 8, &mut response)
            .expect("keys of full order");
        let len = snow_responder.write_message(&[], &mut buffer).expect("fits");
        assert_eq!(&buffer[..len], noise_of_response(&response));
        snow_initiator.read_message(&buffer[..len], &mut payload).expect("authentic");

        let (keys_of_initiator, index) =
            initiator.finish(&consumer, &psk, &response).expect("authentic");
        assert_eq!(index, 8);
        let node_to_consumer = snow_responder.into_stateless_transport_mode().expect("finished");
        let (keys, other, counter) = (keys_of_initiator, keys_of_responder, 5);
        // What one side sends, the other opens, and so does snow.
        let mut sealed = [0; 21];
        aead::seal(keys.send_key(), counter, &[], b"hello", &mut sealed).expect("fits");
        let mut opened = [0; 5];
        aead::open(other.receive_key(), counter, &[], &sealed, &mut opened).expect("fits");
        assert_eq!(&opened, b"hello");
        let len = node_to_consumer.read_message(counter, &sealed, &mut buffer);
        assert_eq!(len.map(|len| buffer[..len].to_vec()).expect("authentic"), b"hello");
        aead::seal(other.send_key(), counter, &[], b"olleh", &mut sealed).expect("fits");
        aead::open(keys.receive_key(), counter, &[], &sealed, &mut opened).expect("fits");
        assert_eq!(&opened, b"olleh");
    }
}

/// A handshake up to the response.
fn started() -> (Identity, Identity, Initiator, [u8; RESPONSE_LEN]) {
    let (consumer, node) = (Identity::new(INITIATOR), Identity::new(RESPONDER));
    let shared = agree(&consumer, node.public().to_bytes()).expect("of full order");
    let mut initiation = [0; INITIATION_LEN];
    let ephemeral = StaticSecret::from(EPHEMERAL_OF_INITIATOR);
    let timestamp = Timestamp::from_unix(1, 0);
    let initiator = Initiator::begin(
        &consumer,
        node.public(),
        &shared,
        ephemeral,
        7,
        timestamp,
        &mut initiation,
    )
    .expect("keys of full order");
    let claim = Claim::read(&node, &initiation).expect("for this node");
    let (_, responder) =
        claim.accept(&agree(&node, claim.static_public).expect("a secret")).expect("authentic");
    let mut response = [0; RESPONSE_LEN];
    let ephemeral = StaticSecret::from(EPHEMERAL_OF_RESPONDER);
    responder.respond(consumer.public(), &[9; 32], &ephemeral, 8, &mut response).expect("keys");
    (consumer, node, initiator, response)
}

#[test]
fn a_response_with_any_bit_altered_is_none_and_the_right_one_still_counts() {
    let (consumer, _, initiator, response) = started();
    // The sender's index is not authenticated by Noise, but by the MAC.
    for at in (0..4).chain(8..RESPONSE_LEN - 32) {
        for bit in 0..8 {
            // X25519 ignores the highest bit of a public key, but the hash does not.
            let mut altered = response;
            altered[at] ^= 1 << bit;
            assert!(initiator.finish(&consumer, &[9; 32], &altered).is_none(), "{at}.{bit}");
        }
    }
    assert!(initiator.finish(&consumer, &[8; 32], &response).is_none(), "another pre-shared key");
    assert!(initiator.finish(&consumer, &[9; 32], &response[1..]).is_none());
    assert!(initiator.finish(&consumer, &[9; 32], &response).is_some());
}

#[test]
fn ephemeral_keys_of_low_order_are_refused_in_both_roles() {
    let (consumer, node, initiator, mut response) = started();
    response[12..44].fill(0);
    assert!(initiator.finish(&consumer, &[9; 32], &response).is_none());
    let mut initiation = [0; INITIATION_LEN];
    initiation[0] = 1;
    assert!(Claim::read(&node, &initiation).is_none());
    let symmetric = super::symmetric::Symmetric::new(node.public().as_bytes());
    let responder = Responder { symmetric, ephemeral: [0; 32], index: 1 };
    let ephemeral = StaticSecret::from(EPHEMERAL_OF_RESPONDER);
    let mut out = [0; RESPONSE_LEN];
    assert!(responder.respond(consumer.public(), &[0; 32], &ephemeral, 2, &mut out).is_none());
}

#[test]
fn only_an_initiation_of_the_right_length_and_type_is_parsed() {
    let mut message = [0; 200];
    message[0] = 1;
    for len in 0..message.len() {
        assert_eq!(Initiation::parse(&message[..len]).is_some(), len == INITIATION_LEN);
    }
    for at in 0..4 {
        let mut altered = message;
        altered[at] ^= 2;
        assert!(Initiation::parse(&altered[..INITIATION_LEN]).is_none());
    }
}
