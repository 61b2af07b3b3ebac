//! The load generator's sockets: UDP with segmentation, and packets below IP.

#![expect(unsafe_code, reason = "socket options and addresses that no library offers")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

use anyhow::Context as _;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;
/// What may wait in a socket of the generator: it must never be what loses packets.
const BUFFER_BYTES: i32 = 256 << 20;

/// Bytes of the `virtio_net_hdr` in front of each frame of a [`frames`] socket.
pub const NET_HEADER: usize = 10;
/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// A UDP socket from `from` to `to` whose sends are cut into datagrams of `segment` bytes, and
/// whose receives are super-packets.
///
/// # Errors
///
/// Fails when the address cannot be used.
pub fn consumer(from: Ipv4Addr, to: SocketAddrV4, segment: usize) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.bind(&SocketAddrV4::new(from, 0).into()).context("cannot bind the generator")?;
    socket.connect(&to.into()).context("cannot reach the node")?;
    buffers(&socket)?;
    set(&socket, SOL_UDP, UDP_GRO, 1)?;
    set(&socket, SOL_UDP, UDP_SEGMENT, segment as i32).context("no UDP segmentation")?;
    Ok(socket)
}

/// A socket for the Ethernet frames of `interface`, each behind a `virtio_net_hdr`. It receives
/// IPv4 to `address` only, super-packets unsplit, and sends super-packets.
///
/// # Errors
///
/// Fails without root, or without such an interface.
pub fn frames(interface: &str, address: Ipv4Addr) -> anyhow::Result<Socket> {
    // No protocol yet: nothing may come before the filter is there.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)
        .context("cannot open a packet socket. Fix: run this as root")?;
    let accept = [
        SockFilter::new(0x20, 0, 0, ETHERNET as u32 + 16),
        SockFilter::new(0x15, 0, 1, u32::from(address)),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ];
    socket.attach_filter(&accept)?;
    buffers(&socket)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)
        .with_context(|| format!("no interface {interface}"))?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_IP as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a live `sockaddr_ll`, and its size is what is passed.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot bind the packet socket");
    }
    Ok(socket)
}

fn buffers(socket: &Socket) -> anyhow::Result<()> {
    for name in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        set(socket, libc::SOL_SOCKET, name, BUFFER_BYTES)
            .context("cannot enlarge a socket's buffer. Fix: run this as root")?;
    }
    Ok(())
}

fn set(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is a live `i32`, and its size is what is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
