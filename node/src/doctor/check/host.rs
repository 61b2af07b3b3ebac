//! Configuration, clock and disk.

use crate::doctor::{Finding, facts::Facts};

/// 1 January 2026, before the first release of weir. An earlier clock is wrong.
const FIRST_RELEASE: u64 = 1_767_225_600;
/// With fewer free bytes, the ledger may soon be unable to grow.
const MIN_FREE: u64 = 100 << 20;
const LOW_FREE: u64 = 1 << 30;

pub(super) fn configuration(facts: &Facts) -> Finding {
    match &facts.configuration {
        Ok(which) => Finding::good("configuration", which.as_str()),
        Err(error) => Finding::bad(
            "configuration",
            format!("{error}; the checks below use the defaults"),
            "correct it; `weir config check FILE` reports each mistake",
        ),
    }
}

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![clock(facts), disk(facts), sync(facts)];
    findings.extend(payments(facts));
    findings
}

/// The amount that is credited before a promise is approved.
fn payments(facts: &Facts) -> Option<Finding> {
    let payment = &facts.config.payment;
    if !payment.enabled {
        return None;
    }
    Some(match payment.approve_url.as_str() {
        "" => Finding::warning(
            "payments",
            "promises are credited without a check that the consumer's channel exists, has funds, \
             and has not promised them to others",
            "set payment.approve_url to a service that checks them (docs/payments.md), or sell no \
             more than you can afford to lose",
        ),
        url => Finding::good("payments", format!("{url} is asked before a promise is credited")),
    })
}

fn clock(facts: &Facts) -> Finding {
    let clock = &facts.clock;
    if clock.now < FIRST_RELEASE {
        return Finding::bad(
            "clock",
            "it is set to a time before this version was built: usage records would be wrong",
            "apt-get install systemd-timesyncd, or chrony",
        );
    }
    match &clock.synchronised {
        Ok(true) => Finding::good("clock", "synchronised"),
        Ok(false) => Finding::warning(
            "clock",
            "it is not synchronised: usage records carry its time",
            "apt-get install systemd-timesyncd, or chrony (a virtual machine may get its time \
             from its host all the same)",
        ),
        Err(error) => Finding::unknown("clock", error.as_str()),
    }
}

fn disk(facts: &Facts) -> Finding {
    let directory = facts.disk.directory.display();
    match facts.disk.free {
        Ok(free) if free < MIN_FREE => Finding::bad(
            "disk",
            format!("{} MiB are free at {directory}: writing the ledger may fail", free >> 20),
            "free some space, or set node.state_dir",
        ),
        Ok(free) if free < LOW_FREE => Finding::warning(
            "disk",
            format!("{} MiB are free at {directory}", free >> 20),
            "free some space for the ledger: about 1 MiB per 1000 sessions, plus usage records",
        ),
        Ok(free) => Finding::good("disk", format!("{} GiB are free at {directory}", free >> 30)),
        Err(ref error) => Finding::unknown("disk", format!("{directory}: {error}")),
    }
}

fn sync(facts: &Facts) -> Finding {
    let directory = facts.disk.directory.display();
    match &facts.disk.sync {
        Ok(()) => Finding::good("fsync", format!("writes to {directory} reach the disk")),
        Err(error) => Finding::unknown("fsync", format!("cannot write at {directory}: {error}")),
    }
}
