//! A tunnel: an interface that encrypts. The kernel's WireGuard does it where it exists, else a
//! thread of this process.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use anyhow::{Context as _, anyhow, ensure};
use rtnetlink::{Handle, LinkWireguard};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{bill::Counted, conf::Conf, link, namespace};

mod device;
mod kernel;
mod lost;
mod session;
mod userspace;

pub use userspace::MAX_WAITING;

const NO_KERNEL: &str =
    "this kernel has no WireGuard. Fix: modprobe wireguard, or let weir use its own";

/// Which WireGuard is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The kernel's where it exists, else weir's own.
    #[default]
    Any,
    /// The kernel's.
    Kernel,
    /// weir's own.
    Userspace,
}

/// What a tunnel has counted, as `wg show` does: the UDP payload of everything that was authentic
/// or sent, handshakes included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes from the node.
    pub received: u64,
    /// Bytes to the node.
    pub sent: u64,
    /// Bytes from the node that were lost on the way, at most. The kernel's WireGuard does not say.
    pub lost: u64,
    /// Whether there was a handshake.
    pub is_established: bool,
}

impl Counts {
    /// Both directions, without what was lost.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.received.saturating_add(self.sent)
    }

    /// As a bill is compared with it.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        Counted { carried: self.total(), lost: self.lost }
    }
}

/// A tunnel that is up. It goes when this is dropped.
#[derive(Debug)]
pub struct Tunnel {
    /// The interface's name.
    pub name: String,
    /// The interface's number.
    pub index: u32,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Kernel,
    /// The kernel's, in another network namespace.
    Inside(OwnedFd),
    Userspace(userspace::Userspace),
}

impl Tunnel {
    /// Makes an interface, which encrypts for the node of `conf` at `endpoint`, and sets it up. The
    /// datagrams have the mark, if any. An interface of that name that is left from before goes.
    ///
    /// # Errors
    ///
    /// Says what the kernel refused.
    pub async fn start(
        handle: &Handle,
        name: &str,
        conf: &Conf,
        endpoint: SocketAddr,
        mark: Option<u32>,
        kind: Kind,
    ) -> anyhow::Result<Self> {
        link::remove(handle, name).await.with_context(|| format!("cannot remove {name}"))?;
        let tunnel = match kind {
            Kind::Userspace => Self::userspace(name, conf, endpoint, mark)?,
            Kind::Kernel | Kind::Any => {
                let made = handle.link().add(LinkWireguard::new(name).build()).execute().await;
                match made {
                    Ok(()) => Self::kernel(handle, name, conf, endpoint, mark).await?,
                    Err(_) if kind == Kind::Any => Self::userspace(name, conf, endpoint, mark)?,
                    Err(error) => return Err(error).context(NO_KERNEL),
                }
            }
        };
        link::configure(handle, tunnel.index, conf.mtu.into(), &conf.addresses)
            .await
            .with_context(|| format!("cannot set up the interface {name}"))?;
        Ok(tunnel)
    }

    /// Makes an interface in a new network namespace, and leaves it down. Its datagrams leave from the
    /// namespace of the caller.
    ///
    /// # Errors
    ///
    /// As [`Tunnel::start`].
    pub async fn start_inside(
        handle: &Handle,
        name: &str,
        conf: &Conf,
        endpoint: SocketAddr,
        kind: Kind,
    ) -> anyhow::Result<(Self, OwnedFd)> {
        // Outside, other interfaces may have that name.
        let outside = format!("weir-{:x}", std::process::id());
        let made = match kind {
            Kind::Userspace => false,
            Kind::Kernel | Kind::Any => {
                handle.link().add(LinkWireguard::new(&outside).build()).execute().await.is_ok()
            }
        };
        ensure!(made || kind != Kind::Kernel, "{NO_KERNEL}");
        let in_namespace = || {
            let namespace = namespace::leave_network()?;
            let device = if made { None } else { Some(device::Device::create(name)?) };
            anyhow::Ok((namespace, device))
        };
        let entered = thread::scope(|scope| scope.spawn(in_namespace).join());
        let (inside, device) = entered.map_err(|_| anyhow!("a thread panicked"))??;
        let engine = match device {
            Some(device) => {
                Engine::Userspace(userspace::Userspace::start(device, conf, endpoint, None)?)
            }
            None => {
                let moved = async {
                    kernel::configure(&outside, conf, endpoint, None)?;
                    let link = link::find(handle, &outside).await?.context("it is gone")?;
                    link::move_into(handle, link.header.index, name, &inside).await?;
                    anyhow::Ok(())
                };
                if let Err(error) = moved.await {
                    link::remove(handle, &outside).await.ok();
                    return Err(error.context("cannot move WireGuard into the namespace"));
                }
                Engine::Inside(inside.try_clone()?)
            }
        };
        Ok((Self { name: name.to_owned(), index: 0, engine }, inside))
    }

    async fn kernel(
        handle: &Handle,
        name: &str,
        conf: &Conf,
        endpoint: SocketAddr,
        mark: Option<u32>,
    ) -> anyhow::Result<Self> {
        let link = link::find(handle, name).await?.context("the new interface is gone")?;
        kernel::configure(name, conf, endpoint, mark)?;
        Ok(Self { name: name.to_owned(), index: link.header.index, engine: Engine::Kernel })
    }

    fn userspace(
        name: &str,
        conf: &Conf,
        endpoint: SocketAddr,
        mark: Option<u32>,
    ) -> anyhow::Result<Self> {
        let device = device::Device::create(name)?;
        let index = device.index;
        let running = userspace::Userspace::start(device, conf, endpoint, mark)?;
        Ok(Self { name: name.to_owned(), index, engine: Engine::Userspace(running) })
    }

    /// Removes the interface.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn stop(self, handle: &Handle) -> anyhow::Result<()> {
        match self.engine {
            Engine::Kernel => link::remove(handle, &self.name).await?,
            // It goes with the namespace.
            Engine::Inside(_) => {}
            Engine::Userspace(running) => running.stop(),
        }
        Ok(())
    }

    /// What it has counted.
    ///
    /// # Errors
    ///
    /// When the kernel does not say, for example because somebody removed the interface.
    pub fn counts(&self) -> anyhow::Result<Counts> {
        match &self.engine {
            Engine::Kernel => kernel::counts(&self.name),
            Engine::Inside(namespace) => {
                let inside = || {
                    let network = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(namespace.as_fd(), network)?;
                    kernel::counts(&self.name)
                };
                let read = thread::scope(|scope| scope.spawn(inside).join());
                read.map_err(|_| anyhow!("a thread panicked"))?
            }
            Engine::Userspace(running) => running.counts(),
        }
    }

    /// Which WireGuard it is, in words.
    #[must_use]
    pub const fn engine(&self) -> &'static str {
        match self.engine {
            Engine::Kernel | Engine::Inside(_) => "the kernel's WireGuard",
            Engine::Userspace(_) => "weir's own WireGuard",
        }
    }
}
