//! All paths against ring itself.

use proptest::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::*;

/// A message: its key, its counter, its text, and the zeros after it.
#[derive(Clone, Debug)]
struct Message {
    key: usize,
    counter: u64,
    text: Vec<u8>,
    padding: usize,
}

fn key_bytes(key: usize) -> [u8; KEY_LEN] {
    bytes(KEY_LEN, key as u64).try_into().unwrap()
}

/// What ring makes of a message.
fn by_ring(message: &Message) -> Vec<u8> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key_bytes(message.key)).unwrap();
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&message.counter.to_le_bytes());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let mut sealed = message.text.clone();
    sealed.extend(vec![0; message.padding]);
    LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).unwrap();
    sealed
}

fn keys() -> Vec<Key> {
    (0..4).map(|key| Key::new(&key_bytes(key))).collect()
}

/// Seals the messages, compares them with ring's, opens them all and a damaged copy of each.
fn check(under: Under, messages: &[Message]) {
    let keys = keys();
    let expected: Vec<_> = messages.iter().map(by_ring).collect();
    let mut sealed: Vec<_> = expected.iter().map(|sealed| vec![0xa5; sealed.len()]).collect();
    let jobs = messages.iter().zip(&mut sealed).map(|(message, sealed)| {
        let Message { key, counter, text, padding } = message;
        Seal::new(&keys[*key], *counter, text, *padding, sealed).unwrap()
    });
    under.seal_batch(&mut jobs.collect::<Vec<_>>());
    for ((message, expected), sealed) in messages.iter().zip(&expected).zip(&sealed) {
        assert!(
            expected == sealed,
            "{under:?}: {} bytes in {}",
            message.text.len(),
            messages.len()
        );
    }
    let mut damaged = sealed.clone();
    for (i, damaged) in damaged.iter_mut().enumerate() {
        let at = i * 31 % damaged.len();
        damaged[at] ^= 1 << (i % 8);
    }
    let all: Vec<_> =
        sealed.iter().zip(&damaged).flat_map(|(sealed, damaged)| [sealed, damaged]).collect();
    let mut texts: Vec<_> = all.iter().map(|sealed| vec![0xa5; sealed.len() - TAG_LEN]).collect();
    let jobs = all.iter().zip(&mut texts).enumerate().map(|(i, (sealed, text))| {
        let message = &messages[i / 2];
        Open::new(&keys[message.key], message.counter, sealed, text).unwrap()
    });
    let mut jobs: Vec<_> = jobs.collect();
    assert!(jobs.iter().all(|job| job.outcome() == Outcome::Pending));
    under.open_batch(&mut jobs);
    let outcomes: Vec<_> = jobs.iter().map(Open::outcome).collect();
    for (i, (text, outcome)) in texts.iter().zip(outcomes).enumerate() {
        let message = &messages[i / 2];
        if i % 2 == 0 {
            assert_eq!(outcome, Outcome::Authentic, "{under:?}: {} bytes", text.len());
            assert!(text[..message.text.len()] == message.text, "{under:?}: {} bytes", text.len());
            assert!(text[message.text.len()..].iter().all(|byte| *byte == 0));
        } else {
            assert_eq!(outcome, Outcome::Forged, "{under:?}: {} bytes", text.len());
            assert!(text.iter().all(|byte| *byte == 0), "{under:?}: a forged text stays");
        }
    }
}

fn message(len: usize, key: usize, padding: usize) -> Message {
    Message { key, counter: (len as u64) << 29 | 3, text: bytes(len, 7), padding }
}

#[test]
fn every_length_alone_is_as_rings() {
    for under in Under::all() {
        for len in 0..=4096 {
            check(under, &[message(len, 0, 0)]);
        }
    }
}

#[test]
fn every_short_length_and_padding_in_a_batch_is_as_rings() {
    for under in Under::all() {
        for len in 0..=200 {
            let batch: Vec<_> = (0..16).map(|i| message(len, 0, i)).collect();
            check(under, &batch);
        }
    }
}

#[test]
fn batches_of_one_length_are_as_rings() {
    for under in Under::all() {
        for len in (0..1600).step_by(71).chain([1408, 1420, 1424, 1500]) {
            for count in [2, 3, 7, 8, 9, 16, 17, 33] {
                let batch: Vec<_> = (0..count).map(|i| message(len, i / 5 % 4, 0)).collect();
                check(under, &batch);
            }
        }
    }
}

#[test]
fn every_bit_counts() {
    let keys = keys();
    for under in Under::all() {
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 130] {
            let sealed = by_ring(&message(len, 1, 0));
            let counter = message(len, 1, 0).counter;
            let flip = |bit: usize| {
                let mut damaged = sealed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                damaged
            };
            let damaged: Vec<_> = (0..sealed.len() * 8).map(flip).collect();
            let mut texts = vec![vec![0xa5; len]; damaged.len()];
            let jobs = damaged.iter().zip(&mut texts);
            let jobs =
                jobs.map(|(sealed, text)| Open::new(&keys[1], counter, sealed, text).unwrap());
            let mut jobs: Vec<_> = jobs.collect();
            under.open_batch(&mut jobs);
            for (bit, job) in jobs.iter().enumerate() {
                assert_eq!(job.outcome(), Outcome::Forged, "{under:?}: bit {bit} of {len} bytes");
            }
            assert!(texts.iter().flatten().all(|byte| *byte == 0), "{under:?}: {len} bytes");
        }
    }
}

#[test]
fn another_key_or_counter_opens_nothing() {
    let keys = keys();
    let sealed = by_ring(&message(100, 1, 0));
    let counter = message(100, 1, 0).counter;
    for under in Under::all() {
        for (key, counter) in [(0, counter), (1, counter + 1), (1, counter ^ 1 << 40)] {
            let mut text = [0xa5; 100];
            let mut jobs = [Open::new(&keys[key], counter, &sealed, &mut text).unwrap()];
            under.open_batch(&mut jobs);
            assert_eq!(jobs[0].outcome(), Outcome::Forged, "{under:?}");
            assert_eq!(text, [0; 100]);
        }
    }
}

#[test]
fn alignment_does_not_matter_and_nothing_else_is_written() {
    let keys = keys();
    for under in Under::all() {
        for offset in 0..64 {
            for len in [1, 64, 100, 500] {
                let (source, expected) = (bytes(len + offset, 7), message(len, 2, 0));
                let text = &source[offset..];
                let expected = by_ring(&Message { text: text.to_vec(), ..expected });
                let counter = message(len, 2, 0).counter;
                let end = offset + expected.len();
                let mut sealed = vec![0xa5; end + 64];
                let place = &mut sealed[offset..end];
                under.seal_batch(&mut [Seal::new(&keys[2], counter, text, 0, place).unwrap()]);
                assert!(sealed[offset..end] == expected, "{under:?}: {len} bytes at {offset}");
                let mut opened = vec![0xa5; end + 64];
                let place = &mut opened[offset..offset + len];
                let from = &sealed[offset..end];
                under.open_batch(&mut [Open::new(&keys[2], counter, from, place).unwrap()]);
                assert!(
                    &opened[offset..offset + len] == text,
                    "{under:?}: {len} bytes at {offset}"
                );
                for (buffer, end) in [(&sealed, end), (&opened, offset + len)] {
                    let around = buffer[..offset].iter().chain(&buffer[end..]);
                    assert!(
                        around.copied().all(|byte| byte == 0xa5),
                        "{under:?}: {len} at {offset}"
                    );
                }
            }
        }
    }
}

#[test]
fn single_messages_with_associated_data_are_as_rings() {
    let key = Key::new(&key_bytes(3));
    for (associated, text) in [(bytes(0, 1), bytes(0, 2)), (bytes(32, 3), bytes(32, 4))] {
        let mut sealed = vec![0; text.len() + TAG_LEN];
        seal(&key, 5, &associated, &text, &mut sealed).unwrap();
        let ring = UnboundKey::new(&CHACHA20_POLY1305, &key_bytes(3)).unwrap();
        let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        let mut expected = text.clone();
        let aad = Aad::from(&associated);
        LessSafeKey::new(ring).seal_in_place_append_tag(nonce, aad, &mut expected).unwrap();
        assert_eq!(sealed, expected);
        let mut opened = vec![0xa5; text.len()];
        let outcome = open(&key, 5, &associated, &sealed, &mut opened).unwrap();
        assert_eq!((outcome, &opened), (Outcome::Authentic, &text));
        let outcome = open(&key, 5, b"other", &sealed, &mut opened).unwrap();
        assert_eq!((outcome, opened), (Outcome::Forged, vec![0; text.len()]));
    }
}

/// Lengths of packets: short, any, and long.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![0..200_usize, 0..4096_usize, 1380..1500_usize]
}

prop_compose! {
    fn messages()(
        batch in proptest::collection::vec((lengths(), 0..4_usize, any::<u64>(), 0..17_usize), 1..40),
    ) -> Vec<Message> {
        let message = |(len, key, counter, padding)| {
            Message { key, counter, text: bytes(len, counter), padding }
        };
        batch.into_iter().map(message).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_batch_is_as_rings(messages in messages()) {
        for under in Under::all() {
            check(under, &messages);
        }
    }
}
