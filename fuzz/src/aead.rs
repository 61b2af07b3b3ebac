//! The cipher: batches of messages through each path of this processor, against ring.

use weir_wireguard::aead::{Key, Open, Outcome, Path, Seal, TAG_LEN, open_batch, seal_batch};

use crate::Input;

/// Messages of a batch, and bytes of a text.
const MESSAGES: usize = 40;
const TEXT: usize = 2100;

struct Message {
    key: usize,
    counter: u64,
    padding: usize,
    text: Vec<u8>,
    /// The byte of the sealed message that is changed before it is opened, and how.
    damage: (usize, u8),
}

/// Seals and opens a batch. Every path gives what ring gives, and opens what was not damaged. What was
/// damaged leaves only zeros.
pub fn aead(bytes: &[u8]) {
    let mut input = Input(bytes);
    let keys: [Key; 4] = std::array::from_fn(|_| {
        let mut key = [0; 32];
        let bytes = input.bytes(32);
        key[..bytes.len()].copy_from_slice(bytes);
        Key::new(&key)
    });
    let mut messages = Vec::new();
    while !input.is_empty() && messages.len() < MESSAGES {
        messages.push(message(&mut input));
    }
    let expected = sealed(Path::RING, &keys, &messages);
    for path in Path::available() {
        assert_eq!(sealed(path, &keys, &messages), expected, "{}", path.name());
        opens(path, &keys, &messages, &expected);
    }
}

fn message(input: &mut Input<'_>) -> Message {
    let kind = usize::from(input.byte());
    let counter = u64::from(input.half()) << (input.byte() % 49);
    let len = usize::from(input.half()) % TEXT;
    let damage = (usize::from(input.half()), input.byte());
    let pattern = input.bytes(64);
    let text = pattern.iter().chain(&[0]).copied().cycle().take(len).collect();
    Message { key: kind % 4, counter, padding: kind / 4 % 32, text, damage }
}

fn sealed(path: Path, keys: &[Key; 4], messages: &[Message]) -> Vec<Vec<u8>> {
    let room = |message: &Message| vec![0xa5; message.text.len() + message.padding + TAG_LEN];
    let mut sealed: Vec<_> = messages.iter().map(room).collect();
    let jobs = messages.iter().zip(&mut sealed).map(|(message, sealed)| {
        let Message { key, counter, padding, text, .. } = message;
        Seal::new(&keys[*key], *counter, text, *padding, sealed).expect("there is room")
    });
    seal_batch(path, &mut jobs.collect::<Vec<_>>());
    sealed
}

fn opens(path: Path, keys: &[Key; 4], messages: &[Message], sealed: &[Vec<u8>]) {
    let mut damaged = sealed.to_vec();
    for (message, damaged) in messages.iter().zip(&mut damaged) {
        let at = message.damage.0 % damaged.len();
        damaged[at] ^= message.damage.1;
    }
    let mut texts: Vec<_> = sealed.iter().map(|bytes| vec![0xa5; bytes.len() - TAG_LEN]).collect();
    let jobs = messages.iter().zip(&damaged).zip(&mut texts);
    let jobs = jobs.map(|((message, sealed), text)| {
        Open::new(&keys[message.key], message.counter, sealed, text).expect("there is room")
    });
    let mut jobs: Vec<_> = jobs.collect();
    open_batch(path, &mut jobs);
    let outcomes: Vec<Outcome> = jobs.iter().map(Open::outcome).collect();
    for ((message, text), outcome) in messages.iter().zip(&texts).zip(outcomes) {
        let padding = if message.damage.1 == 0 {
            assert_eq!(outcome, Outcome::Authentic, "{}", path.name());
            text.strip_prefix(&message.text[..]).expect("the text")
        } else {
            assert_eq!(outcome, Outcome::Forged, "{}", path.name());
            text
        };
        assert!(padding.iter().all(|byte| *byte == 0), "{}", path.name());
    }
}
