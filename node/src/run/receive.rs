//! Chooses how consumers' data reaches the workers: on the XSK fast path from the guard, or through
//! the kernel's network stack.

use anyhow::{Context as _, anyhow};
use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};
use tracing::info;

use super::ebpf::Ebpf;
use weir_config::ReceiveMode;
use weir_dataplane::{Sources, XskMode, XskQueues};
use weir_ebpf_loader::XdpMode;
use weir_host::{Host, uplink::Uplink};

/// The sockets of the XSK fast path, if data can take it.
pub(super) struct Receive {
    /// The sockets of each worker.
    pub(super) queues: Vec<XskQueues>,
    /// Why there are none.
    without: Option<String>,
    /// What the uplink's interrupts do, as it is shown.
    interrupts: &'static str,
}

impl Receive {
    /// Opens the sockets, while the process still has the privileges for it.
    pub(super) fn prepare(
        wanted: &ReceiveMode,
        best: XskMode,
        mode: &XdpMode,
        uplink: &Uplink,
        workers: usize,
    ) -> anyhow::Result<Self> {
        if *wanted == ReceiveMode::Sockets {
            return Ok(Self::sockets("node.receive is \"sockets\""));
        }
        let opened = match mode {
            // Frames come up with the number of a port's queue, while a socket is bound to a queue
            // of the interface above: handshakes would pass, and data would not.
            _ if !uplink.ports.is_empty() => Err(anyhow!(
                "{} is made of other interfaces ({}), and AF_XDP sockets cannot be bound to their \
                 queues",
                uplink.name,
                uplink.ports.join(", ")
            )),
            XdpMode::Native if is_memory_scarce() => Err(anyhow!(
                "AF_XDP needs locked memory. Fix: LimitMEMLOCK=infinity, or ulimit -l unlimited"
            )),
            XdpMode::Native => {
                let sources = Sources::of_uplink(&uplink.v4, &uplink.v6);
                XskQueues::open(uplink.index, workers, sources, best).context(
                    "cannot open an AF_XDP socket. Fix: start the node with CAP_NET_RAW, on a \
                     kernel with CONFIG_XDP_SOCKETS",
                )
            }
            _ => Err(anyhow!("the guard does not run in the driver of {}", uplink.name)),
        };
        match (opened, wanted) {
            (Ok(queues), _) => Ok(Self { queues, without: None, interrupts: "" }),
            (Err(error), ReceiveMode::Auto) => {
                info!("data is not received over AF_XDP: {error:#}");
                Ok(Self::sockets(format!("{error:#}")))
            }
            (Err(error), _) => Err(error.context("node.receive is \"af_xdp\"")),
        }
    }

    fn sockets(reason: impl Into<String>) -> Self {
        Self { queues: Vec::new(), without: Some(reason.into()), interrupts: "" }
    }

    /// Puts the uplink's interrupts off, where that works.
    pub(super) fn defer_interrupts(&mut self, host: &mut Host, uplink: &Uplink) {
        match host.defer_interrupts(&uplink.name) {
            Ok(()) => self.interrupts = ", interrupts deferred",
            Err(error) => info!("interrupts of {} are not deferred: {error:#}", uplink.name),
        }
    }

    /// Puts the sockets into the guard's map.
    pub(super) fn begin(&self, ebpf: &Ebpf) -> anyhow::Result<()> {
        ebpf.use_fast_path(self.queues.iter().flat_map(XskQueues::sockets))
    }

    /// The path, as it is shown.
    pub(super) fn describe(&self) -> ReceivePath {
        let count = |mode| self.queues.iter().map(|queues| queues.count(mode)).sum::<usize>();
        let modes = [(XskMode::ZeroCopy, "zero-copy"), (XskMode::Copy, "copy mode")];
        let queues = modes.map(|(mode, word)| (count(mode), word));
        let queues = queues.iter().filter(|(count, _)| *count > 0);
        let queues: Vec<_> = queues.map(|(count, word)| format!("{count} ({word})")).collect();
        match &self.without {
            None => ReceivePath {
                word: "af_xdp",
                note: format!(
                    "receive over AF_XDP, queues: {}{}",
                    queues.join(", "),
                    self.interrupts
                ),
            },
            Some(reason) => ReceivePath {
                word: "sockets",
                note: format!("receive through the kernel's network stack: {reason}"),
            },
        }
    }
}

/// How data reaches the workers, as it is shown.
pub(super) struct ReceivePath {
    /// `af_xdp` or `sockets`.
    pub(super) word: &'static str,
    /// How many queues, or why not.
    pub(super) note: String,
}

/// Whether locked memory is limited. The sockets would take what io_uring needs.
fn is_memory_scarce() -> bool {
    let may_lock =
        capabilities(None).is_ok_and(|all| all.effective.contains(CapabilitySet::IPC_LOCK));
    !may_lock && getrlimit(Resource::Memlock).current.is_some()
}
