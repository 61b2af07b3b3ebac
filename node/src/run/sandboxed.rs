//! The second stage: the process has given up its privileges.

use std::sync::Arc;

use tokio::sync::mpsc;
use weir_common::{AddressPlan, PublicKey};

use super::{
    Options,
    dataplane::{self, Workers},
    egress::Egress,
    forwarding::Forwarding,
    machine::Machine,
    policy::ExitPolicy,
    receive::Receive,
    watch,
};
use crate::sandbox::Sandbox;
use weir_accounts::SharedLimits;
use weir_config::{Config, HostPort, SandboxMode};
use weir_control::resolver::Resolver;
use weir_dataplane::{Io, OnEnd, Shared};
use weir_ebpf_loader::XdpMode;
use weir_host::{
    HostPlan,
    nft::{InForce, Transits},
    tun::Tun,
    uplink::Uplink,
    watch::Conditions,
};
use weir_wireguard::identity::Identities;

/// The process has no privilege left that reloads and a clean stop do not need. No thread handles
/// a packet yet.
pub(super) struct Sandboxed<'a> {
    pub(super) options: Options<'a>,
    pub(super) uplink: Uplink,
    pub(super) endpoint: HostPort,
    pub(super) node_key: PublicKey,
    pub(super) io: Io,
    pub(super) cores: Vec<usize>,
    pub(super) plan: HostPlan,
    pub(super) tun: Tun,
    pub(super) in_force: Arc<InForce>,
    pub(super) transits: Transits,
    pub(super) notes: Vec<String>,
    pub(super) addresses: AddressPlan,
    pub(super) xdp: XdpMode,
    pub(super) receive: Receive,
    pub(super) egress: Egress,
    pub(super) levels: Arc<SharedLimits>,
    pub(super) shared: Shared,
    pub(super) identities: Arc<Identities>,
    pub(super) resolver: Resolver,
    pub(super) sandbox: Sandbox,
}

impl<'a> Sandboxed<'a> {
    /// Starts the workers.
    pub(super) fn forward(self, machine: &mut Machine) -> anyhow::Result<Forwarding<'a>> {
        let Options { config, .. } = self.options;
        let interface = self.tun.name.clone();
        self.receive.begin(&machine.ebpf)?;
        let receive = self.receive.describe();
        let (on_end, ended) = mpsc::unbounded_channel();
        let on_end: OnEnd = Arc::new(move |thread| drop(on_end.send(thread)));
        let policy = Arc::new(ExitPolicy::new(config, &self.plan, self.transits, self.in_force));
        let conditions = Conditions::default();
        let egress = self.egress.describe();
        let blocks = Arc::new(self.egress.blocks(config));
        let (exits, follower) = match self.egress {
            Egress::Kernel(_) => (Vec::new(), None),
            Egress::Bypass(bypass) => {
                let (exits, follower) = bypass.begin(
                    config,
                    &self.uplink,
                    &self.shared,
                    &policy,
                    &machine.ebpf,
                    &conditions,
                )?;
                (exits, Some(follower))
            }
        };
        let xsk = self.receive.queues;
        let workers = Workers { io: self.io, cores: &self.cores, xsk, exits, on_end };
        let dataplane = dataplane::start(
            config,
            self.shared,
            Arc::clone(&self.identities),
            self.tun,
            &mut machine.ebpf,
            workers,
        )?;
        machine.saved = false;
        if let Some(follower) = &follower {
            policy.serve(dataplane.exits());
            follower.follow(dataplane.exits());
        }
        Ok(Forwarding {
            options: self.options,
            uplink: self.uplink,
            endpoint: self.endpoint,
            node_key: self.node_key,
            io: self.io,
            cores: self.cores,
            plan: self.plan,
            notes: self.notes,
            addresses: self.addresses,
            xdp: self.xdp,
            receive,
            egress,
            follower,
            conditions,
            blocks,
            interface,
            levels: self.levels,
            identities: self.identities,
            resolver: self.resolver,
            sandbox: self.sandbox,
            policy,
            dataplane,
            ended,
        })
    }
}

/// Starts the resolver process outside the sandbox, if there is a sandbox and a name to look up.
pub(super) fn resolver(config: &Config) -> anyhow::Result<Resolver> {
    let is_asked = !config.ledger.webhook.is_empty()
        || !config.payment.approve_url.is_empty()
        || !config.cashu.mints.is_empty()
        || !config.purchase.relays.is_empty()
        || config.market.enabled
        || watch::follows_name_servers(config);
    match config.node.sandbox {
        SandboxMode::Auto | SandboxMode::Required if is_asked => Resolver::start(),
        _ => Ok(Resolver::inside()),
    }
}
