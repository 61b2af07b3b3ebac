//! The machine's clock is put back by days and forward again, while the node runs, over restarts and
//! kills: no number of the account falls, nothing is lost, and no day's quota begins twice.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_common::wire::INITIATION_LEN;
use weir_ledger::UsageRecord;
use weir_tests::{
    Client, Lab, Node, Settings,
    faketime::{Clock, DAY},
    lab::{SERVER_V4, SERVERS},
    node::{Added, Session},
    until,
    wgquick::WgQuick,
};

const TIMEOUT: Duration = Duration::from_secs(60);
/// No test takes longer: then its clock is still within the day.
const HOUR: u64 = 3600;

/// What happens to the node as its clock is set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Traffic,
    Stop,
    Kill,
}

/// Where the clock goes, in days from today. Records are kept for 30 days by this same clock, so
/// that it stays within less.
const STEPS: [(i64, Meanwhile); 10] = [
    (-3, Meanwhile::Traffic),
    (2, Meanwhile::Traffic),
    (-9, Meanwhile::Traffic),
    (-9, Meanwhile::Kill),
    (-12, Meanwhile::Stop),
    (1, Meanwhile::Traffic),
    (-5, Meanwhile::Kill),
    (4, Meanwhile::Stop),
    (0, Meanwhile::Kill),
    (5, Meanwhile::Traffic),
];

struct Rig<'a> {
    node: Node<'a>,
    clock: Clock,
    added: Added,
    client: Client<'a>,
    began: Instant,
}

/// What was there after a step.
#[derive(Default)]
struct Seen {
    session: Option<Session>,
    records: Vec<UsageRecord>,
    /// The latest day, and what was used in all when it began.
    day: i64,
    mark: u64,
}

fn start(lab: &Lab) -> Result<Rig<'_>> {
    // Nobody but the pings speaks, also while the node is down.
    lab.consumer.sysctl("net.ipv6.conf.default.router_solicitations", "0")?;
    let mut node = Node::prepare(&lab.node, settings())?;
    let clock = Clock::of(&mut node)?;
    let began = Instant::now();
    node.restart()?;
    let added = node.session_add("consumer")?;
    let client = Client::start(&lab.consumer, &WgQuick::parse(&added.config)?)?;
    client.route("45.80.3.0/24")?;
    client.wait_connected(SERVERS[0])?;
    Ok(Rig { node, clock, added, client, began })
}

fn settings() -> Settings {
    Settings::default().with("ledger", "record_seconds", "1")
}

impl Rig<'_> {
    /// Pings, of which none is lost.
    fn traffic(&self) -> Result<()> {
        let interface = self.client.interface();
        let line = format!("ping -n -q -I {interface} -c 60 -i 0.02 -W 10 -s 1200 {SERVER_V4}");
        self.client.namespace().run(&line).map(drop)
    }

    /// Sets the clock.
    fn step(&mut self, days: i64, meanwhile: Meanwhile) -> Result<()> {
        match meanwhile {
            Meanwhile::Traffic => thread::scope(|scope| {
                let traffic = scope.spawn(|| self.traffic());
                thread::sleep(Duration::from_millis(400));
                self.clock.set(days)?;
                traffic.join().map_err(|_| anyhow!("the traffic panicked"))?
            })?,
            Meanwhile::Stop => {
                self.node.stop()?;
                self.clock.set(days)?;
                self.node.restart()?;
                // The consumer comes by itself once it misses the node, which takes 15 s.
                self.client.forget_keys(&self.added.config)?;
            }
            Meanwhile::Kill => {
                self.node.kill()?;
                self.clock.set(days)?;
                self.node.restart()?;
                until("the consumer's session is resumed", TIMEOUT, || {
                    ensure!(self.node.status()?.handshakes > 0, "no handshake");
                    Ok(())
                })?;
            }
        }
        self.traffic()
    }

    /// Waits until the node itself says that it is this day, by its quota's end and by the time at
    /// which a new session was made.
    fn believes(&self, days: i64) -> Result<()> {
        let (noon, name) = (self.clock.noon_of(days), format!("at {days}"));
        until("the node looks at its clock", TIMEOUT, || {
            let day = self.node.status()?.limits.day;
            ensure!(day.resets == noon + DAY / 2, "{day:?} is not around {noon}");
            Ok(())
        })?;
        let created = self.node.session_add(&name)?.session.created;
        self.node.weir(&["session", "remove", &name])?;
        ensure!((noon..noon + HOUR).contains(&created), "made at {created}, not after {noon}");
        Ok(())
    }

    /// What the node and the consumer say, once they agree to the byte.
    fn agreed(&self) -> Result<Session> {
        until("both ends agree", TIMEOUT, || {
            let theirs = self.client.transfer()?;
            let ours = self.node.session_show(&self.added.session.id)?;
            // An initiation that was sent while the node was down reached nobody.
            let lost = theirs.sent.checked_sub(ours.bytes_up + ours.handshake_bytes_up);
            let lost = lost.with_context(|| format!("{theirs:?} {ours:?}"))?;
            ensure!(lost.is_multiple_of(INITIATION_LEN as u64), "{theirs:?} {ours:?}");
            let down = ours.bytes_down + ours.handshake_bytes_down;
            ensure!(theirs.received == down, "{theirs:?} {ours:?}");
            Ok(ours)
        })
    }

    /// The session's records, once the last one says what the session does.
    fn records(&self, of: &Session) -> Result<Vec<UsageRecord>> {
        until("there is a record of all of it", TIMEOUT, || {
            let mut records = self.node.records()?;
            records.retain(|record| record.session == of.id);
            let last = records.last().context("no record")?;
            let said = [last.bytes_up, last.packets_up, last.bytes_down, last.packets_down];
            let used = [of.bytes_up, of.packets_up, of.bytes_down, of.packets_down];
            ensure!(said == used, "{last:?} {of:?}");
            Ok(records)
        })
    }

    /// What all sessions had used when the quota's day began.
    fn mark(&self, total: u64) -> Result<u64> {
        let used = self.node.status()?.limits.day.used;
        total.checked_sub(used).with_context(|| format!("{used} of {total} were used today"))
    }

    /// Everything after a step, held against what was before it.
    fn look(&self, days: i64, before: &Seen) -> Result<Seen> {
        self.believes(days)?;
        let session = self.agreed()?;
        if let Some(before) = &before.session {
            never_falls(&session, before)?;
        }
        let records = self.records(&session)?;
        // By a clock that nobody sets.
        let open = self.began.elapsed().as_secs();
        ensure!(session.seconds <= open, "open for {} of {open} s", session.seconds);
        ensure!(records.starts_with(&before.records), "records have gone, or are others");
        ensure!(records.len() > before.records.len(), "no new record");
        for (number, record) in records.iter().enumerate() {
            ensure!(record.sequence == number as u64 + 1, "{record:?} is not {number}");
            ensure!(record.seconds <= open, "{record:?} in {open} s");
        }
        let total = session.bytes_up + session.bytes_down;
        let (mark, day) = (self.mark(total)?, before.day.max(days));
        let had = before.session.as_ref().map_or(0, |had| had.bytes_up + had.bytes_down);
        if day > before.day {
            // The new day began during the step, and its traffic.
            ensure!((had..total).contains(&mark), "{mark} is not between {had} and {total}");
            let activity = records.last().context("no record")?.last_activity;
            ensure!(activity >= self.clock.noon_of(days), "{activity} is before the new day");
        } else {
            ensure!(mark == before.mark, "a day began again: at {mark}, not {}", before.mark);
        }
        Ok(Seen { session: Some(session), records, day, mark })
    }
}

fn never_falls(after: &Session, before: &Session) -> Result<()> {
    let numbers = |of: &Session| {
        let handshakes = [of.handshake_bytes_up, of.handshake_bytes_down];
        let used = [of.bytes_up, of.packets_up, of.bytes_down, of.packets_down, of.seconds];
        used.into_iter().chain(handshakes).collect::<Vec<_>>()
    };
    let fell = numbers(after).iter().zip(numbers(before)).any(|(after, before)| *after < before);
    ensure!(!fell && after.created == before.created, "{before:?}, then {after:?}");
    // Not by counting nothing: 60 pings both ways.
    ensure!(after.bytes_up > before.bytes_up + 60_000, "{before:?}, then {after:?}");
    Ok(())
}

#[test]
fn a_clock_that_steps_back_and_forward_takes_nothing_from_the_account() -> Result<()> {
    let lab = Lab::new()?;
    let mut rig = start(&lab)?;
    rig.traffic()?;
    let mut seen = rig.look(0, &Seen::default())?;
    for (days, meanwhile) in STEPS {
        let step = rig.step(days, meanwhile).and_then(|()| rig.look(days, &seen));
        seen = step.with_context(|| format!("day {days}, {meanwhile:?}\n{}", rig.node.log()))?;
    }
    let session = seen.session.context("nothing was seen")?;
    let page = rig.node.metrics()?;
    for (direction, bytes) in [("up", session.bytes_up), ("down", session.bytes_down)] {
        let line = format!("weir_tunnel_bytes_total{{direction=\"{direction}\"}} {bytes}");
        ensure!(page.lines().any(|found| found == line), "no {line}");
    }
    rig.node.stop()?;
    ensure!(rig.node.records()?.len() >= seen.records.len() + STEPS.len(), "records are missing");
    Ok(())
}

#[test]
fn a_clock_that_steps_back_opens_no_quota_that_is_used_up() -> Result<()> {
    let lab = Lab::new()?;
    let mut rig = start(&lab)?;
    let is_paused = |rig: &Rig<'_>| {
        let state = rig.node.session_show(&rig.added.session.id)?.state;
        let paused_for = rig.node.status()?.limits.paused_for;
        ensure!(state == "paused" && paused_for.as_deref() == Some("quota"), "{state}");
        ensure!(rig.client.ping(SERVERS[0], 1).is_err(), "there is traffic");
        Ok(())
    };
    rig.traffic()?;
    rig.node.configure(settings().with("limits", "bytes_per_day", "\"20 kB\""))?;
    rig.node.hang_up()?;
    until("the quota is used up", TIMEOUT, || is_paused(&rig))?;
    let look = |rig: &Rig<'_>, days: i64| {
        until("the node looks at its clock", TIMEOUT, || {
            let day = rig.node.status()?.limits.day;
            ensure!(day.resets == rig.clock.noon_of(days) + DAY / 2, "{day:?}");
            Ok(())
        })
    };
    for days in [-1, -20, 0] {
        rig.clock.set(days)?;
        look(&rig, days)?;
        is_paused(&rig).with_context(|| format!("day {days}"))?;
    }
    rig.node.kill()?;
    rig.clock.set(-2)?;
    rig.node.restart()?;
    look(&rig, -2)?;
    is_paused(&rig).context("after a kill")?;
    rig.clock.set(1)?;
    look(&rig, 1)?;
    rig.client.wait_connected(SERVERS[0])?;
    rig.node.stop()
}
