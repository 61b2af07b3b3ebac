//! The socket by which frames leave on the uplink, past the kernel's stack: `AF_PACKET` with a virtio
//! header before each frame, so that the kernel or the card segments super-packets
//! (`PACKET_VNET_HDR`), and without a queueing discipline (`PACKET_QDISC_BYPASS`). See packet(7) and
//! `packet_snd` in net/packet/af_packet.c.

#![expect(unsafe_code, reason = "socket options that no library offers")]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::udp::set;

/// The size of the send buffer in bytes: several milliseconds of a fast line.
const SEND_BYTES: libc::c_int = 16 << 20;

/// Opens the socket of one worker on an interface. It receives nothing.
///
/// # Errors
///
/// Fails without CAP_NET_RAW, and if there is no such interface.
pub fn open_uplink(interface: u32) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0: no frame is received.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
    // Beyond the limit if the process may, else up to it.
    if set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BYTES).is_err() {
        set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BYTES)?;
    }
    bind(&socket, interface)?;
    Ok(socket)
}

fn bind(socket: &OwnedFd, interface: u32) -> io::Result<()> {
    // SAFETY: all of its fields are integers, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = libc::c_int::try_from(interface).map_err(io::Error::other)?;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a `sockaddr_ll` of the given length, and lives during the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
