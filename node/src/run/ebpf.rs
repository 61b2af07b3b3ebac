//! The eBPF programs and the accounts, with or without a kernel that allows them.

use std::{
    fs,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, bail};
use tracing::warn;
use weir_common::{
    AddressPlan, GuardConfig, Slot, SlotPermutation,
    exit::{ExitConfig, PORT_WORDS},
    gcra::Rate,
    mac1::{Mac1Key, Mac1Keys},
};

use weir_accounts::{Accounts, file};
use weir_config::{Config, GuardMode, Node};
use weir_ebpf_loader::{
    Bpffs, Guard, GuardCounts, GuardError, GuardLog, GuardOptions, XdpMode, XdpPolicy,
};
use weir_host::{
    ethtool,
    uplink::{self, Uplink},
};

/// The node's eBPF programs and accounts.
pub(super) struct Ebpf {
    accounts: Arc<Accounts>,
    guard: Option<Arc<Mutex<Guard>>>,
    bpffs: Option<Bpffs>,
    runtime_dir: PathBuf,
    /// Why there are no programs, if there are none.
    without: Option<String>,
    /// The interface that the guard is on.
    uplink: Option<u32>,
}

/// Reads the guard's counts, if there is a guard.
#[derive(Clone)]
pub(super) struct GuardCounter(Option<Arc<Mutex<Guard>>>);

impl GuardCounter {
    pub(super) fn read(&self) -> Option<GuardCounts> {
        let guard = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.counts() {
            Ok(counts) => Some(counts),
            Err(error) => {
                warn!(%error, "cannot read the guard's counters");
                None
            }
        }
    }
}

/// Changes the guard, if there is one.
#[derive(Clone)]
pub(super) struct GuardControl(Option<Weak<Mutex<Guard>>>);

impl GuardControl {
    fn with(
        &self,
        change: impl FnOnce(&mut Guard) -> Result<(), GuardError>,
    ) -> anyhow::Result<()> {
        let Some(guard) = &self.0 else { return Ok(()) };
        let guard = guard.upgrade().context("the node is stopping")?;
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut guard).context("the guard in the kernel does not accept it")
    }

    /// Accepts handshakes for this key too.
    pub(super) fn add_mac1_key(&self, key: Mac1Key) -> anyhow::Result<()> {
        self.with(|guard| guard.add_mac1_key(key))
    }

    /// Accepts handshakes for the latest key only.
    pub(super) fn retire_mac1_key(&self) -> anyhow::Result<()> {
        self.with(Guard::retire_mac1_key)
    }

    /// Sends what comes back to these addresses and ports to the workers.
    pub(super) fn set_exit(
        &self,
        exit: &ExitConfig,
        ports: &[u64; PORT_WORDS],
    ) -> anyhow::Result<()> {
        self.with(|guard| guard.set_exit(exit, ports))
    }

    /// Changes the limits on handshake initiations.
    pub(super) fn set_initiations(&self, node: &Node) -> anyhow::Result<()> {
        let (one_source, ceiling) = initiations(node);
        self.with(|guard| guard.set_initiations(one_source, ceiling))
    }
}

/// The limits on initiations from one source, and from all sources on each CPU.
fn initiations(node: &Node) -> (Rate, Rate) {
    let ceiling = node.handshakes_per_core;
    (
        Rate::new(node.handshakes_per_source, node.handshakes_per_source_burst),
        // The burst is a tenth of a second's worth.
        Rate::new(ceiling, ceiling / 10),
    )
}

/// Unmounts a bpffs that this node has mounted, if nothing is pinned in it.
fn release_empty(bpffs: Bpffs) {
    let is_empty = fs::read_dir(bpffs.path()).is_ok_and(|mut pins| pins.next().is_none());
    if is_empty && let Err(error) = bpffs.release() {
        warn!(%error, "cannot unmount the bpffs");
    }
}

/// Why there is no guard, without the verifier's log, which `weir doctor` has the end of.
fn reason(error: &anyhow::Error) -> String {
    match error.downcast_ref::<GuardError>() {
        Some(error) => error.explain().0,
        None => format!("{error:#}"),
    }
}

impl Ebpf {
    /// Loads the programs and the accounts, and takes over what a killed node left.
    pub(super) fn prepare(
        config: &Config,
        plan: AddressPlan,
        permutation: SlotPermutation,
        workers: u32,
        mac1: Mac1Keys,
    ) -> anyhow::Result<Self> {
        let node = &config.node;
        let (one_source, ceiling) = initiations(node);
        let guard_config = GuardConfig {
            plan,
            permutation,
            workers,
            slots: node.max_sessions,
            port: node.listen_port,
            super_packets: 0,
            mac1,
            initiations: one_source,
            ceiling,
        };
        let loaded =
            Bpffs::find_or_mount(&node.runtime_dir).context("no bpffs").and_then(|bpffs| {
                // Named after the runtime directory, of which each node has its own.
                let name = node.runtime_dir.to_string_lossy().replace(['/', '.'], "-");
                let pins = bpffs.path().join(format!("weir{name}"));
                let options = GuardOptions { pins, config: guard_config, linear: false };
                match Guard::load(&options) {
                    Ok(guard) => Ok((guard, bpffs)),
                    Err(error) => {
                        release_empty(bpffs);
                        Err(error.into())
                    }
                }
            });
        let runtime_dir = node.runtime_dir.clone();
        match loaded {
            Ok((guard, bpffs)) => Ok(Self {
                accounts: guard.accounts(),
                guard: Some(Arc::new(Mutex::new(guard))),
                bpffs: Some(bpffs),
                runtime_dir,
                without: None,
                uplink: None,
            }),
            Err(error) if node.xdp == GuardMode::Required => Err(error),
            Err(error) => {
                let accounts = file::open(&runtime_dir, node.max_sessions)
                    .context("cannot create the accounts")?;
                let without = Some(reason(&error));
                Ok(Self {
                    accounts: Arc::new(accounts),
                    guard: None,
                    bpffs: None,
                    runtime_dir,
                    without,
                    uplink: None,
                })
            }
        }
    }

    pub(super) fn accounts(&self) -> Arc<Accounts> {
        Arc::clone(&self.accounts)
    }

    /// Whether the node has mounted a file system that it must unmount at the end.
    pub(super) fn has_mounted(&self) -> bool {
        self.bpffs.as_ref().is_some_and(Bpffs::is_ours)
    }

    /// Whether the accounts have nothing that the ledger must save.
    pub(super) fn is_vacant(&self) -> bool {
        (0..self.accounts.len())
            .filter_map(|slot| self.accounts.get(Slot(slot)))
            .all(|account| account.control.session.load(Relaxed) == 0)
    }

    pub(super) fn counter(&self) -> GuardCounter {
        GuardCounter(self.guard.clone())
    }

    pub(super) fn control(&self) -> GuardControl {
        GuardControl(self.guard.as_ref().map(Arc::downgrade))
    }

    /// Whether the programs choose sockets and queues.
    pub(super) fn steers(&self) -> bool {
        self.guard.is_some()
    }

    /// Puts the guard on the uplink, as far as the configuration and the kernel allow.
    pub(super) fn attach(&mut self, uplink: &Uplink, wanted: GuardMode) -> anyhow::Result<XdpMode> {
        let Some(guard) = &self.guard else {
            let reason = self.without.clone().unwrap_or_default();
            if wanted != GuardMode::Off {
                warn!(%reason, "NO GUARD: eBPF cannot be used. Every packet costs the node a \
                    system call");
            }
            return Ok(XdpMode::Off { reason });
        };
        let has_ethernet = uplink::has_ethernet_header(uplink.index).unwrap_or_else(|error| {
            warn!(%error, "cannot tell whether the uplink has an Ethernet header");
            true
        });
        let wanted = if has_ethernet { wanted } else { without_ethernet(&uplink.name, wanted)? };
        let policy = match wanted {
            GuardMode::Auto => XdpPolicy::Auto,
            GuardMode::Native => XdpPolicy::Native,
            GuardMode::Generic => XdpPolicy::Generic,
            GuardMode::Off => XdpPolicy::Off,
            GuardMode::Required => XdpPolicy::Required,
        };
        self.uplink = Some(uplink.index);
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        let mode = match guard.attach(uplink.index, policy) {
            Ok(mode) => mode,
            Err(error) if wanted == GuardMode::Required => {
                return Err(error).context("node.xdp is \"required\"");
            }
            Err(error) => {
                let off = guard.attach(uplink.index, XdpPolicy::Off);
                off.context("cannot go on without a guard")?;
                XdpMode::Off { reason: error.to_string() }
            }
        };
        let mode = match mode {
            XdpMode::Off { .. } if !has_ethernet => XdpMode::Off { reason: NO_ETHERNET.into() },
            mode => mode,
        };
        match &mode {
            XdpMode::Native => {
                // Behind XDP the kernel joins datagrams only if GRO is on (and drivers turn it off).
                if let Err(error) = ethtool::set_feature(&uplink.name, ethtool::GRO, true) {
                    warn!(uplink = uplink.name, %error, "GRO stays off: receiving uses more CPU");
                }
            }
            XdpMode::Generic => {}
            XdpMode::Off { reason } if wanted != GuardMode::Off => {
                warn!(%reason, "NO GUARD: every packet to the node's port costs it a system call");
            }
            XdpMode::Off { .. } => {}
        }
        Ok(mode)
    }

    pub(super) fn steer_udp(
        &mut self,
        v4: &[BorrowedFd<'_>],
        v6: &[BorrowedFd<'_>],
    ) -> anyhow::Result<()> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.steer_udp(v4, v6).context("cannot steer datagrams to their workers")
    }

    /// Puts data on the XSK fast path at the queues of these sockets.
    pub(super) fn use_fast_path<'a>(
        &self,
        sockets: impl Iterator<Item = (u32, BorrowedFd<'a>)>,
    ) -> anyhow::Result<()> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.use_fast_path(sockets).context("the guard does not accept the AF_XDP sockets")
    }

    /// A descriptor of the program that chooses the TUN queue, if there is one.
    pub(super) fn steering_program(&self) -> anyhow::Result<Option<std::os::fd::OwnedFd>> {
        let Some(guard) = &self.guard else { return Ok(None) };
        let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(guard.steering_program_fd()?.try_clone_to_owned()?))
    }

    pub(super) fn take_log(&mut self) -> Option<GuardLog> {
        let guard = self.guard.as_ref()?;
        guard.lock().unwrap_or_else(PoisonError::into_inner).take_log()
    }

    /// Removes everything from the kernel. If the ledger has not `saved` the accounts, they stay for
    /// the next run, which takes them over.
    pub(super) fn undo(self, saved: bool) -> anyhow::Result<()> {
        let Self { accounts, guard, bpffs, runtime_dir, uplink, .. } = self;
        drop(accounts);
        let Some(guard) = guard else {
            if saved {
                file::remove(&runtime_dir).context("cannot remove the accounts")?;
            }
            return Ok(());
        };
        let Ok(guard) = Arc::try_unwrap(guard) else {
            bail!("the guard is still in use");
        };
        let mut guard = guard.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !saved {
            if let Some(uplink) = uplink {
                guard.attach(uplink, XdpPolicy::Off).context(NOT_OFF)?;
            }
            return Ok(());
        }
        guard.detach_and_unpin().context(NOT_OFF)?;
        if let Some(bpffs) = bpffs {
            bpffs.release().context("cannot unmount the bpffs")?;
        }
        Ok(())
    }
}

/// The mode on an uplink on which the guard would recognise nothing.
fn without_ethernet(uplink: &str, wanted: GuardMode) -> anyhow::Result<GuardMode> {
    match wanted {
        GuardMode::Required => bail!("node.xdp is \"required\", but {uplink}: {NO_ETHERNET}"),
        GuardMode::Off => {}
        _ => warn!(
            uplink,
            "NO GUARD: {NO_ETHERNET}. Every packet to the node's port costs it a system call"
        ),
    }
    Ok(GuardMode::Off)
}

const NO_ETHERNET: &str = "the uplink's frames have no Ethernet header (PPP, TUN, IP in IP), \
    which the guard needs";
const NOT_OFF: &str = "cannot detach the guard from the uplink";
