//! The name and the ancillary data of a UDP message: `sockaddr` and `cmsghdr`, as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use libc::{SOL_UDP, UDP_GRO, UDP_SEGMENT};

use crate::outer::{Checksum, Outer};
use weir_accounts::Endpoint;
use weir_packet::ecn::Ecn;

/// Room for the ancillary data of a received message in bytes: the segment size (`UDP_GRO`), our
/// address (`IP_PKTINFO`), and the TOS byte or traffic class (`IP_TOS`, `IPV6_TCLASS`).
pub(crate) const RECEIVE_CONTROL: usize = 96;
/// Room for the ancillary data of a sent message in bytes: the same, with `UDP_SEGMENT`.
pub(crate) const SEND_CONTROL: usize = 96;
/// The most that one receive call returns, in bytes: the payload of the largest IPv6 packet.
pub(crate) const MAX_UDP_PAYLOAD: usize = 65_535 - 8;
/// Room for a socket address in bytes.
pub(crate) const NAME: usize = size_of::<libc::sockaddr_in6>();

/// The address and the ancillary data of a received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Its source, and our address that it was sent to.
    pub from: Endpoint,
    /// The length of each datagram but the last, in bytes. `None` if there is only one.
    pub segment: Option<usize>,
    /// The ECN field. The kernel coalesces only datagrams that have the same.
    pub ecn: Ecn,
}

impl Received {
    /// Parses a `sockaddr` and ancillary data as the kernel wrote them. `None` for an address of
    /// another family.
    #[must_use]
    pub(crate) fn parse(name: &[u8], control: &[u8]) -> Option<Self> {
        let remote = parse_name(name)?;
        let from = Endpoint { remote, local: None };
        let mut received = Self { from, segment: None, ecn: Ecn::NotEct };
        for (level, kind, data) in Controls(control) {
            match (level, kind) {
                (SOL_UDP, UDP_GRO) => {
                    let bytes = data.first_chunk()?;
                    received.segment = usize::try_from(i32::from_ne_bytes(*bytes)).ok();
                }
                // struct in_pktinfo: interface, our address to answer from, the one addressed.
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let bytes: &[u8; 4] = data.get(4..)?.first_chunk()?;
                    received.from.local = Some(IpAddr::V4(Ipv4Addr::from(*bytes)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let bytes: &[u8; 16] = data.first_chunk()?;
                    received.from.local = Some(IpAddr::V6(Ipv6Addr::from(*bytes)));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    received.ecn = Ecn::of_traffic_class(*data.first()?);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class = i32::from_ne_bytes(*data.first_chunk()?);
                    received.ecn = Ecn::of_traffic_class(class as u8);
                }
                _ => {}
            }
        }
        Some(received)
    }

    /// The outer headers. The kernel has verified the checksum.
    #[must_use]
    pub(crate) fn outer(&self) -> Outer<'static> {
        Outer { from: self.from, ecn: self.ecn, checksum: Checksum::Right }
    }
}

fn parse_name(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let octets: &[u8; 4] = name.get(4..)?.first_chunk()?;
            Some((Ipv4Addr::from(*octets), port).into())
        }
        libc::AF_INET6 => {
            let octets: &[u8; 16] = name.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(*octets), port, 0, scope).into())
        }
        _ => None,
    }
}

/// The length of `struct cmsghdr` on 64-bit Linux.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// Iterates over the control messages in ancillary data: level, type, content (cmsg(3)).
struct Controls<'a>(&'a [u8]);

impl<'a> Iterator for Controls<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from_ne_bytes(*self.0.first_chunk()?);
        let level = i32::from_ne_bytes(*self.0.get(8..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*self.0.get(12..)?.first_chunk()?);
        let data = self.0.get(CONTROL_HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(8)..).unwrap_or_default();
        Some((level, kind, data))
    }
}

/// The address and the ancillary data of a message to send.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendHeader {
    control: [u8; SEND_CONTROL],
    name: [u8; NAME],
    /// The number of bytes of `name` in use.
    pub name_len: u32,
    /// The number of bytes of `control` in use.
    pub control_len: u32,
}

impl SendHeader {
    /// Creates a header that sends to `to` with this ECN field. If `segment` is given, the kernel
    /// segments the payload into datagrams of that many bytes.
    #[must_use]
    #[inline]
    pub(crate) fn new(to: &Endpoint, segment: Option<u16>, ecn: Ecn) -> Self {
        let mut header =
            Self { control: [0; SEND_CONTROL], name: [0; NAME], name_len: 0, control_len: 0 };
        header.set_name(to.remote);
        if let Some(segment) = segment {
            header.push(SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        match to.local {
            Some(IpAddr::V4(local)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&local.octets());
                header.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(local)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&local.octets());
                header.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        // 0 is the default of the socket.
        if ecn != Ecn::NotEct {
            let class = i32::from(ecn as u8).to_ne_bytes();
            match to.remote {
                SocketAddr::V4(_) => header.push(libc::IPPROTO_IP, libc::IP_TOS, &class),
                SocketAddr::V6(_) => header.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class),
            }
        }
        header
    }

    /// The `sockaddr`.
    #[must_use]
    pub(crate) fn name(&self) -> &[u8] {
        self.name.get(..self.name_len as usize).unwrap_or_default()
    }

    /// The control messages.
    #[must_use]
    pub(crate) fn control(&self) -> &[u8] {
        self.control.get(..self.control_len as usize).unwrap_or_default()
    }

    fn set_name(&mut self, to: SocketAddr) {
        let (family, len) = match to {
            SocketAddr::V4(v4) => {
                self.name[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(v6) => {
                self.name[8..24].copy_from_slice(&v6.ip().octets());
                self.name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, NAME)
            }
        };
        self.name[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        self.name[2..4].copy_from_slice(&to.port().to_be_bytes());
        self.name_len = len as u32;
    }

    /// Appends a control message, if there is room for it.
    #[inline]
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let len = CONTROL_HEADER + data.len();
        let at = self.control_len as usize;
        let message = self.control.get_mut(at..at + len);
        let Some((header, content)) =
            message.and_then(|message| message.split_first_chunk_mut::<CONTROL_HEADER>())
        else {
            return;
        };
        header[..8].copy_from_slice(&len.to_ne_bytes());
        header[8..12].copy_from_slice(&level.to_ne_bytes());
        header[12..].copy_from_slice(&kind.to_ne_bytes());
        content.copy_from_slice(data);
        self.control_len = (at + len.next_multiple_of(8)) as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_parsed() {
        for (remote, local) in
            [("1.2.3.4:5", "5.6.7.8"), ("[2a00::1]:65535", "2a00::2"), ("[fe80::1%3]:7", "fe80::2")]
        {
            let local: IpAddr = local.parse().expect("an address");
            let to = Endpoint { remote: remote.parse().expect("an address"), local: Some(local) };
            for ecn in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
                let header = SendHeader::new(&to, Some(1452), ecn);
                let received = Received::parse(header.name(), header.control());
                let received = received.expect("an address");
                assert_eq!((received.from, received.ecn), (to, ecn));
                let segments = Controls(header.control())
                    .filter(|(level, kind, _)| (*level, *kind) == (SOL_UDP, UDP_SEGMENT));
                assert_eq!(segments.count(), 1, "all control messages fit");
            }
        }
    }

    #[test]
    fn of_cut_off_messages_what_is_whole_is_read_and_nothing_else() {
        for (remote, local, name_len) in [("1.2.3.4:5", "127.0.0.1", 8), ("[2a00::1]:5", "::1", 28)]
        {
            let remote = remote.parse().expect("an address");
            let local = local.parse().expect("an address");
            let header = SendHeader::new(&Endpoint { remote, local: Some(local) }, None, Ecn::Ce);
            let (address, mark) = (CONTROL_HEADER + if remote.is_ipv4() { 12 } else { 20 }, 4);
            let marked = address.next_multiple_of(8) + CONTROL_HEADER + mark;
            for name in 0..=header.name().len() {
                for control in 0..=header.control().len() {
                    let (name_bytes, control_bytes) =
                        (&header.name()[..name], &header.control()[..control]);
                    let parsed = Received::parse(name_bytes, control_bytes);
                    let Some(parsed) = parsed else {
                        assert!(name < name_len, "{name} {control}");
                        continue;
                    };
                    assert!(name >= name_len, "{name} {control}");
                    assert_eq!(parsed.from.remote, remote);
                    assert_eq!(parsed.from.local, (control >= address).then_some(local));
                    let ecn = if control >= marked { Ecn::Ce } else { Ecn::NotEct };
                    assert_eq!(parsed.ecn, ecn, "{control}");
                }
            }
        }
    }

    #[test]
    fn a_message_that_claims_more_than_there_is_is_not_read() {
        let mut control = [0u8; 64];
        for len in [0usize, 1, 15, 17, 65, usize::MAX] {
            control[..8].copy_from_slice(&len.to_ne_bytes());
            assert!(Controls(&control).all(|(_, _, data)| data.len() <= 1), "{len}");
        }
    }
}
