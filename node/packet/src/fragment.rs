//! Fragments IPv4 packets (RFC 791, section 3.2).

use crate::headers::{V4_HEADER, half, set_v4_checksum, v4_checksum_is_right, whole, write};

/// Don't Fragment.
const DF: u16 = 0x4000;
/// More Fragments.
const MF: u16 = 0x2000;
/// The fragment offset, in units of 8 bytes.
const OFFSET: u16 = 0x1fff;

/// Splits a packet into fragments of `mtu` bytes and less. `None` if it may not be fragmented: an IPv6
/// packet, one with Don't Fragment, one with options (they need not be copied to all fragments), or
/// one whose header has a wrong checksum, which the fragments would hide.
#[must_use]
pub fn split(packet: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let packet = whole(packet)?;
    let (header, payload) = packet.split_first_chunk::<V4_HEADER>()?;
    let flags = half(header, 6);
    if header[0] != 0x45 || flags & DF != 0 || !v4_checksum_is_right(header) {
        return None;
    }
    let room = mtu.checked_sub(V4_HEADER)? / 8 * 8;
    if room == 0 {
        return None;
    }
    let first = usize::from(flags & OFFSET);
    let last = payload.len().div_ceil(room).saturating_sub(1);
    let fragments = payload.chunks(room).enumerate().map(|(number, part)| {
        let mut fragment = header.to_vec();
        fragment.extend_from_slice(part);
        let more = if number < last { MF } else { flags & MF };
        let offset = (first + number * room / 8) as u16 & OFFSET;
        write(&mut fragment, 2, ((V4_HEADER + part.len()) as u16).to_be_bytes());
        write(&mut fragment, 6, (more | offset).to_be_bytes());
        set_v4_checksum(fragment.get_mut(..V4_HEADER).unwrap_or_default());
        fragment
    });
    Some(fragments.collect())
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket};

    use super::*;

    fn datagram(len: usize) -> Vec<u8> {
        let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let mut packet = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 7], 60)
            .udp(53, 40_000)
            .write(&mut packet, &payload)
            .expect("a packet");
        // The builder sets Don't Fragment.
        write(&mut packet, 6, [0; 2]);
        set_v4_checksum(&mut packet[..V4_HEADER]);
        packet
    }

    #[test]
    fn fragments_join_to_the_packet() {
        for (len, mtu) in [(3000, 1420), (1393, 1420), (2000, 68), (4000, 1001)] {
            let packet = datagram(len);
            let fragments = split(&packet, mtu).expect("fragments");
            let mut joined = packet[..V4_HEADER].to_vec();
            for (number, fragment) in fragments.iter().enumerate() {
                assert!(fragment.len() <= mtu);
                let sliced = SlicedPacket::from_ip(fragment).expect("a packet");
                let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
                let header = ip.header();
                assert_eq!(
                    usize::from(header.fragments_offset().byte_offset()) + V4_HEADER,
                    joined.len()
                );
                assert_eq!(header.more_fragments(), number + 1 < fragments.len());
                assert!(v4_checksum_is_right(&fragment[..V4_HEADER]));
                joined.extend_from_slice(&fragment[V4_HEADER..]);
            }
            assert!(fragments.len() > 1);
            assert_eq!(joined, packet);
        }
    }

    #[test]
    fn a_fragment_of_a_fragment_keeps_its_place() {
        let whole = split(&datagram(3000), 1420).expect("fragments");
        let parts = split(&whole[1], 600).expect("fragments");
        let offset = |fragment: &[u8]| half(fragment, 6) & OFFSET;
        assert_eq!(offset(&parts[0]), offset(&whole[1]));
        assert!(parts.iter().all(|part| half(part, 6) & MF != 0), "more follow");
        let last = split(whole.last().expect("one"), 100).expect("fragments");
        assert_eq!(half(last.last().expect("one"), 6) & MF, 0);
    }

    #[test]
    fn what_may_not_be_fragmented_is_not() {
        let mut with_df = datagram(2000);
        write(&mut with_df, 6, DF.to_be_bytes());
        set_v4_checksum(&mut with_df[..V4_HEADER]);
        assert_eq!(split(&with_df, 1420), None);
        let mut corrupt = datagram(2000);
        corrupt[8] ^= 1;
        assert_eq!(split(&corrupt, 1420), None);
        assert_eq!(split(&[0x60; 100], 68), None);
        assert_eq!(split(&datagram(100), 27), None);
    }
}
