//! Echo requests through a tunnel (RFC 792, RFC 4443), by which it is known to carry packets.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
};

use rand_core::{OsRng, RngCore as _};
use socket2::{Domain, Protocol, Socket, Type};

const HEADER_LEN: usize = 8;
/// The echo request and its reply, of each family.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// A socket that is bound to one interface and asks one address.
#[derive(Debug)]
pub struct Probe {
    socket: Socket,
    to: IpAddr,
    identifier: u16,
    sequence: u16,
}

impl Probe {
    /// Opens a socket. Its packets use `interface` and no other.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn new(interface: &str, to: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to, identifier: OsRng.next_u32() as u16, sequence: 0 })
    }

    /// The same, with this mark on its packets.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn marked(self, mark: u32) -> io::Result<Self> {
        self.socket.set_mark(mark)?;
        Ok(self)
    }

    /// Asks. A request that cannot be sent is one without an answer.
    pub fn send(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.to.is_ipv6(), self.identifier, self.sequence);
        self.socket.send_to(&request, &SocketAddr::new(self.to, 0).into()).ok();
    }

    /// Whether the latest request was answered since the last look.
    pub fn is_answered(&self) -> bool {
        let mut found = false;
        let mut buffer = [0; 1500];
        while let Ok(len) = (&self.socket).read(&mut buffer) {
            let packet = buffer.get(..len).unwrap_or_default();
            found |= is_reply(packet, self.to.is_ipv6(), self.identifier, self.sequence);
        }
        found
    }
}

/// An echo request. The kernel computes the checksum of ICMPv6 itself.
fn request(is_v6: bool, identifier: u16, sequence: u16) -> [u8; HEADER_LEN] {
    let (kind, _) = if is_v6 { V6 } else { V4 };
    let ([i0, i1], [s0, s1]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    let mut request = [kind, 0, 0, 0, i0, i1, s0, s1];
    if !is_v6 {
        let sum: u32 = request
            .chunks_exact(2)
            .filter_map(|pair| Some(u32::from(u16::from_be_bytes(pair.try_into().ok()?))))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let [c0, c1] = (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes();
        (request[2], request[3]) = (c0, c1);
    }
    request
}

/// Whether a packet is the reply to a request. An IPv4 raw socket gives the IP header too.
fn is_reply(packet: &[u8], is_v6: bool, identifier: u16, sequence: u16) -> bool {
    let (header, (_, kind)) = match is_v6 {
        true => (0, V6),
        false => (packet.first().map_or(0, |first| usize::from(first & 0xf) * 4), V4),
    };
    let Some([found, 0, _, _, rest @ ..]) = packet.get(header..) else { return false };
    let expected = [identifier.to_be_bytes(), sequence.to_be_bytes()].concat();
    *found == kind && rest.starts_with(&expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_right_checksum() {
        let request = request(false, 0x1234, 0xfffe);
        let sum: u32 = request
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn only_the_reply_to_the_latest_request_counts() {
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 9, 9, 0x12, 0x34, 0, 7]);
        assert!(is_reply(&packet, false, 0x1234, 7));
        assert!(!is_reply(&packet, false, 0x1234, 8));
        assert!(!is_reply(&packet, false, 0x1235, 7));
        packet[20] = 8;
        assert!(!is_reply(&packet, false, 0x1234, 7), "a request");
        assert!(!is_reply(&packet[..24], false, 0x1234, 7), "cut");
        assert!(is_reply(&[129, 0, 1, 1, 0x12, 0x34, 0, 7], true, 0x1234, 7));
        assert!(!is_reply(&[], true, 0, 0) && !is_reply(&[], false, 0, 0));
    }
}
