//! Has the kernel forward consumers' packets, where they leave through it.

use anyhow::Context as _;

use super::{
    Host, HostPlan, ethtool,
    nft::{Policy, Transits},
    sysctl,
};

/// When the kernel begins to forward consumers' packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// While the host is prepared.
    #[default]
    AtOnce,
    /// At [`Host::forward`]. Packets that leave past the kernel's stack need no forwarding, and the
    /// host then stays no router. Before Linux 6.17, forwarding of IPv6 would make it one for all
    /// networks.
    OnDemand,
}

impl Host {
    /// Has the kernel forward consumers' packets, unless it does already.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and what to do about it. [`Host::undo`] undoes what was done.
    pub fn forward(&mut self, plan: &HostPlan) -> anyhow::Result<()> {
        if self.forwards {
            return Ok(());
        }
        self.read_transits(plan)?;
        if self.transits != Transits::default()
            && let Some(in_force) = &self.policy
        {
            // Before it forwards anything.
            in_force.replace(Policy { transit: self.transits, ..plan.policy.clone() })?;
        }
        self.begin_forwarding(plan)?;
        self.read_offloads(plan)
    }

    /// Finds what the exit policy must refuse once the kernel forwards.
    pub(super) fn read_transits(&mut self, plan: &HostPlan) -> anyhow::Result<()> {
        self.transits = sysctl::transits(&self.journal, plan.uplinks())
            .context("cannot read whether forwarding is on")?;
        Ok(())
    }

    /// The exit policy with [`Host::transits`] must be in force.
    pub(super) fn begin_forwarding(&mut self, plan: &HostPlan) -> anyhow::Result<()> {
        sysctl::forward(&mut self.journal, &plan.policy.interface, plan.uplinks()).context(
            "cannot turn on forwarding. Fix: start weir as root, with /proc/sys writable",
        )?;
        self.turn_on(&plan.uplink.name, ethtool::UDP_GRO_FORWARDING)?;
        self.forwards = true;
        Ok(())
    }
}
