//! What is weir's own, and is put back.

use std::time::Instant;

use anyhow::anyhow;

use super::{Condition, Part, RESTORE_TIMEOUT, Watch, view::View};
use crate::{
    link,
    nft::{Look, gate::Gate},
    tun,
};

impl Watch {
    /// What weir has made itself, and puts back.
    pub(super) fn look_at_own(&mut self, elements: Option<u32>) {
        if self.is_broken {
            return;
        }
        let mut failed = Vec::new();
        match self.policy.look(elements) {
            Ok(Look::Intact) => {}
            Ok(Look::Missing) => self.conditions.put_back(
                Part::Policy,
                "another program removed the exit policy's table (nft flush ruleset?); it is \
                 restored, and consumers' packets were blocked in between",
            ),
            Ok(Look::Changed) => self.conditions.put_back(
                Part::Policy,
                "another program changed the exit policy's table; it is restored",
            ),
            Err(error) => failed.push(Condition::new(
                Part::Policy,
                format!(
                    "cannot restore the exit policy, so consumers' traffic is blocked: {error}"
                ),
                "stop what removes it",
            )),
        }
        if let Err(error) = self.keep_gate() {
            failed.push(Condition::new(
                Part::Policy,
                format!("cannot restore the gate behind the exit policy: {error:#}"),
                "stop what removes it",
            ));
        }
        match self.parameters.put_back(&mut self.host.journal) {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => {
                let problem = format!(
                    "another program changed {}, which consumers' packets need; it is restored",
                    lost.join(", ")
                );
                self.conditions.put_back(Part::Forwarding, &problem);
            }
            Err(error) => failed.push(Condition::new(
                Part::Forwarding,
                format!("cannot restore a kernel parameter: {error}"),
                "start weir as root, with /proc/sys writable",
            )),
        }
        self.look_at_clock();
        self.settle(failed);
        self.conditions.looked();
    }

    /// What could not be put back. The node ends when that lasts.
    fn settle(&mut self, failed: Vec<Condition>) {
        let first = failed.first().cloned();
        self.conditions.set(&[Part::Policy, Part::Forwarding], failed);
        let Some(first) = first else {
            self.failing = None;
            return;
        };
        let since = *self.failing.get_or_insert_with(Instant::now);
        if since.elapsed() >= RESTORE_TIMEOUT {
            self.break_off(anyhow!("{first}"));
        }
    }

    pub(super) fn break_off(&mut self, reason: anyhow::Error) {
        self.is_broken = true;
        (self.listeners.broken)(reason);
    }

    /// The gate of a kernel without owners can be removed like any table.
    fn keep_gate(&mut self) -> anyhow::Result<()> {
        if let Some(gate) = &mut self.host.gate
            && !gate.is_there()?
        {
            let index = tun::index_of(&self.plan.policy.interface)?;
            self.host.gate = Some(Gate::close_behind(index)?);
        }
        Ok(())
    }

    /// The TUN device's own state, which is put back.
    pub(super) fn tunnel(&self, view: &View) -> Option<Condition> {
        let name = &self.plan.policy.interface;
        // When it is gone, the packet path says so.
        let tun = view.interfaces.iter().find(|interface| interface.name == *name)?;
        let gateways = self.plan.gateways();
        let has = |gateway: &ipnet::IpNet| tun.addresses.contains(&gateway.addr());
        if tun.is_up && tun.mtu == self.plan.mtu && gateways.iter().all(has) {
            return None;
        }
        match link::configure(tun.index, self.plan.mtu, &gateways) {
            Ok(()) => {
                let problem = format!(
                    "another program changed {name} (state, MTU or addresses); it is restored"
                );
                self.conditions.put_back(Part::Tunnel, &problem);
                None
            }
            Err(error) => Some(Condition::new(
                Part::Tunnel,
                format!("cannot restore {name}: {error}"),
                "restart weir",
            )),
        }
    }

    pub(super) fn offloads(&self) -> Option<Condition> {
        match self.host.keep_offloads() {
            Ok(lost) if lost.is_empty() => None,
            Ok(lost) => {
                let problem = format!(
                    "another program turned off {}, which saves CPU; it is restored",
                    lost.join(", ")
                );
                self.conditions.put_back(Part::Offloads, &problem);
                None
            }
            // It goes with its interface, which is seen elsewhere.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(error) => Some(Condition::new(
                Part::Offloads,
                format!("cannot turn an offload on, so packets cost more CPU: {error}"),
                "see `ethtool -k` for the uplink",
            )),
        }
    }
}
