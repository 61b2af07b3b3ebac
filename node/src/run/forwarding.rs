//! The third stage: the workers move packets, and there is no session yet.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, atomic::AtomicU32},
};

use anyhow::Context as _;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use weir_common::{AddressPlan, PublicKey};

use super::{
    Options,
    blocks::BlockJournal,
    egress::{EgressPath, Follower},
    flow_view::{self, Blocks, Flows},
    keys::Ring,
    ledger::Intervals,
    machine::Machine,
    policy::ExitPolicy,
    receive::ReceivePath,
    reload::{self, ReloadTargets},
    serve,
    serving::Serving,
    sessions,
    status::{self, View},
    watch,
};
use crate::sandbox::Sandbox;
use weir_accounts::SharedLimits;
use weir_config::{HostPort, Shared};
use weir_control::{flows::SharedFlowView, resolver::Resolver};
use weir_dataplane::{Dataplane, Io, MAX_DESTINATIONS, MAX_NEW_FLOWS, ThreadEnded};
use weir_ebpf_loader::XdpMode;
use weir_host::{
    HostPlan,
    uplink::Uplink,
    watch::{Conditions, Watcher},
};
use weir_ledger::SharedLedger;
use weir_sessions::{
    limits::{FlowTable, Limiter},
    registry::Sessions,
    wg_quick::PeerTemplate,
};
use weir_wireguard::identity::Identities;

// What can be configured must be what the packet path can count.
const _: () = assert!(weir_config::limits::MAX_SESSION_NEW_FLOWS <= MAX_NEW_FLOWS);
const _: () = assert!(weir_config::limits::MAX_SESSION_DESTINATIONS <= MAX_DESTINATIONS);

/// The workers move packets. They must be stopped, also after an error.
pub(super) struct Forwarding<'a> {
    pub(super) options: Options<'a>,
    pub(super) uplink: Uplink,
    pub(super) endpoint: HostPort,
    pub(super) node_key: PublicKey,
    pub(super) io: Io,
    pub(super) cores: Vec<usize>,
    pub(super) plan: HostPlan,
    pub(super) notes: Vec<String>,
    pub(super) addresses: AddressPlan,
    pub(super) xdp: XdpMode,
    pub(super) receive: ReceivePath,
    pub(super) egress: EgressPath,
    /// Follows the next hops, if the workers exit past the kernel.
    pub(super) follower: Option<Follower>,
    pub(super) conditions: Conditions,
    /// The blocks of ports that sessions hold.
    pub(super) blocks: Arc<Blocks>,
    pub(super) interface: String,
    pub(super) levels: Arc<SharedLimits>,
    pub(super) identities: Arc<Identities>,
    pub(super) resolver: Resolver,
    pub(super) sandbox: Sandbox,
    pub(super) policy: Arc<ExitPolicy>,
    pub(super) dataplane: Dataplane,
    /// The threads of the packet path that have ended.
    pub(super) ended: UnboundedReceiver<ThreadEnded>,
}

/// The sessions, the ledger that they are in, and what holds them to their limits.
type Opened = (Arc<Sessions>, SharedLedger, Arc<Limiter>);

impl<'a> Forwarding<'a> {
    /// Opens the sessions, and starts the watch over the host.
    pub(super) fn open(self, machine: &mut Machine) -> anyhow::Result<Serving<'a>> {
        let (sessions, ledger, limiter) = match self.open_sessions(machine) {
            Ok(opened) => opened,
            Err(error) => {
                self.dataplane.stop();
                return Err(error);
            }
        };
        let Options { config, file, log } = self.options;
        let template = Shared::from(self.template());
        let series = Shared::from(reload::series(&config.api));
        let intervals = Shared::from(Intervals::from(&config.ledger));
        let addresses: Shared<Vec<IpAddr>> =
            Shared::from(self.uplink.addresses().collect::<Vec<_>>());
        let gib_price = Shared::from(u64::from(config.cashu.gib_price));
        let market = match reload::market_settings(config) {
            Ok(market) => Shared::from(market),
            Err(error) => {
                self.dataplane.stop();
                return Err(error);
            }
        };
        let targets = ReloadTargets {
            policy: Arc::clone(&self.policy),
            template: template.clone(),
            series: series.clone(),
            intervals: intervals.clone(),
            handshakes: self.dataplane.handshakes(),
            guard: machine.ebpf.control(),
            limiter: Arc::clone(&limiter),
            market: market.clone(),
            gib_price: gib_price.clone(),
            log: log.clone(),
        };
        let keys = Arc::new(Ring {
            path: config.node.private_key_file.clone(),
            identities: self.identities,
            guard: machine.ebpf.control(),
            template: template.clone(),
            changing: Mutex::default(),
        });
        let reloader = Arc::new(targets.reloader(config, file, &self.uplink));
        let conditions = self.conditions;
        let uplink_mtu = Arc::new(AtomicU32::new(self.uplink.mtu));
        let (broken, breaks) = mpsc::unbounded_channel();
        let (servers, name_servers) = watch::name_servers(config);
        let listeners = watch::listeners(
            config,
            (&template, addresses.clone()),
            uplink_mtu.clone(),
            servers,
            &self.resolver,
            (self.follower.as_ref().map(Follower::addresses), Arc::clone(&self.policy)),
            broken,
        );
        let host = machine.host.take().context("the host is prepared once")?;
        let watcher = Watcher::start(host, self.plan, config, conditions.clone(), listeners);
        let watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                self.dataplane.stop();
                return Err(error);
            }
        };
        let exits = self.follower.as_ref().map(|_| self.dataplane.exits());
        let blocks = Arc::clone(&self.blocks);
        if let Some(exits) = &exits {
            flow_view::restore(exits, &sessions, &ledger, &blocks)?;
        }
        let flows: SharedFlowView = Arc::new(Flows {
            path: self.egress,
            addresses: self.follower.as_ref().map(Follower::addresses),
            exits,
            sessions: Arc::clone(&sessions),
            blocks,
        });
        let view = Arc::new(View::new(status::Sources {
            uplink: self.uplink,
            uplink_mtu,
            xdp: self.xdp,
            receive: self.receive,
            flows: Arc::clone(&flows),
            policy: Arc::clone(&self.policy),
            io: self.io,
            sandbox: self.sandbox,
            notes: self.notes,
            conditions,
            cores: self.cores,
            template: template.clone(),
            interface: self.interface,
            mtu: config.tunnel.mtu,
            sessions: Arc::clone(&sessions),
            ledger: ledger.clone(),
            counts: self.dataplane.counts(),
            guard: machine.ebpf.counter(),
            limiter: Arc::clone(&limiter),
        }));
        let blocks = Arc::new(BlockJournal::new(Arc::clone(&flows), ledger.clone()));
        let parts = serve::ControlPlane {
            sessions,
            ledger,
            view,
            template,
            series,
            intervals,
            limiter,
            reloader,
            keys,
            policy: self.policy,
            flows,
            blocks,
            resolver: self.resolver,
            addresses,
            market,
            gib_price,
            ended: self.ended,
            breaks,
            name_servers,
        };
        Ok(Serving { config, dataplane: self.dataplane, follower: self.follower, watcher, parts })
    }

    fn open_sessions(&self, machine: &Machine) -> anyhow::Result<Opened> {
        let Options { config, .. } = self.options;
        let (sessions, ledger) =
            sessions::open(config, &machine.ebpf, &self.dataplane, self.addresses, self.node_key)?;
        let (limits, known) = (config.limits.clone(), Arc::clone(&sessions));
        let (accounts, levels) = (machine.ebpf.accounts(), Arc::clone(&self.levels));
        let flows = Arc::clone(&self.policy) as Arc<dyn FlowTable>;
        let limiter = Limiter::new(limits, known, ledger.clone(), accounts, levels, flows)?;
        Ok((sessions, ledger, Arc::new(limiter)))
    }

    /// What new consumer configurations say.
    fn template(&self) -> PeerTemplate {
        let config = self.options.config;
        PeerTemplate {
            node_key: self.node_key,
            endpoint: self.endpoint.to_string(),
            dns: config.dns_servers(),
            mtu: config.tunnel.mtu,
            keepalive: config.tunnel.keepalive,
            free_bytes: config.payment.free_bytes(),
        }
    }
}
