//! The tunnel's interface: addresses, MTU, up, and away.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags},
    link::LinkMessage,
};
use rtnetlink::{Handle, LinkUnspec};

/// Packets that may wait for the tunnel. The kernel's default of 500 is less than what a fast
/// sender has under way.
const QUEUE_LENGTH: u32 = 2048;

/// Opens netlink in the network namespace of this thread. The connection runs as a task of the
/// present runtime.
///
/// # Errors
///
/// Without a socket.
pub fn netlink() -> std::io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Gives an interface its MTU and addresses and sets it up.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn configure(
    handle: &Handle,
    index: u32,
    mtu: u32,
    addresses: &[IpNet],
) -> Result<(), rtnetlink::Error> {
    let message = LinkUnspec::new_with_index(index).mtu(mtu).txqueuelen(QUEUE_LENGTH).build();
    handle.link().set(message).execute().await?;
    for network in addresses {
        let (address, prefix): (IpAddr, u8) = (network.addr(), network.prefix_len());
        let mut request = handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            // An address that is still being checked is no source for a route.
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(flags);
        }
        request.execute().await?;
    }
    up(handle, index).await
}

/// Gives an interface another MTU.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn set_mtu(handle: &Handle, index: u32, mtu: u32) -> Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_index(index).mtu(mtu).build()).execute().await
}

/// Sets an interface up.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn up(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
}

/// The interface of this name.
///
/// # Errors
///
/// When the kernel does not say.
pub async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, rtnetlink::Error> {
    match handle.link().get().match_name(name.to_owned()).execute().try_next().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
        found => found,
    }
}

/// Moves an interface into another network namespace, where it has this name.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn move_into(
    handle: &Handle,
    index: u32,
    name: &str,
    namespace: &OwnedFd,
) -> Result<(), rtnetlink::Error> {
    let message = LinkUnspec::new_with_index(index).name(name).setns_by_fd(namespace.as_raw_fd());
    handle.link().set(message.build()).execute().await
}

/// Removes an interface; it need not be there.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn remove(handle: &Handle, name: &str) -> Result<(), rtnetlink::Error> {
    let Some(link) = find(handle, name).await? else { return Ok(()) };
    match handle.link().del(link.header.index).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(()),
        removed => removed,
    }
}
