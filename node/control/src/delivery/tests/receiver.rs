//! A payment layer that seldom works: what it does at each connection is by chance.

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned, crypto::ring::default_provider,
    pki_types::PrivateKeyDer,
};

use super::super::webhook;
use weir_ledger::UsageRecord;

pub(super) const SECRET: &[u8] = b"a shared secret";

/// How long the node waits for it in these tests.
pub(super) const TIMEOUT: Duration = Duration::from_millis(500);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const NO: &[u8] = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mood {
    Works,
    /// Takes everything twice, and answers so.
    WorksTwice,
    Fails,
    /// Takes the batch all the same, so that it comes again.
    TakesAndFails,
    /// Is silent for longer than anybody waits.
    Hangs,
    TakesAndHangs,
    /// Closes it before a word was said.
    Refuses,
    /// Closes it in the middle of the answer.
    BreaksOff,
    TakesAndBreaksOff,
    /// Dies before it answers.
    TakesAndDies,
    /// Dies, and nobody is there for a while: connections are refused.
    Leaves,
}

impl Mood {
    pub(super) const ALL: [Self; 11] = [
        Self::Works,
        Self::WorksTwice,
        Self::Fails,
        Self::TakesAndFails,
        Self::Hangs,
        Self::TakesAndHangs,
        Self::Refuses,
        Self::BreaksOff,
        Self::TakesAndBreaksOff,
        Self::TakesAndDies,
        Self::Leaves,
    ];

    /// How often it takes a batch.
    fn takes(self) -> usize {
        match self {
            Self::WorksTwice => 2,
            Self::Works
            | Self::TakesAndFails
            | Self::TakesAndHangs
            | Self::TakesAndBreaksOff
            | Self::TakesAndDies => 1,
            Self::Fails | Self::Hangs | Self::Refuses | Self::BreaksOff | Self::Leaves => 0,
        }
    }

    fn answer(self) -> Vec<u8> {
        match self {
            Self::Works => OK.to_vec(),
            Self::WorksTwice => [OK, OK].concat(),
            Self::Fails | Self::TakesAndFails => NO.to_vec(),
            Self::BreaksOff | Self::TakesAndBreaksOff => OK[..OK.len() / 2].to_vec(),
            Self::Hangs
            | Self::TakesAndHangs
            | Self::Refuses
            | Self::TakesAndDies
            | Self::Leaves => Vec::new(),
        }
    }
}

/// Numbers that look random, and are the same for the same seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    /// One below `end`.
    pub(super) fn next(&mut self, end: u64) -> u64 {
        let Self(seed) = self;
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % end
    }
}

/// What a payment layer keeps: the highest record of each session.
#[derive(Default)]
pub(super) struct Received {
    latest: HashMap<String, UsageRecord>,
    /// Session and sequence of each record that ever came.
    pub(super) seen: HashSet<(String, u64)>,
    /// Records that had come before.
    pub(super) again: usize,
    pub(super) moods: HashSet<Mood>,
}

impl Received {
    pub(super) fn total(&self) -> u64 {
        self.latest.values().map(|record| record.bytes_up + record.bytes_down).sum()
    }

    fn take(&mut self, body: &[u8]) {
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        for record in body["records"].as_array().expect("records") {
            let record: UsageRecord = serde_json::from_value(record.clone()).expect("a record");
            let is_new = self.seen.insert((record.session.clone(), record.sequence));
            self.again += usize::from(!is_new);
            let known = self.latest.get(&record.session).map_or(0, |known| known.sequence);
            if record.sequence > known {
                self.latest.insert(record.session.clone(), record);
            }
        }
    }
}

/// A running one.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    received: Arc<Mutex<Received>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Receiver {
    /// Starts one that is in each of these moods equally often, in an order by chance.
    pub(super) fn start(tls: Option<Arc<ServerConfig>>, moods: Vec<Mood>, chance: Chance) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let (received, stop) = (Arc::<Mutex<Received>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
            let mut bag = Bag { moods, left: Vec::new(), chance };
            move || {
                let mut listener = Some(listener);
                while !stop.load(Relaxed) {
                    let here = listener.take().unwrap_or_else(|| come_back(address));
                    let (stream, _) = here.accept().expect("a connection");
                    let mood = bag.draw();
                    if mood == Mood::Leaves {
                        drop((stream, here));
                        thread::sleep(Duration::from_millis(bag.chance.next(80)));
                        received.lock().expect("not poisoned").moods.insert(mood);
                        continue;
                    }
                    serve(stream, mood, tls.as_ref(), &received);
                    listener = Some(here);
                }
            }
        });
        Self { address, received, stop, thread }
    }

    /// Ends it, and gives what it has got.
    pub(super) fn stop(self) -> Received {
        self.stop.store(true, Relaxed);
        while !self.thread.is_finished() {
            // It may be waiting for somebody to come, or be away.
            drop(TcpStream::connect(self.address));
            thread::sleep(Duration::from_millis(20));
        }
        self.thread.join().expect("no panic in the receiver");
        std::mem::take(&mut self.received.lock().expect("not poisoned"))
    }
}

/// All moods in some order, then all of them again in another: so each comes in every run.
struct Bag {
    moods: Vec<Mood>,
    left: Vec<Mood>,
    chance: Chance,
}

impl Bag {
    fn draw(&mut self) -> Mood {
        if self.left.is_empty() {
            self.left.clone_from(&self.moods);
        }
        let place = self.chance.next(self.left.len() as u64) as usize;
        self.left.swap_remove(place)
    }
}

/// Listens again where it did before.
fn come_back(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            // Some other test's connection may have the port for a moment.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// What it speaks over.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

fn serve(
    stream: TcpStream,
    mood: Mood,
    tls: Option<&Arc<ServerConfig>>,
    received: &Mutex<Received>,
) {
    let note = || received.lock().expect("not poisoned").moods.insert(mood);
    if mood == Mood::Refuses {
        note();
        return;
    }
    let mut stream: Box<dyn Wire> = match tls {
        Some(tls) => {
            let server = ServerConnection::new(Arc::clone(tls)).expect("a server");
            Box::new(StreamOwned::new(server, stream))
        }
        None => Box::new(stream),
    };
    // A node that was stopped in the middle sends no more.
    let Some(body) = read_signed(&mut *stream) else { return };
    for _ in 0..mood.takes() {
        received.lock().expect("not poisoned").take(&body);
    }
    note();
    if matches!(mood, Mood::Hangs | Mood::TakesAndHangs) {
        // Until the node has waited long enough, and goes.
        drop(stream.read(&mut [0]));
    }
    drop(stream.write_all(&mood.answer()).and_then(|()| stream.flush()));
}

/// A request's body, once its signature is found good.
fn read_signed(stream: &mut dyn Wire) -> Option<Vec<u8>> {
    let mut seen = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        let end = seen.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            let full = String::from_utf8_lossy(&seen[..end]).into_owned();
            let value = |name: &str| {
                let line = head.lines().position(|line| line.starts_with(&format!("{name}: ")))?;
                Some(full.lines().nth(line)?.split_once(": ")?.1.to_owned())
            };
            let len: usize = value("content-length")?.parse().ok()?;
            let body = &seen[end + 4..];
            if body.len() >= len {
                let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
                let text = [value(webhook::TIMESTAMP)?.as_bytes(), b".", &body[..len]].concat();
                let signature = STANDARD.decode(value(webhook::SIGNATURE)?).expect("base64");
                hmac::verify(&key, &text, &signature).expect("signed with the secret");
                return Some(body[..len].to_vec());
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(n) => seen.extend(&chunk[..n]),
        }
    }
}

/// A server's certificate for 127.0.0.1, and what it needs to use it.
pub(super) fn certificate() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("it fits");
    (made.cert.pem(), Arc::new(config))
}
