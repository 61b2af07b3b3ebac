//! The vectors of RFC 8439 and of Wycheproof. Their nonces and associated data are not those of
//! transport data, so they go through the paths as messages of a kind of their own.

use wycheproof::{
    TestResult,
    aead::{TestName, TestSet},
};

use super::*;
use crate::aead::job::{Job, Nonce};

/// A message with any nonce and associated data.
struct Vector {
    key: Key,
    nonce: Nonce,
    source: Vec<u8>,
    /// Where an opened text goes. It is empty for a message to seal.
    text: Vec<u8>,
    /// Associated data and ciphertext, each padded to whole blocks of 16 bytes.
    authenticated: Vec<u8>,
    associated: usize,
    tag: [u8; TAG_LEN],
}

impl Vector {
    fn new(key: &[u8], nonce: &[u8], associated: &[u8], source: &[u8], is_sealed: bool) -> Self {
        let word = |word: &[u8]| u32::from_le_bytes(word.try_into().unwrap());
        let start = associated.len().next_multiple_of(16);
        let mut authenticated = associated.to_vec();
        authenticated.resize(start, 0);
        if is_sealed {
            authenticated.extend(source);
        }
        authenticated.resize(start + source.len().next_multiple_of(16), 0);
        Self {
            key: Key::new(key.try_into().unwrap()),
            nonce: [word(&nonce[..4]), word(&nonce[4..8]), word(&nonce[8..])],
            source: source.to_vec(),
            text: vec![0xa5; if is_sealed { source.len() } else { 0 }],
            authenticated,
            associated: associated.len(),
            tag: [0; TAG_LEN],
        }
    }

    /// What was sealed.
    fn sealed(&self) -> &[u8] {
        &self.authenticated[self.associated.next_multiple_of(16)..][..self.source.len()]
    }
}

impl Job for Vector {
    fn key(&self) -> &Key {
        &self.key
    }

    fn nonce(&self) -> Nonce {
        self.nonce
    }

    fn text_len(&self) -> usize {
        self.source.len()
    }

    fn source(&self) -> &[u8] {
        &self.source
    }

    fn buffers(&mut self) -> (&[u8], &mut [u8]) {
        let (start, len) = (self.associated.next_multiple_of(16), self.source.len());
        if self.text.len() == len {
            (&self.source, &mut self.text)
        } else {
            (&self.source, &mut self.authenticated[start..start + len])
        }
    }

    fn ciphertext(&self) -> &[u8] {
        &self.authenticated
    }

    fn lengths(&self) -> [u64; 2] {
        [self.associated as u64, self.source.len() as u64]
    }

    fn finish(&mut self, tag: &[u8; TAG_LEN]) {
        self.tag = *tag;
    }
}

/// A vector path, and its name.
type VectorPath = (&'static str, fn(&mut [Vector]));

/// The vector paths of this processor.
fn paths() -> Vec<VectorPath> {
    let mut paths: Vec<VectorPath> = Vec::new();
    if avx512::is_available() {
        // SAFETY: it is available.
        paths.push(("avx512", |jobs| unsafe { avx512::all(jobs) }));
    }
    if avx2::is_available() {
        // SAFETY: it is available.
        paths.push(("avx2", |jobs| unsafe { avx2::all(jobs) }));
    }
    paths
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let (pairs, _) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(byte).collect()
}

const SUNSCREEN: &[u8] =
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
    tip for the future, sunscreen would be it.";

/// RFC 8439, section 2.4.2. Its nonce is that of a counter.
#[test]
fn the_ciphertext_of_the_rfc() {
    let expected = hex("6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b
         f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8
         07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736
         5af90bbf74a35be6b40b8eedf2785e42874d");
    let key = Key::new(&std::array::from_fn(|i| i as u8));
    for under in Under::all() {
        let mut sealed = vec![0; SUNSCREEN.len() + TAG_LEN];
        let counter = u64::from_le_bytes([0, 0, 0, 0x4a, 0, 0, 0, 0]);
        under.seal_batch(&mut [Seal::new(&key, counter, SUNSCREEN, 0, &mut sealed).unwrap()]);
        assert_eq!(sealed[..SUNSCREEN.len()], expected, "{under:?}");
    }
}

/// RFC 8439, section 2.8.2.
#[test]
fn the_message_of_the_rfc() {
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
    let (nonce, associated) = (hex("070000004041424344454647"), hex("50515253c0c1c2c3c4c5c6c7"));
    let expected = hex("d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
         3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
         92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
         3ff4def08e4b7a9de576d26586cec64b6116");
    let tag = hex("1ae10b594f09e26a7e902ecbd0600691");
    for (name, run) in paths() {
        let mut jobs = [
            Vector::new(&key, &nonce, &associated, SUNSCREEN, false),
            Vector::new(&key, &nonce, &associated, &expected, true),
        ];
        run(&mut jobs);
        assert_eq!(jobs[0].sealed(), expected, "{name}");
        assert_eq!(jobs[1].text, SUNSCREEN, "{name}");
        assert_eq!([&jobs[0].tag[..], &jobs[1].tag], [&tag[..], &tag], "{name}");
    }
}

/// RFC 8439, appendix A.5. Its nonce is that of a counter.
#[test]
fn the_opening_of_the_rfc() {
    let key = hex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
    let sealed = hex("64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2
         4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf
         332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
         9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4
         b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e
         af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
         0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10
         49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29
         a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38");
    let key = Key::new(key.as_slice().try_into().unwrap());
    let mut text = vec![0; sealed.len() - TAG_LEN];
    let associated = hex("f33388860000000000004e91");
    let counter = u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
    let outcome = open(&key, counter, &associated, &sealed, &mut text).unwrap();
    assert_eq!(outcome, Outcome::Authentic);
    assert!(text.starts_with(b"Internet-Drafts are draft documents valid for a maximum of six"));
}

#[test]
fn the_vectors_of_wycheproof() {
    let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
    let groups = set.test_groups.iter().filter(|group| group.nonce_size == 96);
    let tests: Vec<_> = groups.flat_map(|group| &group.tests).collect();
    assert!(tests.len() > 250, "only {} vectors", tests.len());
    for (name, run) in paths() {
        let mut jobs: Vec<_> = tests
            .iter()
            .flat_map(|test| {
                let vector = |source, is_sealed| {
                    Vector::new(&test.key, &test.nonce, &test.aad, source, is_sealed)
                };
                [vector(&test.pt, false), vector(&test.ct, true)]
            })
            .collect();
        run(&mut jobs);
        for (pair, test) in jobs.as_chunks::<2>().0.iter().zip(&tests) {
            let (case, is_valid) = (test.tc_id, test.result == TestResult::Valid);
            let [sealed, opened] = pair;
            let is_authentic = opened.tag[..] == test.tag[..];
            assert_eq!(is_authentic, is_valid, "{name}, case {case}: {}", test.comment);
            if is_valid {
                assert_eq!(sealed.sealed(), &test.ct[..], "{name}, case {case}");
                assert_eq!(sealed.tag[..], test.tag[..], "{name}, case {case}");
                assert_eq!(opened.text, &test.pt[..], "{name}, case {case}");
            }
        }
    }
    through_the_face(&tests);
}

/// Those whose nonces are counters can be opened as messages with associated data.
fn through_the_face(tests: &[&wycheproof::aead::Test]) {
    let mut seen = 0;
    for test in tests {
        let Some(counter) = test.nonce.strip_prefix(&[0; 4]) else { continue };
        let (key, counter) =
            (Key::new(test.key[..].try_into().unwrap()), counter.try_into().unwrap());
        let sealed = [&test.ct[..], &test.tag].concat();
        let mut text = vec![0; test.ct.len()];
        let counter = u64::from_le_bytes(counter);
        let outcome = open(&key, counter, &test.aad, &sealed, &mut text).unwrap();
        let is_valid = test.result == TestResult::Valid;
        assert_eq!(outcome == Outcome::Authentic, is_valid, "case {}", test.tc_id);
        seen += 1;
    }
    assert!(seen > 3, "only {seen} vectors");
}
