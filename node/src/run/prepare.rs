//! The first stage: the host and the eBPF programs are prepared.

use std::sync::Arc;

use anyhow::Context as _;
use tracing::info;
use weir_common::{AddressPlan, SlotPermutation};

use super::{
    Options, choices, dataplane,
    ebpf::Ebpf,
    egress::{self, Egress},
    keys as key_ring,
    machine::Machine,
    random,
    receive::Receive,
    sandboxed::{Sandboxed, resolver},
    uplink::Found,
};
use crate::sandbox;
use weir_accounts::SharedLimits;
use weir_config::HostPort;
use weir_dataplane::{Cipher, Io, Shared, XskMode};
use weir_host::{Host, HostPlan, deferral, nft::InForce, tun::Tun, uplink::Uplink};
use weir_sessions::keys::rotation;
use weir_wireguard::{
    aead,
    identity::Identities,
    keys::{self, PrivateKey},
};

/// The machine is prepared, and the process still has all its privileges.
pub(super) struct Prepared<'a> {
    options: Options<'a>,
    uplink: Uplink,
    endpoint: HostPort,
    key: PrivateKey,
    previous_key: Option<PrivateKey>,
    io: Io,
    cores: Vec<usize>,
    plan: HostPlan,
    tun: Tun,
    in_force: Arc<InForce>,
    addresses: AddressPlan,
    permutation: SlotPermutation,
    cipher: aead::Path,
    /// The cores of those who help with the cipher.
    helpers: Vec<usize>,
}

impl<'a> Prepared<'a> {
    /// Prepares the host, then the eBPF programs. On an error the host is as it was.
    pub(super) fn new(options: Options<'a>, found: Found) -> anyhow::Result<(Self, Machine)> {
        let config = options.config;
        let Found { uplink, endpoint } = found;
        let cipher = aead::Path::from_environment()
            .with_context(|| format!("{} is wrong. Fix: unset it", aead::ENVIRONMENT))?;
        let (key, is_new) = keys::load_or_create(&config.node.private_key_file)?;
        if is_new {
            info!(
                file = %config.node.private_key_file.display(),
                "created the node's private key"
            );
        }
        let previous_key = rotation::previous(&config.node.private_key_file)?;
        let io = choices::io(&config.node.io)?;
        let (cores, helpers) = choices::cores(config)?;
        let mut plan = HostPlan::new(config, uplink.clone(), cores.len())?;
        plan.reserved_ports = egress::reserved_ports(config, &uplink);
        plan.forwarding = egress::forwarding(config);
        let mut host = Host::prepare(&plan)?;
        let tun = host.take_tun().context("the TUN device is gone")?;
        let in_force = host.policy().context("the exit policy is missing")?;

        let addresses = config.tunnel.plan();
        let permutation = random::permutation()?;
        let ebpf = Ebpf::prepare(
            config,
            addresses,
            permutation,
            cores.len() as u32,
            key_ring::mac1_keys(&key, previous_key.as_ref()),
        )?;
        // What a killed run counted is not saved yet.
        let saved = ebpf.is_vacant();
        let machine = Machine { ebpf, host: Some(host), saved };
        let prepared = Self {
            options,
            uplink,
            endpoint,
            key,
            previous_key,
            io,
            cores,
            plan,
            tun,
            in_force,
            addresses,
            permutation,
            cipher,
            helpers,
        };
        Ok((prepared, machine))
    }

    /// Attaches the guard, opens what needs privileges, and gives these up.
    pub(super) fn enter_sandbox(self, machine: &mut Machine) -> anyhow::Result<Sandboxed<'a>> {
        let Options { config, file, .. } = self.options;
        let xdp = machine.ebpf.attach(&self.uplink, config.node.xdp)?;
        // In zero-copy mode, what is for the host's stack is copied out. Where that is all that comes
        // back for consumers, it costs more than it saves.
        let may_bypass = self.plan.reserved_ports.is_some();
        let best = match config.node.zero_copy && may_bypass {
            true => XskMode::ZeroCopy,
            false => XskMode::Copy,
        };
        let workers = self.cores.len();
        let mut receive =
            Receive::prepare(&config.node.receive, best, &xdp, &self.uplink, workers)?;
        let egress = Egress::choose(config, &self.uplink, &receive, workers)?;
        let host = machine.host.as_mut().context("the host is not prepared")?;
        let mut switches = Vec::new();
        match egress {
            Egress::Kernel(_) => host.forward(&self.plan)?,
            Egress::Bypass(_) if config.node.defer_interrupts => {
                receive.defer_interrupts(host, &self.uplink);
                switches = deferral::files(&self.uplink.name);
            }
            Egress::Bypass(_) => {}
        }
        let notes =
            [host.offloads.describe(), host.notes.clone(), choices::io_notes(config, self.io)]
                .concat();
        let transits = host.transits;
        let levels = Arc::<SharedLimits>::default();
        let mut shared = Shared {
            accounts: machine.ebpf.accounts(),
            permutation: self.permutation,
            addresses: self.addresses,
            workers: workers as u32,
            mtu: config.tunnel.mtu as usize,
            uso: self.tun.offloads.uso,
            udp_segmentation: dataplane::segmentation(&config.node),
            limits: Arc::clone(&levels),
            flow_secret: random::flow_secret()?,
            cipher: self.cipher.into(),
        };
        let identities =
            Identities::new(key_ring::identities(&self.key, self.previous_key.as_ref()));
        let resolver = resolver(config)?;
        // Before the first thread that handles what comes from outside.
        let sandbox = sandbox::enter(config, file, switches, machine.ebpf.has_mounted())?;
        for missing in &sandbox.missing {
            info!("sandbox: no {missing}");
        }
        shared.cipher = Cipher::with_helpers(self.cipher, self.helpers)
            .context("cannot start the helpers of node.cipher_cores")?;
        Ok(Sandboxed {
            options: self.options,
            uplink: self.uplink,
            endpoint: self.endpoint,
            node_key: self.key.public(),
            io: self.io,
            cores: self.cores,
            plan: self.plan,
            tun: self.tun,
            in_force: self.in_force,
            transits,
            notes,
            addresses: self.addresses,
            xdp,
            receive,
            egress,
            levels,
            shared,
            identities,
            resolver,
            sandbox,
        })
    }
}
