//! Judges the facts. Pure: no check observes the machine.

use super::{Finding, facts::Facts};

mod host;
mod kernel;
mod network;
#[cfg(test)]
mod tests;

/// All findings, in the order in which a node would meet them.
#[must_use]
pub fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![host::configuration(facts)];
    findings.extend(kernel::all(facts));
    findings.extend(network::all(facts));
    findings.extend(host::all(facts));
    findings
}
