//! The exit policy in force.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use anyhow::Context as _;

use super::egress::session_flows;
use weir_config::{Auto, Config, Protocol, Shared, amounts::AtMost};
use weir_dataplane::Exits;
use weir_host::{
    HostPlan,
    nft::{self, InForce, Transits},
    uplink::{self, Uplink},
};
use weir_nat::NewFlow;
use weir_policy::{Compiled, FlowSpec, Judge, Lists, PolicyContext, RuleCounts, Verdict, judge};

/// The exit policy in force, with its lists.
pub(super) struct ExitPolicy {
    uplink: Uplink,
    transits: Transits,
    in_force: Arc<InForce>,
    context: PolicyContext,
    lists: Shared<Lists>,
    /// How many flows each rule has decided about past the kernel.
    counts: Arc<RuleCounts>,
    /// The workers that exit past the kernel, if they do.
    exits: OnceLock<Exits>,
    /// The most flows of all sessions past the kernel.
    flows: u32,
    /// The most flows of one session past the kernel.
    session_flows: AtomicU32,
}

/// The policy as the workers ask it past the kernel.
struct FlowPolicy {
    compiled: Compiled,
    counts: Arc<RuleCounts>,
}

impl weir_nat::Policy for FlowPolicy {
    fn allows(&self, flow: &NewFlow) -> bool {
        let protocol = match flow.protocol {
            weir_nat::Protocol::Tcp => Some(Protocol::Tcp),
            weir_nat::Protocol::Udp => Some(Protocol::Udp),
            weir_nat::Protocol::Icmp => None,
        };
        let decision = match protocol {
            Some(protocol) => {
                let NewFlow { address, port, .. } = *flow;
                self.compiled.judge(&FlowSpec { address, port, protocol })
            }
            None => self.compiled.judge_address(flow.address),
        };
        self.counts.count(decision.rule);
        decision.allowed
    }
}

impl ExitPolicy {
    /// The policy that the plan has installed.
    pub(super) fn new(
        config: &Config,
        plan: &HostPlan,
        transits: Transits,
        in_force: Arc<InForce>,
    ) -> Self {
        let none: [IpAddr; 0] = [];
        Self {
            uplink: plan.uplink.clone(),
            transits,
            in_force,
            context: PolicyContext::new(config, none),
            lists: plan.lists.clone(),
            counts: Arc::default(),
            exits: OnceLock::new(),
            flows: config.nat.flows,
            session_flows: shown(&config.limits.session_flows, config.nat.flows).into(),
        }
    }

    /// The policy for the workers, as it is now.
    ///
    /// # Errors
    ///
    /// Fails if this machine's addresses cannot be read.
    pub(super) fn for_workers(&self) -> anyhow::Result<Arc<dyn weir_nat::Policy>> {
        let context = self.context_now()?;
        let compiled = Compiled::new(&self.lists.get(), &context);
        Ok(Arc::new(FlowPolicy { compiled, counts: Arc::clone(&self.counts) }))
    }

    /// From now on these workers get each new policy.
    pub(super) fn serve(&self, exits: Exits) {
        // Set once, by the one caller.
        self.exits.set(exits).ok();
    }

    /// Gives the workers the policy as it is now: the lists or this machine's addresses have changed.
    pub(super) fn refresh(&self) -> anyhow::Result<()> {
        let Some(exits) = self.exits.get() else { return Ok(()) };
        exits.set_policy(&self.for_workers()?);
        Ok(())
    }

    /// What the workers' policy has refused, as drops.
    pub(super) fn refused(&self) -> Vec<weir_accounts::Drops> {
        let refused = self.counts.snapshot().into_iter().filter(|(rule, _)| !rule.allows());
        refused
            .map(|(rule, packets)| weir_accounts::Drops {
                stage: "policy".into(),
                reason: rule.as_str().into(),
                packets,
            })
            .collect()
    }

    fn context_now(&self) -> anyhow::Result<PolicyContext> {
        let addresses = uplink::own_addresses().context("cannot read this machine's addresses")?;
        let mut context = self.context.clone();
        context.own.extend(addresses);
        Ok(context)
    }

    /// The table in the kernel.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force)
    }

    /// Reads the lists of a configuration. The returned function puts all of them in force at once,
    /// and describes them.
    pub(super) fn prepare(
        this: &Arc<Self>,
        config: &Config,
    ) -> anyhow::Result<impl FnOnce() -> anyhow::Result<String> + Send + 'static> {
        let lists = Lists::read(&config.policy)?;
        let transit = this.transits;
        let policy = nft::Policy { transit, ..nft::Policy::new(config, &lists, &this.uplink) };
        let this = Arc::clone(this);
        Ok(move || {
            let (allow, block) = (policy.allow.len(), policy.block.len());
            let ports = policy.ports.tcp.len() + policy.ports.udp.len();
            this.in_force.replace(policy)?;
            this.lists.set(lists);
            this.refresh()?;
            Ok(format!(
                "exit policy: {block} address ranges and {ports} port ranges are refused, with \
                 {allow} exceptions"
            ))
        })
    }
}

/// The most flows of one session as it is shown: 0 without a limit.
fn shown(limit: &Auto<AtMost>, flows: u32) -> u32 {
    match limit {
        Auto::Set(limit) if limit.get() == 0 => 0,
        limit => session_flows(limit, flows),
    }
}

impl weir_sessions::limits::FlowTable for ExitPolicy {
    fn session_flows(&self) -> u32 {
        match self.exits.get() {
            Some(_) => self.session_flows.load(Relaxed),
            None => self.in_force.session_flows(),
        }
    }

    fn set_session_flows(&self, limit: &Auto<AtMost>) -> anyhow::Result<()> {
        self.in_force.set_session_flows(limit)?;
        if let Some(exits) = self.exits.get() {
            self.session_flows.store(shown(limit, self.flows), Relaxed);
            exits.set_session_flows(session_flows(limit, self.flows));
        }
        Ok(())
    }
}

impl Judge for ExitPolicy {
    fn judge(&self, flow: &FlowSpec) -> anyhow::Result<Verdict> {
        Ok(judge(flow, &self.lists.get(), &self.context_now()?))
    }
}

/// The packets that the policy refused, in the kernel and past it, as drops.
pub(super) fn drops(past_kernel: &ExitPolicy) -> Vec<weir_accounts::Drops> {
    let counters = nft::read_counters().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the exit policy's counters");
        Vec::new()
    });
    let one = |counter: nft::Counter| weir_accounts::Drops {
        stage: "policy".into(),
        reason: counter.name,
        packets: counter.packets,
    };
    let mut drops: Vec<_> = counters.into_iter().map(one).collect();
    for refused in past_kernel.refused() {
        match drops.iter_mut().find(|drops| drops.reason == refused.reason) {
            Some(drops) => drops.packets += refused.packets,
            None => drops.push(refused),
        }
    }
    // Counted by the gate while the policy's table was missing.
    match nft::dropped_by_gate() {
        Ok(packets) => drops.push(weir_accounts::Drops {
            stage: "policy".into(),
            reason: "no_policy".into(),
            packets,
        }),
        Err(error) => tracing::warn!(%error, "cannot read the gate's counter"),
    }
    drops
}
