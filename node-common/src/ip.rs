//! The numbers of Ethernet and IP that parsers need.

/// The options for every router of an IPv6 packet: a protocol number, as the next ones (IANA's
/// registry of protocol numbers).
pub const HOP_BY_HOP: u8 = 0;
/// ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// TCP (RFC 9293).
pub const TCP: u8 = 6;
/// UDP (RFC 768).
pub const UDP: u8 = 17;
/// DCCP (RFC 4340).
pub const DCCP: u8 = 33;
/// The routing header of IPv6 (RFC 8200, section 4.4).
pub const ROUTING: u8 = 43;
/// The fragment header of IPv6 (RFC 8200, section 4.5).
pub const FRAGMENT: u8 = 44;
/// The authentication header (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// The options for the destination of an IPv6 packet (RFC 8200, section 4.6).
pub const DESTINATION_OPTIONS: u8 = 60;
/// SCTP (RFC 9260).
pub const SCTP: u8 = 132;
/// UDP-Lite (RFC 3828).
pub const UDP_LITE: u8 = 136;

/// The EtherType of IPv4.
pub const ETHER_TYPE_IPV4: u16 = 0x0800;
/// The EtherType of IPv6.
pub const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// The EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETHER_TYPE_VLAN: u16 = 0x8100;
/// The EtherType of a service VLAN tag (IEEE 802.1ad).
pub const ETHER_TYPE_SERVICE_VLAN: u16 = 0x88a8;

/// The length of an Ethernet header, in bytes.
pub const ETHERNET_HEADER: usize = 14;
/// The length of a VLAN tag, in bytes.
pub const VLAN_TAG: usize = 4;
/// The length of an IPv4 header without options, in bytes.
pub const V4_HEADER: usize = 20;
/// The length of an IPv6 header without extension headers, in bytes.
pub const V6_HEADER: usize = 40;
/// The length of a UDP header, in bytes.
pub const UDP_HEADER: usize = 8;
/// The length of a TCP header without options, in bytes.
pub const TCP_HEADER: usize = 20;
/// The length of an ICMP header with what every message has, in bytes.
pub const ICMP_HEADER: usize = 8;
