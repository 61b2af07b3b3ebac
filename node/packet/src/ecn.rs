//! Explicit congestion notification across the tunnel (RFC 6040).

/// The ECN field of an IP header (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Not-ECT: the transport does not use ECN.
    #[default]
    NotEct = 0,
    /// ECT(1).
    Ect1 = 1,
    /// ECT(0).
    Ect0 = 2,
    /// CE: congestion was experienced.
    Ce = 3,
}

/// A packet whose transport does not use ECN experienced congestion. It must be dropped, because
/// nothing else tells its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CannotCarry;

impl Ecn {
    /// The field of an IPv4 TOS byte or an IPv6 traffic class.
    #[must_use]
    #[inline(always)]
    pub const fn of_traffic_class(byte: u8) -> Self {
        match byte & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The field of an IP packet.
    #[must_use]
    #[inline(always)]
    pub fn of_packet(packet: &[u8]) -> Self {
        match packet {
            [first, second, ..] if first >> 4 == 4 => Self::of_traffic_class(*second),
            [first, second, ..] if first >> 4 == 6 => Self::of_traffic_class(second >> 4),
            _ => Self::NotEct,
        }
    }

    /// Propagates `outer`, the ECN field of the outer header, to the packet (RFC 6040, section 4.2).
    /// Updates the IPv4 header checksum incrementally (RFC 1624), so that a wrong one stays wrong.
    ///
    /// # Errors
    ///
    /// Fails if the packet cannot carry the mark. The packet does not change then.
    #[inline]
    pub fn decapsulate(outer: Self, packet: &mut [u8]) -> Result<(), CannotCarry> {
        match (Self::of_packet(packet), outer) {
            (Self::NotEct, Self::Ce) => Err(CannotCarry),
            (Self::Ect0 | Self::Ect1, Self::Ce) => {
                Self::Ce.write(packet);
                Ok(())
            }
            (Self::Ect0, Self::Ect1) => {
                Self::Ect1.write(packet);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn write(self, packet: &mut [u8]) {
        let Some((first, rest)) = packet.split_first_mut() else { return };
        let Some(second) = rest.first_mut() else { return };
        let old = *second;
        if *first >> 4 == 6 {
            *second = old & !0x30 | (self as u8) << 4;
            return;
        }
        *second = old & !3 | self as u8;
        let (old, new) = (u16::from_be_bytes([*first, old]), u16::from_be_bytes([*first, *second]));
        if let Some(field) = packet.get_mut(10..12)
            && let Some(checksum) = field.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
        {
            // RFC 1624, equation 3.
            let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            field.copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;
    use crate::testing::{SERVER_V4, SERVER_V6, udp};

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

    fn packet(v6: bool, ecn: Ecn) -> Vec<u8> {
        let server = if v6 { SERVER_V6 } else { SERVER_V4 };
        let mut packet = udp(server, server, 1, b"payload");
        // A DSCP that must stay as it is.
        packet[0] |= if v6 { 0xb } else { 0 };
        packet[1] = if v6 { 0x80 | (ecn as u8) << 4 | 5 } else { 0xb8 | ecn as u8 };
        if !v6 {
            packet[10..12].fill(0);
            let checksum = Sum::default().bytes(&packet[..20]).checksum();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        packet
    }

    /// The table of RFC 6040, section 4.2.
    #[test]
    fn the_mark_comes_inward_as_the_rfcs_table_says() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect1), Some(Ect0), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce); 4]),
        ];
        for v6 in [false, true] {
            for (inner, wanted) in table {
                for (outer, wanted) in ALL.into_iter().zip(wanted) {
                    let mut changed = packet(v6, inner);
                    let done = Ecn::decapsulate(outer, &mut changed);
                    assert_eq!(done.is_ok(), wanted.is_some(), "{inner:?} in {outer:?}");
                    let wanted = packet(v6, wanted.unwrap_or(inner));
                    assert_eq!(changed, wanted, "{inner:?} in {outer:?}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_header_checksum_stays_wrong() {
        let mut changed = packet(false, Ecn::Ect0);
        changed[10] ^= 1;
        assert_eq!(Ecn::decapsulate(Ecn::Ce, &mut changed), Ok(()));
        let mut right = packet(false, Ecn::Ce);
        right[10] ^= 1;
        assert_eq!(changed, right);
    }

    #[test]
    fn what_is_no_packet_is_left_alone() {
        for mut bytes in [vec![], vec![0x45], vec![0x45, 2], vec![0x60, 0x20], vec![0x12, 3]] {
            let before = bytes.clone();
            Ecn::decapsulate(Ecn::NotEct, &mut bytes).expect("nothing to carry");
            assert_eq!(bytes, before);
            Ecn::decapsulate(Ecn::Ce, &mut bytes).ok();
        }
    }
}
