//! The uplink's offloads: weir turns some on, and LRO off.

use std::io;

use anyhow::Context as _;

use super::{
    Host, HostPlan,
    ethtool::{self, Offloads},
    journal::Change,
};

impl Host {
    pub(super) fn read_offloads(&mut self, plan: &HostPlan) -> anyhow::Result<()> {
        self.offloads = Offloads::read(&plan.uplink.name)
            .with_context(|| format!("cannot read the offloads of {}", plan.uplink.name))?;
        Ok(())
    }

    /// Turns an offload on, where there is one. Without it the node is slower, no less right.
    pub(super) fn turn_on(&mut self, interface: &str, feature: &str) -> anyhow::Result<()> {
        let state = ethtool::feature(interface, feature)
            .with_context(|| format!("cannot read the offloads of {interface}"))?;
        let recorded = |change: io::Result<()>| change.context("cannot record a change");
        let change =
            |old| Change::Feature { interface: interface.into(), feature: feature.into(), old };
        match state {
            // When an earlier run turned it on, its note of that is kept.
            Some(true) if self.journal.has_recovered_feature(interface, feature) => {
                recorded(self.journal.record(change(true)))?;
            }
            Some(true) => {}
            Some(false) => {
                recorded(self.journal.record(change(false)))?;
                if let Err(error) = ethtool::set_feature(interface, feature, true) {
                    self.notes.push(format!("{interface}: {feature} stays off ({error})"));
                }
            }
            None => self.notes.push(format!("{interface}: this kernel has no {feature}")),
        }
        Ok(())
    }

    /// Drivers refuse XDP while LRO is on, and forwarding turns it off as well.
    pub(super) fn turn_off_lro(&mut self, interface: &str) -> anyhow::Result<()> {
        let lro = ethtool::feature(interface, ethtool::LRO)
            .with_context(|| format!("cannot read the offloads of {interface}"))?;
        if lro == Some(true) || self.journal.has_recovered_feature(interface, ethtool::LRO) {
            let feature = ethtool::LRO.into();
            self.journal
                .record(Change::Feature { interface: interface.into(), feature, old: true })
                .context("cannot record a change")?;
        }
        if lro == Some(true)
            && let Err(error) = ethtool::set_feature(interface, ethtool::LRO, false)
        {
            self.notes.push(format!("{interface}: {} stays on ({error})", ethtool::LRO));
        }
        Ok(())
    }

    /// Turns on again what weir had turned on and somebody has turned off since; says what that
    /// was.
    pub(super) fn keep_offloads(&self) -> io::Result<Vec<String>> {
        let mut lost = Vec::new();
        for (interface, feature) in self.journal.turned_on() {
            if ethtool::feature(interface, feature)? == Some(false) {
                ethtool::set_feature(interface, feature, true)?;
                lost.push(format!("{feature} of {interface}"));
            }
        }
        Ok(lost)
    }
}
