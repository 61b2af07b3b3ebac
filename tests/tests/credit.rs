//! Many sessions with credit at once, and real traffic at full speed that uses it up.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Client, Lab, Node, Settings,
    client::Transfer,
    lab::SERVERS,
    node::Added,
    traffic::tcp::{self, Direction},
    wgquick::WgQuick,
};

const SESSIONS: usize = 10;
const CREDIT: u64 = 10_000_000;
/// A worker takes or gives a session no more than this in one iteration.
const BATCH: u64 = 64 * 1024;
/// More than the first credit, less than the first two.
const TRANSFER: u64 = 12_000_000;

struct Consumer<'a> {
    name: String,
    direction: Direction,
    client: Client<'a>,
    progress: AtomicU64,
}

/// What a consumer has, as it and the node see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    billed: u64,
    progress: u64,
    /// From the node; the consumer itself may go on asking.
    received: u64,
}

impl Consumer<'_> {
    fn seen(&self, node: &Node<'_>) -> Result<Seen> {
        let session = node.session_show(&self.name)?;
        let Transfer { received, .. } = self.client.transfer()?;
        let billed = session.bytes_up + session.bytes_down;
        // Handshakes are no data, and go on.
        let received = received - session.handshake_bytes_down;
        Ok(Seen { billed, progress: self.progress.load(Relaxed), received })
    }
}

fn credit(node: &Node<'_>, name: &str, bytes: u64) -> Result<()> {
    node.weir(&["session", "credit", name, "--bytes", &bytes.to_string()])?;
    Ok(())
}

#[test]
fn ten_sessions_at_full_speed_stop_at_their_credit_and_resume_with_more() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let server = tcp::Server::start(&lab.internet)?.at(SERVERS[0]);
    let mut consumers = Vec::new();
    for number in 0..SESSIONS {
        let name = format!("consumer-{number}");
        let added = node.weir(&["session", "add", "--name", &name, "--prepaid", "--json"])?;
        let added: Added = serde_json::from_str(&added)?;
        credit(&node, &name, CREDIT)?;
        let client = Client::start(&lab.consumer, &WgQuick::parse(&added.config)?)?;
        let direction = if number % 2 == 0 { Direction::Down } else { Direction::Up };
        consumers.push(Consumer { name, direction, client, progress: AtomicU64::new(0) });
    }
    thread::scope(|scope| -> Result<()> {
        let transfers: Vec<_> = consumers
            .iter()
            .map(|it| {
                scope.spawn(|| {
                    tcp::transfer_by(&it.client, server, it.direction, TRANSFER, &it.progress)
                })
            })
            .collect();
        let stopped = all_stop(&node, &consumers);
        // Whatever was found: the transfers must come to their ends.
        let resumed = resume(&node, &consumers);
        stopped?;
        resumed?;
        transfers.into_iter().try_for_each(|transfer| {
            transfer.join().ok().context("a transfer panicked")?.context("a transfer goes on")
        })
    })?;
    for it in &consumers {
        let seen = it.seen(&node)?;
        ensure!(seen.billed > TRANSFER && seen.billed <= 2 * CREDIT, "{} {seen:?}", it.name);
    }
    Ok(())
}

/// Waits until each session has used its credit up, and checks that none gets more.
fn all_stop(node: &Node<'_>, consumers: &[Consumer<'_>]) -> Result<()> {
    let start = Instant::now();
    for it in consumers {
        while node.session_show(&it.name)?.state != "paused" {
            ensure!(start.elapsed() < Duration::from_secs(120), "{}: {:?}", it.name, it.seen(node));
            thread::sleep(Duration::from_millis(100));
        }
    }
    // What is on its way arrives.
    thread::sleep(Duration::from_millis(500));
    let before: Vec<_> = consumers.iter().map(|it| it.seen(node)).collect::<Result<_>>()?;
    for (it, seen) in consumers.iter().zip(&before) {
        let used = CREDIT - BATCH..=CREDIT;
        ensure!(used.contains(&seen.billed), "{}: {seen:?} of {CREDIT}", it.name);
        ensure!(seen.received <= CREDIT && seen.progress > 0, "{}: {seen:?}", it.name);
    }
    thread::sleep(Duration::from_secs(1));
    for (it, before) in consumers.iter().zip(&before) {
        let after = it.seen(node)?;
        ensure!(after.billed == before.billed, "{}: {before:?} became {after:?}", it.name);
        // A sender's own kernel may still take from it what nobody will carry.
        let same = after.progress == before.progress || it.direction == Direction::Up;
        // WireGuard itself answers with keepalives of 32 bytes. A packet has 52 at the least.
        let keepalives = (after.received - before.received).is_multiple_of(32);
        ensure!(same && keepalives, "{}: {before:?} became {after:?}", it.name);
        ensure!(it.client.ping(SERVERS[0], 1).is_err(), "{} is not stopped", it.name);
    }
    Ok(())
}

/// Adds credit, and measures how soon a session passes again.
#[expect(clippy::print_stderr, reason = "the measurement is for whoever reads the test's output")]
fn resume(node: &Node<'_>, consumers: &[Consumer<'_>]) -> Result<()> {
    let mut slowest = Duration::ZERO;
    let mut resumed = Ok(());
    for it in consumers {
        // Every session gets its credit, so that no transfer waits for ever.
        let one = (|| -> Result<Duration> {
            credit(node, &it.name, CREDIT)?;
            let start = Instant::now();
            it.client.ping(SERVERS[0], 1).with_context(|| format!("{} stays paused", it.name))?;
            Ok(start.elapsed())
        })();
        match one {
            Ok(took) => slowest = slowest.max(took),
            Err(error) => resumed = Err(error),
        }
    }
    eprintln!("after more credit, the slowest of {SESSIONS} sessions passed within {slowest:?}");
    ensure!(slowest < Duration::from_secs(2), "{slowest:?}");
    resumed
}
