//! Configuration, clock and disk.

use crate::doctor::{Finding, facts::Facts};

/// No release of weir is older: a clock before it is wrong. 1 January 2026.
const BORN: u64 = 1_767_225_600;
/// Below this the ledger may not be written for long.
const TOO_LITTLE: u64 = 100 << 20;
const LITTLE: u64 = 1 << 30;

pub(super) fn configuration(facts: &Facts) -> Finding {
    match &facts.configuration {
        Ok(which) => Finding::good("configuration", which.as_str()),
        Err(error) => Finding::bad(
            "configuration",
            format!("{error}; what follows is about the defaults"),
            "correct it; `weir config check FILE` names each mistake",
        ),
    }
}

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![clock(facts), disk(facts), sync(facts)];
    findings.extend(payments(facts));
    findings
}

/// What is credited before anybody has said that it is worth something.
fn payments(facts: &Facts) -> Option<Finding> {
    let payment = &facts.config.payment;
    if !payment.enabled {
        return None;
    }
    Some(match payment.approve_url.as_str() {
        "" => Finding::warning(
            "payments",
            "promises are credited on trust: nobody asks whether a consumer's channel exists, has \
             funds, or has promised them to others",
            "set payment.approve_url to what knows (docs/payments.md), or sell no more than you \
             can lose",
        ),
        url => Finding::good("payments", format!("{url} is asked before a promise is credited")),
    })
}

fn clock(facts: &Facts) -> Finding {
    let clock = &facts.clock;
    if clock.now < BORN {
        return Finding::bad(
            "clock",
            "it is set to a time before this version was made: usage records would be wrong",
            "apt-get install systemd-timesyncd, or chrony",
        );
    }
    match &clock.synchronised {
        Ok(true) => Finding::good("clock", "synchronised"),
        Ok(false) => Finding::warning(
            "clock",
            "nothing tells the kernel that it is kept right: usage records carry its time",
            "apt-get install systemd-timesyncd, or chrony (a virtual machine may get its time \
             from its host all the same)",
        ),
        Err(error) => Finding::unknown("clock", error.as_str()),
    }
}

fn disk(facts: &Facts) -> Finding {
    let place = facts.disk.place.display();
    match facts.disk.free {
        Ok(free) if free < TOO_LITTLE => Finding::bad(
            "disk",
            format!("{} MiB are free at {place}: the ledger may not be written", free >> 20),
            "make room, or set node.state_dir",
        ),
        Ok(free) if free < LITTLE => Finding::warning(
            "disk",
            format!("{} MiB are free at {place}", free >> 20),
            "make room for the ledger: about 1 MiB for 1000 sessions, and for usage records",
        ),
        Ok(free) => Finding::good("disk", format!("{} GiB are free at {place}", free >> 30)),
        Err(ref error) => Finding::unknown("disk", format!("{place}: {error}")),
    }
}

fn sync(facts: &Facts) -> Finding {
    let place = facts.disk.place.display();
    match &facts.disk.sync {
        Ok(()) => Finding::good("fsync", format!("what is written at {place} is on the disk")),
        Err(error) => Finding::unknown("fsync", format!("cannot write at {place}: {error}")),
    }
}
