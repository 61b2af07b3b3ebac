//! A session with credit, and real traffic that uses it up.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use weir_accounts::Accounts;
use weir_common::{Account, Slot, account::SessionState};
use weir_tests::{
    Client, Lab, Settings,
    lab::SERVERS,
    steps::connected,
    traffic::tcp::{self, Direction},
};

const MEGABYTES_10: u64 = 10_000_000;
/// The configuration's default.
const SLOTS: u32 = 4096;
const GATEWAY: &str = "10.66.0.1";

#[test]
fn a_session_stops_at_its_credit_and_resumes_with_more() -> Result<()> {
    for direction in [Direction::Up, Direction::Down] {
        let lab = Lab::new()?;
        let (node, added, client) = connected(&lab, Settings::default())?;
        let accounts = accounts_with(&added.session.id)?;
        let account = accounts.get(Slot(added.session.slot)).context("its account")?;
        let limit = account.billed() + MEGABYTES_10;
        account.set_limit(Some(limit));

        let server = tcp::Server::start(&lab.internet)?;
        let (progress, address) = (AtomicU64::new(0), server.at(SERVERS[0]));
        std::thread::scope(|scope| -> Result<()> {
            let transfer = scope
                .spawn(|| tcp::transfer(&lab.consumer, address, direction, 30_000_000, &progress));
            let checked = stops(&client, account, limit);
            // Whatever was found: the transfer must come to its end.
            account.set_limit(None);
            let resumed = Instant::now();
            let ping = client.ping(SERVERS[0], 1);
            let resumed = resumed.elapsed();
            checked.with_context(|| format!("{direction:?}"))?;
            ping?;
            ensure!(resumed < Duration::from_millis(100), "{resumed:?}");
            transfer
                .join()
                .ok()
                .context("the transfer panicked")?
                .context("the transfer goes on")?;
            Ok(())
        })?;
        ensure!(node.drops(if direction == Direction::Up { "up" } else { "down" }, "credit")? > 0);
    }
    Ok(())
}

/// Waits until the credit is used up, and checks what passes then.
fn stops(client: &Client<'_>, account: &Account, limit: u64) -> Result<()> {
    let start = Instant::now();
    while account.standing() == SessionState::Open {
        ensure!(start.elapsed() < Duration::from_secs(20), "{} used", account.billed());
        std::thread::sleep(Duration::from_millis(1));
    }
    // What is on its way is billed when the kernel has taken it.
    std::thread::sleep(Duration::from_millis(200));
    let used = account.billed();
    ensure!(used <= limit && limit - used < 2000, "{used} of {limit}");
    std::thread::sleep(Duration::from_millis(500));
    ensure!(account.billed() == used, "nothing is billed while paused");
    // The internet is not there, the gateway is, and for nothing.
    ensure!(client.ping(SERVERS[0], 1).is_err());
    let gateway: IpAddr = GATEWAY.parse()?;
    let pinged = client.ping(gateway, 3);
    ensure!(pinged.is_ok(), "{pinged:?}");
    ensure!(account.billed() == used, "the gateway costs nothing");
    Ok(())
}

/// The accounts of the running node that has this session.
fn accounts_with(session: &str) -> Result<Accounts> {
    let session = u64::from_str_radix(session, 16).context("an identifier")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let bpf = mounts.lines().filter(|line| line.starts_with("bpf ") || line.contains(" bpf "));
    for folder in bpf.filter_map(|line| line.split(' ').nth(1)) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let pin = entry.path().join("accounts");
            let Some(accounts) = open(&pin) else { continue };
            let names = |account: &Account| account.control.session.load(Relaxed) == session;
            if (0..SLOTS).filter_map(|slot| accounts.get(Slot(slot))).any(names) {
                return Ok(accounts);
            }
        }
    }
    anyhow::bail!("no running node has this session")
}

fn open(pin: &Path) -> Option<Accounts> {
    let map = MapData::from_pin(pin).ok()?;
    if map.info().ok()?.max_entries() != SLOTS {
        return None;
    }
    Accounts::map(map.fd(), SLOTS).ok()
}
