//! Killed at random moments under traffic, again and again: the bill is right after each.
#![expect(clippy::print_stdout, reason = "the seed of a failed run is needed to repeat it")]

use std::{
    env, thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_tests::{
    Lab, Settings,
    lab::SERVERS,
    node::Session,
    steps::connected,
    traffic::{
        chatter::{Chatter, MESSAGE},
        udp,
    },
    until,
};

/// Kills in one run. `WEIR_KILLS=200 cargo xtask test -- --test e2e kills::` is the long one.
const KILLS: u64 = 20;

/// What a worker sends in one iteration at this load, in bytes. It counts them once they are sent, so that
/// it never bills what was not: those of its last iteration it may not have come to.
const TURN: u64 = 64 * MESSAGE;

/// A number from the environment.
fn set(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// The next of a row of numbers that looks random.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn never_falls(after: &Session, before: &Session) -> bool {
    after.bytes_up >= before.bytes_up
        && after.bytes_down >= before.bytes_down
        && after.packets_up >= before.packets_up
        && after.packets_down >= before.packets_down
}

#[test]
fn after_each_kill_the_bill_is_between_what_arrived_and_what_the_kernel_saw() -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let mut seed = set("WEIR_SEED").unwrap_or(now);
    let kills = set("WEIR_KILLS").unwrap_or(KILLS);
    println!("{kills} kills with WEIR_SEED={seed}");
    let lab = Lab::new()?;
    let (mut node, added, client) = connected(&lab, Settings::default())?;
    let echo = udp::Echo::start(&lab.internet, SERVERS[0])?;
    let chatter = Chatter::default();
    let mut last = node.session_show(&added.session.id)?;
    thread::scope(|scope| -> Result<()> {
        let talk = scope.spawn(|| chatter.talk(&lab.consumer, echo.at(SERVERS[0])));
        let rounds = (0..kills).try_for_each(|kill| -> Result<()> {
            let returned = chatter.returned();
            until("traffic flows", Duration::from_secs(40), || {
                ensure!(chatter.returned() > returned, "nothing has come back since");
                Ok(())
            })?;
            thread::sleep(Duration::from_millis(next(&mut seed) % 1200));
            node.kill()?;
            let confirmed = chatter.returned() * MESSAGE;
            node.restart()?;
            let ours = node.session_show(&added.session.id)?;
            let sent = client.transfer()?.sent;
            let check = || -> Result<()> {
                ensure!(never_falls(&ours, &last), "the bill has fallen from {last:?}");
                ensure!(ours.bytes_up >= confirmed, "{confirmed} came back");
                let uncounted = (kill + 1) * TURN;
                ensure!(ours.bytes_down + uncounted >= confirmed, "{confirmed} came back");
                ensure!(ours.bytes_up <= ours.guard.bytes, "more than the kernel saw");
                ensure!(ours.bytes_up + ours.handshake_bytes_up <= sent, "more than {sent}");
                // What goes down answers what went up, but for a keepalive now and then.
                let keepalives = 2 + 2 * kill;
                ensure!(ours.packets_down <= ours.packets_up + keepalives, "answers to nothing");
                Ok(())
            };
            check().with_context(|| format!("after kill {kill}: {ours:?}"))?;
            last = ours;
            Ok(())
        });
        chatter.stop();
        talk.join().map_err(|_| anyhow!("the traffic panicked"))?.and(rounds)
    })?;
    let confirmed = chatter.returned() * MESSAGE;
    node.stop()?;
    let record = node.records()?.pop().context("no usage record")?;
    ensure!(record.bytes_up >= last.bytes_up, "{record:?} {last:?}");
    ensure!(record.bytes_up >= confirmed, "{record:?} {confirmed}");
    ensure!(record.bytes_down + kills * TURN >= confirmed, "{record:?} {confirmed}");
    let sent = client.transfer()?.sent;
    ensure!(record.bytes_up <= sent, "{record:?} {sent}");
    Ok(())
}
