//! The exit policy in force.

use std::{net::IpAddr, sync::Arc};

use anyhow::Context as _;

use weir_config::{Auto, Config, Shared, amounts::AtMost};
use weir_host::{
    HostPlan,
    nft::{self, InForce, Transits},
    uplink::{self, Uplink},
};
use weir_policy::{FlowSpec, Judge, Lists, PolicyContext, Verdict, judge};

/// The exit policy in force, with its lists.
pub(super) struct ExitPolicy {
    uplink: Uplink,
    transits: Transits,
    in_force: Arc<InForce>,
    context: PolicyContext,
    lists: Shared<Lists>,
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
        }
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
            Ok(format!(
                "exit policy: {block} address ranges and {ports} port ranges are refused, with \
                 {allow} exceptions"
            ))
        })
    }
}

impl weir_sessions::limits::FlowTable for ExitPolicy {
    fn session_flows(&self) -> u32 {
        self.in_force.session_flows()
    }

    fn set_session_flows(&self, limit: &Auto<AtMost>) -> anyhow::Result<()> {
        Ok(self.in_force.set_session_flows(limit)?)
    }
}

impl Judge for ExitPolicy {
    fn judge(&self, flow: &FlowSpec) -> anyhow::Result<Verdict> {
        let addresses = uplink::own_addresses().context("cannot read this machine's addresses")?;
        let mut context = self.context.clone();
        context.own.extend(addresses);
        Ok(judge(flow, &self.lists.get(), &context))
    }
}

/// The packets that the policy refused, as drops.
pub(super) fn drops() -> Vec<weir_accounts::Drops> {
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
