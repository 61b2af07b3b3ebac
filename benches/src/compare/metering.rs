//! Measures what ledger, export and metrics cost: a node with and without them. The receivers run
//! on the generator's core.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use weir_testkit::{Namespace, node::Recording};

/// Where the node's metrics are, in its own namespace.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9587);
/// The time between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause while nothing arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How much a node writes down and tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Metering {
    /// The configuration's defaults, without metrics.
    Usual,
    /// As little as the configuration lets it. What stays is the packet path's own counting, and a
    /// look of the control plane each second for sessions whose credit is used up.
    Off,
    /// Everything, as often as by default: a checkpoint and Prometheus every second, and a record of
    /// each session every minute, to file and webhook. A run is too short for one of these.
    On,
    /// Everything every second, records too: sixty times the default.
    EverySecond,
    /// As little, but Prometheus asks every second.
    Scraped,
}

impl Metering {
    /// Its name within that of a case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Off => "metering off",
            Self::On => "metering on",
            Self::EverySecond => "records each second",
            Self::Scraped => "scraped",
        }
    }
}

/// The receivers of records and metrics; stopped when dropped.
pub struct Receivers {
    metering: Metering,
    webhook: Option<(SocketAddr, Receiver)>,
    prometheus: Option<Receiver>,
}

impl Receivers {
    /// Listens in the node's namespace if the case sends records.
    ///
    /// # Errors
    ///
    /// Fails when the namespace cannot be entered.
    pub fn prepare(metering: Metering, node: &Namespace) -> anyhow::Result<Self> {
        let webhook = match metering {
            Metering::On | Metering::EverySecond => {
                let listener = node.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                Some((address, Receiver::start(move |stop, count| take(&listener, stop, count))))
            }
            Metering::Usual | Metering::Off | Metering::Scraped => None,
        };
        Ok(Self { metering, webhook, prometheus: None })
    }

    /// The node's settings for these receivers.
    #[must_use]
    pub fn settings(&self) -> (Recording, Option<SocketAddr>) {
        let all = |webhook, record_seconds| Recording::All { webhook, record_seconds };
        let recording = match (self.metering, &self.webhook) {
            (Metering::EverySecond, Some((webhook, _))) => all(*webhook, 1),
            (_, Some((webhook, _))) => all(*webhook, 60),
            (Metering::Usual, None) => Recording::Default,
            (_, None) => Recording::Minimal,
        };
        let is_scraped = !matches!(self.metering, Metering::Usual | Metering::Off);
        (recording, is_scraped.then_some(METRICS))
    }

    /// Begins to ask the running node for its metrics, if that is wanted.
    ///
    /// # Errors
    ///
    /// Fails when there are none.
    pub fn begin(&mut self, node: &Namespace) -> anyhow::Result<()> {
        if self.settings().1.is_some() {
            let namespace = Namespace::open(Path::new(&node.path()))?;
            scrape(&namespace).context("the node has no metrics")?;
            self.prometheus = Some(Receiver::start(move |stop, count| {
                let mut next = Instant::now();
                while !stop.load(Relaxed) {
                    if Instant::now() < next {
                        thread::sleep(POLL_INTERVAL);
                        continue;
                    }
                    next += SCRAPE_INTERVAL;
                    count.fetch_add(u64::from(scrape(&namespace).is_ok()), Relaxed);
                }
            }));
        }
        Ok(())
    }

    /// Makes sure that what was to be measured took place, for so many sessions.
    ///
    /// # Errors
    ///
    /// Fails when it did not.
    pub fn check(&self, sessions: u32) -> anyhow::Result<()> {
        if self.metering == Metering::EverySecond
            && let Some((_, webhook)) = &self.webhook
        {
            let records = webhook.count.load(Relaxed);
            ensure!(records >= sessions.into(), "only {records} records of {sessions} sessions");
        }
        if let Some(prometheus) = &self.prometheus {
            ensure!(prometheus.count.load(Relaxed) > 0, "nobody got the metrics");
        }
        Ok(())
    }
}

/// A thread that counts what it gets.
struct Receiver {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn start(work: impl FnOnce(&AtomicBool, &AtomicU64) + Send + 'static) -> Self {
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let theirs = (Arc::clone(&stop), Arc::clone(&count));
        let thread = thread::spawn(move || work(&theirs.0, &theirs.1));
        Self { stop, count, thread: Some(thread) }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Takes every batch of records, and counts them.
fn take(listener: &TcpListener, stop: &AtomicBool, count: &AtomicU64) {
    while !stop.load(Relaxed) {
        match listener.accept() {
            // The node comes again with what failed.
            Ok((stream, _)) => drop(batch(stream).map(|some| count.fetch_add(some, Relaxed))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(POLL_INTERVAL),
            Err(_) => return,
        }
    }
}

/// Answers one request, and says how many records were in it.
fn batch(mut stream: TcpStream) -> anyhow::Result<u64> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    let mut seen = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    let mut whole = None;
    while whole.is_none_or(|whole| seen.len() < whole) {
        let len = stream.read(&mut chunk)?;
        ensure!(len > 0, "the request broke off");
        seen.extend_from_slice(&chunk[..len]);
        if whole.is_none()
            && let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            whole = Some(end + 4 + length.context("no length")?.parse::<usize>()?);
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    let name = b"\"sequence\":";
    Ok(seen.windows(name.len()).filter(|window| window == name).count() as u64)
}

/// Asks for the metrics as Prometheus does.
fn scrape(node: &Namespace) -> anyhow::Result<()> {
    let mut stream = node.enter(|| Ok(TcpStream::connect_timeout(&METRICS, IO_TIMEOUT)?))?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    ensure!(page.contains("weir_tunnel_bytes_total"), "that is not a page of metrics: {page}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_a_batch_are_counted_and_answered() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("set");
        let taker = Receiver::start(move |stop, count| take(&listener, stop, count));
        let body = "{\"records\": [{\"sequence\":1},{\"sequence\":2}]}";
        let mut stream = TcpStream::connect(address).expect("connected");
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        while taker.count.load(Relaxed) < 2 {
            thread::sleep(POLL_INTERVAL);
        }
        assert_eq!(taker.count.load(Relaxed), 2);
    }
}
