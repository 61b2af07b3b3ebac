use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned, crypto::ring::default_provider as ring_provider,
    pki_types::PrivateKeyDer,
};

use super::*;
use crate::session::registry::rig::Rig;

const SECRET: &[u8] = b"a shared secret";

/// What a payment layer keeps: the highest record of each session.
#[derive(Default)]
struct Books {
    latest: Mutex<HashMap<String, Record>>,
    turns: AtomicU64,
    stop: AtomicBool,
}

impl Books {
    fn total(&self) -> u64 {
        let latest = self.latest.lock().expect("not poisoned");
        latest.values().map(|record| record.bytes_up + record.bytes_down).sum()
    }

    fn take(&self, body: &serde_json::Value) {
        let mut latest = self.latest.lock().expect("not poisoned");
        for record in body["records"].as_array().expect("records") {
            let record: Record = serde_json::from_value(record.clone()).expect("a record");
            let known = latest.get(&record.session).map_or(0, |known| known.sequence);
            if record.sequence > known {
                latest.insert(record.session.clone(), record);
            }
        }
    }
}

/// What a receiver speaks over.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// A server's certificate for 127.0.0.1, and what it needs to use it.
fn certificate() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("it fits");
    (made.cert.pem(), Arc::new(config))
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
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
                let text = [value(webhook::TIMESTAMP)?.as_bytes(), b".", &body[..len]].concat();
                use base64::Engine as _;
                let signature = base64::engine::general_purpose::STANDARD
                    .decode(value(webhook::SIGNATURE)?)
                    .expect("base64");
                ring::hmac::verify(&key, &text, &signature).expect("signed with the secret");
                return Some(body[..len].to_vec());
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(n) => seen.extend(&chunk[..n]),
        }
    }
}

/// Fails, hangs, takes without an answer, answers twice, dies in the middle; now and then works.
fn unreliable(listener: &TcpListener, books: &Books, tls: Option<&Arc<ServerConfig>>) {
    for stream in listener.incoming() {
        if books.stop.load(Relaxed) {
            return;
        }
        let stream = stream.expect("a connection");
        // A fixed mix, so that the test is the same each time.
        let turn = books.turns.fetch_add(1, Relaxed).wrapping_mul(2_654_435_761) >> 7;
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        if turn.is_multiple_of(7) {
            continue;
        }
        let mut stream: Box<dyn Wire> = match tls {
            Some(tls) => {
                let server = ServerConnection::new(Arc::clone(tls)).expect("a server");
                Box::new(StreamOwned::new(server, stream))
            }
            None => Box::new(stream),
        };
        let Some(body) = read_signed(&mut *stream) else { continue };
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let answer: &[u8] = match turn % 7 {
            1 => b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            2 => {
                // Takes it, and is silent for longer than anybody waits.
                books.take(&body);
                std::thread::sleep(Duration::from_millis(120));
                b""
            }
            3 => {
                // Takes it, and dies before it answers.
                books.take(&body);
                b""
            }
            4 => {
                books.take(&body);
                books.take(&body);
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
            }
            5 => b"HTT",
            _ => {
                books.take(&body);
                ok
            }
        };
        drop(stream.write_all(answer).and_then(|()| stream.flush()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreliable_receivers_totals_equal_the_ledgers() {
    totals_equal(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreliable_receivers_totals_equal_the_ledgers_over_tls() {
    totals_equal(Some(certificate())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_whom_nobody_vouches_for_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 1);
    let slot = rig.add(None).session.slot;
    rig.traffic(slot, 1);
    rig.sessions.record().expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("https://{}/usage", listener.local_addr().expect("an address"));
    let books = Arc::new(Books::default());
    // One answer, which takes everything, if there is anything to take.
    books.turns.store(6, Relaxed);
    let ((_, server), (other, _)) = (certificate(), certificate());
    let served = Arc::clone(&books);
    std::thread::spawn(move || unreliable(&listener, &served, Some(&server)));
    let ca_file = folder.path().join("ca.pem");
    let hook = || Webhook::new(&url, SECRET).expect("a webhook");
    for (pem, expected) in
        [("nothing", "no certificates in PEM"), (&other, "no TLS with 127.0.0.1")]
    {
        std::fs::write(&ca_file, pem).expect("written");
        let records = rig.sessions.usage_after(0, 10).expect("read");
        let refused = match hook().with_roots(Some(&ca_file)) {
            Ok(mut hook) => hook.take(&records).await.expect_err("refused"),
            Err(error) => error,
        };
        assert!(format!("{refused:#}").contains(expected), "{refused:#}");
    }
    assert_eq!(books.total(), 0);
}

/// Ten thousand records to a receiver that seldom works.
async fn totals_equal(tls: Option<(String, Arc<ServerConfig>)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 100);
    let slots: Vec<_> = (0..100).map(|_| rig.add(None).session.slot).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let books = Arc::new(Books::default());
    let served = std::thread::spawn({
        let (books, tls) = (Arc::clone(&books), tls.as_ref().map(|(_, server)| server.clone()));
        move || unreliable(&listener, &books, tls.as_ref())
    });
    let ca_file = folder.path().join("ca.pem");
    let scheme = if tls.is_some() { "https" } else { "http" };
    if let Some((pem, _)) = &tls {
        std::fs::write(&ca_file, pem).expect("written");
    }
    let start = || {
        let hook = Webhook::new(&format!("{scheme}://{address}/usage"), SECRET).expect("a webhook");
        let hook = hook.with_roots(Some(&ca_file)).expect("roots");
        let hook = hook.with_patience(Duration::from_millis(100));
        let waits = (Duration::from_millis(1), Duration::from_millis(20));
        tokio::spawn(run_with(rig.sessions.clone(), hook, waits))
    };
    let mut delivery = start();
    for round in 0..100 {
        for slot in &slots {
            rig.traffic(*slot, 1 + round);
        }
        rig.sessions.record().expect("written");
        if round % 10 == 9 {
            // The node goes and comes back: the cursor is in the ledger.
            delivery.abort();
            delivery = start();
        }
        sleep(Duration::from_millis(2)).await;
    }
    let last = *rig.sessions.watch_usage().borrow();
    assert_eq!(last, 10_000);
    for _ in 0..600 {
        if rig.sessions.delivered("webhook").expect("read") == last {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rig.sessions.delivered("webhook").expect("read"), last);
    let ledger = rig.sessions.totals();
    assert_eq!(books.total(), ledger.bytes_up + ledger.bytes_down);
    delivery.abort();
    books.stop.store(true, Relaxed);
    drop(TcpStream::connect(address));
    served.join().expect("no panic in the receiver");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_has_each_record_once_over_crashes_and_rotation() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 10);
    let slots: Vec<_> = (0..10).map(|_| rig.add(None).session.slot).collect();
    let path = folder.path().join("usage.ndjson");
    for round in 0..8 {
        for slot in &slots {
            rig.traffic(*slot, 1);
        }
        rig.sessions.record().expect("written");
        // Each round is a new run, whose cursor was not written by the one before: the file says
        // what it has. Some runs died in the middle of a line.
        let records = rig.sessions.usage_after(0, MOST).expect("read");
        let mut file = UsageFile::new(path.clone(), 20_000);
        let behind = records.len().saturating_sub(15);
        file.take(&records[behind..]).await.expect("written");
        if round % 2 == 0 && path.metadata().expect("there").len() > 0 {
            let mut raw = std::fs::OpenOptions::new().append(true).open(&path).expect("opened");
            raw.write_all(b"{\"cursor\": 99").expect("written");
        }
    }
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .expect("readable")
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("usage.ndjson"))
        .map(|file| std::fs::read_to_string(file.path()).expect("text"))
        .collect();
    assert!(files.len() > 1, "it was rotated");
    files.sort_by_key(|text| text.len());
    let mut cursors: Vec<u64> = files
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| serde_json::from_str::<Record>(line).ok())
        .map(|record| record.cursor)
        .collect();
    cursors.sort_unstable();
    let before = cursors.len();
    cursors.dedup();
    assert_eq!(cursors, (1..=80).collect::<Vec<_>>());
    assert_eq!(before, 80, "none twice");
}

#[test]
fn a_webhook_that_cannot_work_is_refused() {
    for url in ["ftp://example.net/", "ftp://example.net/", "/usage", "http://", ""] {
        assert!(Webhook::new(url, SECRET).is_err(), "{url}");
    }
    assert!(Webhook::new("http://127.0.0.1:9/", b"").is_err());
}
