//! ICMP errors: they quote the beginning of the packet that they are about, which has the addresses
//! and ports of the other side (RFC 5508, section 4).

use weir_common::ip::{ICMP_HEADER, ICMPV6};
use weir_packet::{
    checksum::{Sum, pseudo_header},
    headers::{Version, v4_checksum_is_right},
};

use crate::{
    parse::{Address, Ip, Transport, Unfit},
    policy::Protocol,
    rewrite::{Change, IpEdit, Side, edit_ip, edit_transport},
};

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    pub(crate) ip: Ip,
    pub(crate) protocol: Protocol,
    /// Of an echo: its identifier, and 0.
    pub(crate) source: u16,
    pub(crate) destination: u16,
}

impl Quoted {
    /// Parses the packet that a whole ICMP error quotes, and checks what RFC 5508, REQ-3 says.
    pub(crate) fn parse(packet: &[u8], ip: &Ip) -> Result<Self, Unfit> {
        let message = packet.get(ip.l4..).ok_or(Unfit::Malformed)?;
        let sum = match ip.version {
            Version::V4 => Sum::default(),
            Version::V6 => {
                let addresses = packet.get(8..40).unwrap_or_default();
                pseudo_header(addresses, ICMPV6, message.len())
            }
        };
        if sum.bytes(message).folded() != 0xffff {
            return Err(Unfit::Malformed);
        }
        let quoted = message.get(ICMP_HEADER..).ok_or(Unfit::Malformed)?;
        let inner = Ip::parse_quoted(quoted)?;
        if inner.version != ip.version || inner.fragment.is_some_and(|f| !f.is_first()) {
            return Err(Unfit::Refused);
        }
        if inner.version == Version::V4
            && !v4_checksum_is_right(quoted.get(..inner.l4).unwrap_or_default())
        {
            return Err(Unfit::Malformed);
        }
        let (protocol, source, destination) = match Transport::parse_quoted(quoted, &inner)? {
            Transport::Tcp { source, destination, .. } => (Protocol::Tcp, source, destination),
            Transport::Udp { source, destination, .. } => (Protocol::Udp, source, destination),
            Transport::EchoRequest { id } => (Protocol::Icmp, id, 0),
            Transport::EchoReply { id } => (Protocol::Icmp, 0, id),
            _ => return Err(Unfit::Refused),
        };
        Ok(Self { ip: inner, protocol, source, destination })
    }
}

/// Translates an error and what it quotes. `side` is that of the error itself: the packet that it
/// quotes went the other way.
pub(crate) fn translate_error(
    packet: &mut [u8],
    ip: &Ip,
    quoted: &Quoted,
    edit: IpEdit,
    port: u16,
) {
    let address: Address = edit.address;
    let inner_side: Side = edit.side.other();
    let inner = packet.get_mut(ip.l4 + ICMP_HEADER..).unwrap_or_default();
    let inner_edit = IpEdit { side: inner_side, address, id: None, forwarded: false };
    let inner_pseudo = edit_ip(inner, &quoted.ip, inner_edit);
    let transport = edit_transport(inner, &quoted.ip, inner_side, port, inner_pseudo);
    let outer_pseudo = edit_ip(packet, ip, edit);
    let change = match ip.version {
        // The quoted IPv4 header's sum stays the same, because its checksum changed with it.
        Version::V4 => transport,
        Version::V6 => transport.and(inner_pseudo).and(outer_pseudo),
    };
    Change::apply_at(change, packet, ip.l4 + 2);
}
