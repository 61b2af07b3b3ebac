//! Sets up the TUN device's link: MTU, queue length, addresses, up.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags},
    link::LinkAttribute,
};
use rtnetlink::LinkUnspec;

use super::netlink::{self, NetlinkError};

/// Packets that may wait for each queue's reader. The kernel's default of 500 is less than what a
/// fast sender has under way.
const QUEUE_LENGTH: u32 = 4096;

/// Gives an interface its MTU and addresses and sets it up. The routes to the addresses' networks
/// come with them, and all goes with the interface.
pub(super) fn configure(index: u32, mtu: u32, addresses: &[IpNet]) -> Result<(), NetlinkError> {
    netlink::run(async |handle| {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).txqueuelen(QUEUE_LENGTH).build();
        handle.link().set(message).execute().await?;
        for network in addresses {
            let (address, prefix): (IpAddr, u8) = (network.addr(), network.prefix_len());
            let mut request = handle.address().add(index, address, prefix);
            if address.is_ipv6() {
                // The kernel checks an address for duplicates when it comes to it, even where there
                // can be none. No service can bind it before.
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                request.message_mut().attributes.push(flags);
            }
            match request.execute().await {
                // It has it still, when others are put back.
                Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => {
                }
                added => added?,
            }
        }
        handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
    })
}

/// The number of an interface; `None` when there is none of that name.
pub(super) fn find(name: &str) -> Result<Option<u32>, NetlinkError> {
    let found = netlink::run(async |handle| {
        handle.link().get().match_name(name.to_owned()).execute().try_next().await
    });
    match found {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if error.is_no_device() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The hardware address of an interface: empty if it has none.
pub(super) fn hardware_address(index: u32) -> Result<Vec<u8>, NetlinkError> {
    let found = netlink::run(async |handle| {
        handle.link().get().match_index(index).execute().try_next().await
    })?;
    let attributes = found.map(|link| link.attributes).unwrap_or_default();
    let address = attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address),
        _ => None,
    });
    Ok(address.unwrap_or_default())
}

/// Removes an interface; it need not be there.
pub(super) fn remove(name: &str) -> Result<(), NetlinkError> {
    let Some(index) = find(name)? else {
        return Ok(());
    };
    match netlink::run(async |handle| handle.link().del(index).execute().await) {
        Err(error) if error.is_no_device() => Ok(()),
        result => result,
    }
}
