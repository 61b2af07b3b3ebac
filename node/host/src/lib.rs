//! What the node changes on the machine, and how it undoes every change.
//!
//! 1. [`uplink`] finds the interface to the internet, from which a [`HostPlan`] follows.
//! 2. [`Host::prepare`] makes the changes, in an order in which nothing passes before the exit policy
//!    is there. Each is written to the undo journal (`journal.rs`) before it is made.
//!    [`Host::forward`] has the kernel forward, where consumers' packets leave through it.
//! 3. [`nft`] has the exit policy, its counters, the gate behind it, and what other programs' rules
//!    would refuse. [`tun`] makes the TUN device, [`ethtool`] sets offloads, [`deferral`] puts off
//!    interrupts, and [`Parameter`] reads kernel parameters.
//! 4. [`watch`] checks all of it while the node runs, and puts it back or reports it.
//!    [`conntrack`] removes the flows of sessions that have ended.
//! 5. [`Host::undo`] undoes the changes in reverse (`undo.rs`), as does the next run after a kill.
//!
//! For a packet path that does without the kernel's routing, [`next_hop`] follows the kernel's routes
//! and neighbours, and [`listeners`] finds the sockets of the host whose ports it must leave alone.
//!
//! [`xdp_features`] tells `weir doctor` what a driver supports. Everything happens in the network
//! namespace of the calling thread.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub mod conntrack;
pub mod deferral;
pub mod ethtool;
mod forwarding;
mod journal;
mod link;
pub mod listeners;
mod netdev;
mod netlink;
pub mod next_hop;
mod nfnetlink;
pub mod nft;
mod offloads;
mod reserved_ports;
mod sysctl;
pub mod tun;
mod undo;
pub mod uplink;
pub mod watch;
pub mod xdp_features;

use ethtool::Offloads;
pub use forwarding::Forwarding;
use journal::{Change, UndoJournal};
use nft::{InForce, Policy, Transits, gate::Gate};
use sysctl::Uplinks;
pub use sysctl::{Parameter, has_ipv6};
use tun::Tun;
use undo::Files;
use uplink::Uplink;

use weir_config::{Config, Shared};
use weir_policy::Lists;

/// What is to be changed.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Where the undo journal is.
    pub runtime_dir: PathBuf,
    /// Where its second copy is.
    pub state_dir: PathBuf,
    /// The uplink.
    pub uplink: Uplink,
    /// The node's IPv4 address inside the tunnel, with the pool's prefix length.
    pub gateway_v4: Ipv4Net,
    /// The node's IPv6 address inside the tunnel, with the pool's prefix length.
    pub gateway_v6: Ipv6Net,
    /// The MTU inside the tunnel, in bytes.
    pub mtu: u32,
    /// Queues of the TUN device: one for each worker.
    pub queues: usize,
    /// The exit policy.
    pub policy: Policy,
    /// The lists that the policy is from.
    pub lists: Shared<Lists>,
    /// What is pinned in bpffs, directories before what is in them. Others make it after
    /// [`Host::prepare`]; a clean stop removes it, and a run that fails leaves it to the next one.
    pub pins: Vec<PathBuf>,
    /// The first and the last of the node's external ports, which are reserved against the host's
    /// programs. `None` where the kernel translates addresses.
    pub reserved_ports: Option<(u16, u16)>,
    /// When the kernel begins to forward.
    pub forwarding: Forwarding,
}

impl HostPlan {
    /// The plan that follows from a configuration.
    ///
    /// # Errors
    ///
    /// Fails when the tunnel's MTU does not fit the uplink, and says which does, and when a list
    /// of the policy cannot be read.
    pub fn new(config: &Config, uplink: Uplink, queues: usize) -> anyhow::Result<Self> {
        if let Some((problem, fix)) = weir_config::misfit(config, uplink.mtu) {
            bail!("tunnel.mtu: {problem} ({}). Fix: {fix}.", uplink.name);
        }
        let tunnel = &config.tunnel;
        let lists = Lists::read(&config.policy)?;
        Ok(Self {
            runtime_dir: config.node.runtime_dir.clone(),
            state_dir: config.node.state_dir.clone(),
            gateway_v4: Ipv4Net::new(tunnel.plan().gateway_v4(), tunnel.pool_v4.prefix_len())?,
            gateway_v6: Ipv6Net::new(tunnel.plan().gateway_v6(), tunnel.pool_v6.prefix_len())?,
            mtu: tunnel.mtu,
            queues,
            policy: Policy::new(config, &lists, &uplink),
            lists: Shared::from(lists),
            uplink,
            pins: Vec::new(),
            reserved_ports: None,
            forwarding: Forwarding::default(),
        })
    }

    /// The TUN device's addresses.
    fn gateways(&self) -> Vec<IpNet> {
        let v6 = has_ipv6().then_some(IpNet::V6(self.gateway_v6));
        [Some(IpNet::V4(self.gateway_v4)), v6].into_iter().flatten().collect()
    }

    fn uplinks(&self) -> Uplinks<'_> {
        let v4 = self.uplink.name.as_str();
        Uplinks { v4, v6: self.uplink.ipv6.other().unwrap_or(v4) }
    }
}

/// The machine, prepared. What is changed is undone by [`Host::undo`]; when this is dropped instead
/// (the node could not start), all but the pins is.
#[derive(Debug)]
pub struct Host {
    /// The offloads of the uplink, as they are now.
    pub offloads: Offloads,
    /// What the operator should know, in words.
    pub notes: Vec<String>,
    /// What this machine forwards that is not of consumers.
    pub transits: Transits,
    /// Whether the kernel forwards consumers' packets.
    forwards: bool,
    tun: Option<Tun>,
    policy: Option<Arc<InForce>>,
    gate: Option<Gate>,
    journal: UndoJournal,
}

impl Host {
    /// Makes all changes. What a killed run has left is taken over, or undone.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and what to do about it; all changes are undone then.
    pub fn prepare(plan: &HostPlan) -> anyhow::Result<Self> {
        let mut host = Self {
            offloads: Offloads::default(),
            notes: Vec::new(),
            transits: Transits::default(),
            forwards: false,
            tun: None,
            policy: None,
            gate: None,
            journal: UndoJournal::open(&plan.runtime_dir, Some(&plan.state_dir))?,
        };
        if host.journal.has_recovered() {
            host.notes.push("took over from a run that did not stop cleanly".into());
        }
        // On an error `host` is dropped, which undoes what was done.
        host.apply(plan)?;
        if let Err(errors) = undo::roll_back_recovered(&mut host.journal) {
            bail!("cannot undo what an earlier run left behind: {}", errors.join("; "));
        }
        Ok(host)
    }

    fn apply(&mut self, plan: &HostPlan) -> anyhow::Result<()> {
        let interface = &plan.policy.interface;
        for left in self.journal.recovered_links() {
            // The kernel may still be closing the queues of the process that was killed.
            link::remove(&left).with_context(|| format!("cannot remove the interface {left}"))?;
        }
        // While the killed run's exit policy still refuses what must not be forwarded.
        if plan.forwarding == Forwarding::OnDemand
            && let Err(errors) = undo::roll_back_forwarding(&mut self.journal)
        {
            bail!("cannot turn off what an earlier run left on: {}", errors.join("; "));
        }
        self.refuse_overlap(plan)?;
        if tun::index_of(interface).is_ok() {
            return Err(tun::TunError::Taken(interface.clone()).into());
        }

        for pin in &plan.pins {
            self.journal
                .record(Change::File { path: pin.clone() })
                .context("cannot record a change")?;
        }
        self.journal.record(Change::Policy).context("cannot record a change")?;
        if plan.forwarding == Forwarding::AtOnce {
            self.read_transits(plan)?;
        }
        let policy = Policy { transit: self.transits, ..plan.policy.clone() };
        let (in_force, note) = InForce::install(policy)?;
        self.policy = Some(Arc::new(in_force));
        self.notes.extend(note.map(str::to_owned));
        self.journal
            .record(Change::Link { name: interface.clone() })
            .context("cannot record a change")?;
        let tun = Tun::create(interface, plan.queues)?;
        if !tun.offloads.tso {
            self.notes.push(
                "this kernel does not support super-packets on the TUN device: all traffic uses \
                 more CPU"
                    .into(),
            );
        } else if !tun.offloads.uso {
            self.notes.push(
                "this kernel does not support UDP super-packets on the TUN device (Linux 6.2 \
                 does): UDP uses more CPU"
                    .into(),
            );
        }
        let gate = Gate::close_behind(tun.index)?;
        if !gate.is_owned() {
            self.notes.push(
                "if another program flushes the ruleset, consumers' packets pass unfiltered until \
                 weir restores the exit policy (Linux 5.12 can block them)"
                    .into(),
            );
        }
        self.gate = Some(gate);
        sysctl::prepare_tun(interface).context("cannot set up the TUN device")?;
        let addresses = plan.gateways();
        if !has_ipv6() {
            self.notes.push("IPv6 is off on this machine: consumers get IPv4 only".into());
        }
        link::configure(tun.index, plan.mtu, &addresses)
            .with_context(|| format!("cannot set up the interface {interface}"))?;
        self.tun = Some(tun);
        self.turn_off_lro(&plan.uplink.name)?;
        self.notes.extend(plan.uplink.ipv6.note(&plan.uplink.name));
        if plan.forwarding == Forwarding::AtOnce {
            self.begin_forwarding(plan)?;
        }
        if let Some(ports) = plan.reserved_ports {
            reserved_ports::reserve(&mut self.journal, ports).context(
                "cannot reserve the node's ports. Fix: start weir as root, with /proc/sys \
                 writable",
            )?;
        }
        self.turn_on(&plan.uplink.name, ethtool::GRO)?;
        self.read_offloads(plan)
    }

    /// The exit policy in force, while the host is prepared.
    #[must_use]
    pub fn policy(&self) -> Option<Arc<InForce>> {
        self.policy.clone()
    }

    /// Fails when the consumers' addresses are in use on another interface of this machine.
    fn refuse_overlap(&self, plan: &HostPlan) -> anyhow::Result<()> {
        let pools = [
            ("tunnel.pool_v4", IpNet::V4(plan.policy.pool_v4)),
            ("tunnel.pool_v6", IpNet::V6(plan.policy.pool_v6)),
        ];
        for (name, network) in uplink::networks().context("cannot read this machine's networks")? {
            for (key, pool) in pools {
                if name != plan.policy.interface && weir_config::overlap(&pool, &network) {
                    bail!(
                        "{key} = \"{pool}\" overlaps {}, which {name} has. Fix: choose another \
                         private network for it.",
                        network.trunc()
                    );
                }
            }
        }
        Ok(())
    }

    /// The TUN device, once.
    pub fn take_tun(&mut self) -> Option<Tun> {
        self.tun.take()
    }

    /// Takes every change back. The workers must have stopped.
    ///
    /// # Errors
    ///
    /// Says what could not be undone. The next run tries it again.
    pub fn undo(mut self) -> anyhow::Result<()> {
        (self.tun, self.gate) = (None, None);
        if let Err(errors) = undo::roll_back(&mut self.journal, Files::Remove) {
            bail!("some changes on this machine could not be undone: {}", errors.join("; "));
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        (self.tun, self.gate) = (None, None);
        if let Err(errors) = undo::roll_back(&mut self.journal, Files::Keep) {
            for error in errors {
                tracing::warn!(%error, "a change on this machine could not be undone");
            }
        }
    }
}
