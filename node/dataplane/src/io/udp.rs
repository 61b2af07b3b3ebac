//! The UDP sockets of the workers and the handshake thread.

#![expect(unsafe_code, reason = "socket options and calls that no library offers")]

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    cmsg::{NAME, RECEIVE_CONTROL, Received, SendHeader},
    tx::{empty_header, iovec, message_of},
};
use weir_accounts::Endpoint;
use weir_packet::ecn::Ecn;

/// The size of a socket's buffers in bytes: several milliseconds of a fast line.
const BUFFER_BYTES: usize = 8 << 20;

/// The two sockets of one worker, or of the handshake thread.
#[derive(Debug)]
pub struct Sockets {
    /// The IPv4 socket.
    pub v4: OwnedFd,
    /// The IPv6 socket. `None` if the host has no IPv6.
    pub v6: Option<OwnedFd>,
}

/// Opens a socket of each address family on `port`, in the port's reuseport groups, with `UDP_GRO`.
/// Every socket in the reuseport group must enable `UDP_GRO`. The kernel's GRO looks up the socket
/// before our reuseport program runs (Linux 6.18), so it may consult any member.
///
/// # Errors
///
/// Fails if another program has the port.
pub fn bind(port: u16) -> io::Result<Sockets> {
    let v4 = bind_one(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())?;
    let v6 = match bind_one(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Ok(socket) => Some(socket),
        Err(error) if no_ipv6(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(Sockets { v4, v6 })
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind_one(domain: Domain, address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    } else {
        set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        set(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        // Without "don't fragment", like the kernel's WireGuard. A router with a narrower link then
        // fragments the datagram. Otherwise it would answer with an ICMP message, which may be lost
        // or forged. OMIT rather than DONT, so that such a message has no effect. IPv6 routers
        // fragment nothing, so these messages count there.
        set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
    }
    socket.set_reuse_port(true)?;
    set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    for (forced, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Without CAP_NET_ADMIN, the kernel's limit applies.
        set(&socket, libc::SOL_SOCKET, forced, BUFFER_BYTES as i32)
            .or_else(|_| set(&socket, libc::SOL_SOCKET, plain, BUFFER_BYTES as i32))?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

pub(super) fn set(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
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

/// Sends one datagram, without waiting.
///
/// # Errors
///
/// Returns why the kernel did not take it.
pub(crate) fn send_one(socket: BorrowedFd<'_>, to: &Endpoint, datagram: &[u8]) -> io::Result<()> {
    let header = SendHeader::new(to, None, Ecn::NotEct);
    let mut vectors = [iovec(datagram)];
    let message = message_of(&header, &mut vectors);
    // SAFETY: name, ancillary data, vectors and bytes all live until the call returns, and the
    // kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one message, if there is one. Returns its length in bytes.
pub(crate) fn receive_one(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<(usize, Received)> {
    #[repr(align(8))]
    struct Control([u8; RECEIVE_CONTROL]);
    let mut control = Control([0; RECEIVE_CONTROL]);
    let mut name = [0u8; NAME];
    let mut pieces = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }];
    let mut message = empty_header();
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = NAME as u32;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = RECEIVE_CONTROL;
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = 1;
    // SAFETY: the buffers live until the call returns, are not otherwise borrowed, and their
    // lengths are what is passed.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).ok()?;
    let name = name.get(..message.msg_namelen as usize)?;
    let received = Received::parse(name, control.0.get(..message.msg_controllen)?)?;
    Some((len, received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_share_a_port() {
        let one = bind(0).expect("a socket");
        let port = Socket::from(one.v4).local_addr().ok().and_then(|a| a.as_socket());
        let port = port.expect("an address").port();
        // The port's number is free again: taken twice now.
        let first = bind(port).expect("the port");
        let second = bind(port).expect("the shared port");
        drop((first, second));
    }
}
