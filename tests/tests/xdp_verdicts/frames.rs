//! Frames, built by hand: what a frame says is never computed by the code under test.

use blake2::{
    Blake2s256, Blake2sMac, Digest as _,
    digest::{Mac as _, consts::U16},
};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The node's public key.
pub(crate) const NODE_KEY: [u8; 32] = [0x6b; 32];

/// The port that frames go to unless they say otherwise.
pub(crate) const PORT: u16 = 51820;

/// An Ethernet frame that carries a UDP datagram.
#[derive(Clone, Debug)]
pub(crate) struct FrameSpec {
    /// VLAN tags, outermost first, by their ether types.
    pub(crate) vlans: Vec<u16>,
    pub(crate) v6: bool,
    /// IPv4 options, a multiple of 4 bytes.
    pub(crate) options: Vec<u8>,
    /// IPv4 flags and fragment offset.
    pub(crate) fragment: u16,
    /// IPv6 extension headers: the type, and the header without its first byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) source_port: u16,
    /// Which IPv4 address, and which address of its IPv6 /64, it comes from.
    pub(crate) source: u8,
    /// Which IPv6 /64 it comes from.
    pub(crate) subnet: u8,
    pub(crate) payload: Vec<u8>,
    /// Added to the IP header's length field.
    pub(crate) ip_len_error: i32,
    /// Added to the UDP header's length field.
    pub(crate) udp_len_error: i32,
    /// Bytes after the IP packet, as Ethernet pads short ones.
    pub(crate) padding: usize,
}

impl FrameSpec {
    pub(crate) fn v4(payload: &[u8]) -> Self {
        Self {
            vlans: vec![],
            v6: false,
            options: vec![],
            fragment: 0x4000,
            extensions: vec![],
            protocol: 17,
            port: PORT,
            source_port: 40_000,
            source: 192,
            subnet: 0,
            payload: payload.to_vec(),
            ip_len_error: 0,
            udp_len_error: 0,
            padding: 0,
        }
    }

    pub(crate) fn v6(payload: &[u8]) -> Self {
        Self { v6: true, ..Self::v4(payload) }
    }

    /// From where it comes.
    pub(crate) fn remote(&self) -> SocketAddr {
        let (subnet, host) = (u16::from(self.subnet), u16::from(self.source));
        let address: IpAddr = if self.v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, host << 8 | 1).into()
        } else {
            Ipv4Addr::new(self.source, 0, 2, 1).into()
        };
        SocketAddr::new(address, self.source_port)
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let udp = self.udp();
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.vlans {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        if self.v6 {
            frame.extend([0x86, 0xdd]);
            self.ipv6(&mut frame, &udp);
        } else {
            frame.extend([0x08, 0x00]);
            self.ipv4(&mut frame, &udp);
        }
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    fn udp(&self) -> Vec<u8> {
        let len = self.payload.len() as i32 + 8 + self.udp_len_error;
        let mut udp = self.source_port.to_be_bytes().to_vec();
        udp.extend(self.port.to_be_bytes());
        udp.extend((len as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        udp
    }

    fn ipv4(&self, frame: &mut Vec<u8>, udp: &[u8]) {
        let header = 20 + self.options.len();
        let total = (header + udp.len()) as i32 + self.ip_len_error;
        frame.extend([0x40 | (header / 4) as u8, 0]);
        frame.extend((total as u16).to_be_bytes());
        frame.extend([0, 1]);
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([64, self.protocol, 0, 0, self.source, 0, 2, 1, 198, 51, 100, 1]);
        frame.extend(&self.options);
        frame.extend(udp);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, udp: &[u8]) {
        let types: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        let mut following = types.iter().copied().chain([self.protocol]);
        let first = following.next().unwrap_or(self.protocol);
        let mut body = Vec::new();
        for ((_, rest), next) in self.extensions.iter().zip(following) {
            body.push(next);
            body.extend(rest);
        }
        body.extend(udp);
        let len = body.len() as i32 + self.ip_len_error;
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((len as u16).to_be_bytes());
        frame.extend([first, 64]);
        let (subnet, host) = (self.subnet, self.source);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, subnet, 0, 0, 0, 0, 0, 0, host, 1]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend(body);
    }
}

/// A WireGuard message of a type and length, for a receiver index.
pub(crate) fn message(kind: u8, len: usize, receiver_index: u32) -> Vec<u8> {
    let mut message = vec![0xa5; len];
    let place = if kind == 2 { 8 } else { 4 };
    let header = [kind, 0, 0, 0];
    let present = len.min(4);
    message[..present].copy_from_slice(&header[..present]);
    if let Some(index) = message.get_mut(place..place + 4) {
        index.copy_from_slice(&receiver_index.to_le_bytes());
    }
    sign(&mut message, &NODE_KEY);
    message
}

/// Writes the first MAC of a handshake message to the node with this public key.
pub(crate) fn sign(message: &mut [u8], public_key: &[u8; 32]) {
    if !matches!((message.first(), message.len()), (Some(1), 148) | (Some(2), 92)) {
        return;
    }
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(public_key).finalize();
    let (covered, macs) = message.split_at_mut(message.len() - 32);
    let mac = Blake2sMac::<U16>::new_from_slice(&key).expect("a key of 32 bytes");
    macs[..16].copy_from_slice(&mac.chain_update(covered).finalize().into_bytes());
}
