//! A network namespace whose only way out is a tunnel. The tunnel's datagrams leave from the
//! namespace outside. Nothing else is changed on the machine.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use anyhow::{Context as _, anyhow};
use rtnetlink::Handle;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    link,
    routes::{self, Exit},
    source::Candidate,
    tunnel::{Counts, Kind, Tunnel},
};

/// The port of the discard protocol (RFC 863).
const DISCARD: u16 = 9;
/// The interface inside.
pub const INTERFACE: &str = "weir0";

/// Sends an empty datagram: the kernel's WireGuard shakes hands only when there is something to send.
fn greet(gateway: IpAddr) {
    let any: IpAddr = match gateway {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sent = UdpSocket::bind((any, 0)).and_then(|it| it.send_to(&[], (gateway, DISCARD)));
    // Whatever the program sends does the same.
    sent.ok();
}

/// The namespace and its tunnel. Both go when this is dropped.
#[derive(Debug)]
pub struct Inside {
    tunnel: Tunnel,
    namespace: OwnedFd,
}

impl Inside {
    /// Makes the namespace, and the tunnel to a node.
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel refuses.
    pub async fn open(handle: &Handle, candidate: &Candidate, kind: Kind) -> anyhow::Result<Self> {
        let Candidate { conf, endpoint, .. } = candidate;
        let made = Tunnel::start_inside(handle, INTERFACE, conf, *endpoint, kind).await?;
        let (tunnel, namespace) = made;
        let exit = Exit::new(0, conf.exit_address(false), conf.exit_address(true));
        let inside = Self { tunnel, namespace };
        let configure = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let handle = link::netlink()?;
                let index = async |name: &str| -> anyhow::Result<u32> {
                    let found = link::find(&handle, name).await?;
                    let found = found.with_context(|| format!("there is no interface {name}"))?;
                    Ok(found.header.index)
                };
                link::up(&handle, index("lo").await?).await?;
                let index = index(INTERFACE).await?;
                link::configure(&handle, index, conf.mtu.into(), &conf.addresses).await?;
                routes::set_only(&handle, &Exit { index, ..exit }).await
            })?;
            if let Some(gateway) = conf.gateway() {
                greet(gateway);
            }
            Ok(())
        };
        inside.run(configure).context("cannot set up the network of the tunnel's namespace")?;
        Ok(inside)
    }

    /// Does something on a thread of its own that is in the namespace. It may leave other namespaces.
    ///
    /// # Errors
    ///
    /// Without root, or as the action.
    pub fn run<T: Send>(
        &self,
        action: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let entered = || {
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the tunnel's network namespace. Fix: run as root")?;
            action()
        };
        let done = thread::scope(|scope| scope.spawn(entered).join());
        done.map_err(|_| anyhow!("a thread panicked"))?
    }

    /// What the tunnel has counted.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn counts(&self) -> anyhow::Result<Counts> {
        self.tunnel.counts()
    }

    /// Removes the tunnel. The namespace goes with the last program in it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn stop(self, handle: &Handle) -> anyhow::Result<()> {
        self.tunnel.stop(handle).await
    }
}
