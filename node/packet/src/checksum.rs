//! The internet checksum (RFC 1071).

/// The ones'-complement sum of big-endian 16-bit words, not yet folded or complemented.
///
/// Words are summed as they lie in memory. The sum of swapped words is the swapped sum (RFC 1071,
/// section 2), so only the result needs swapping.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes, which begin at an even offset of the summed data. A zero is added behind an odd
    /// last byte.
    #[must_use]
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Eight independent sums of 32-bit words: the compiler turns them into vector additions,
        // and 2^32 words would have to come before one overflows.
        let mut lanes = [0u64; 8];
        let (chunks, rest) = bytes.as_chunks::<32>();
        for chunk in chunks {
            let (words, _) = chunk.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = fold64(self.0);
        for lane in lanes {
            sum += fold64(lane);
        }
        let (words, tail) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [last] = tail {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(sum)
    }

    /// Adds one 16-bit word.
    #[must_use]
    #[inline]
    pub fn word(self, word: u16) -> Self {
        Self(fold64(self.0) + u64::from(word.to_be()))
    }

    /// The sum folded to 16 bits. A device expects it in the checksum field if it must complete the
    /// checksum (`CHECKSUM_PARTIAL`).
    #[must_use]
    #[inline]
    pub fn folded(self) -> u16 {
        let sum = fold64(self.0);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the folded sum.
    #[must_use]
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// Folds to at most 33 bits, keeping the value modulo 2^16 - 1.
#[inline(always)]
fn fold64(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// The sum of the pseudo-header of TCP or UDP over IPv4 (RFC 768, RFC 9293) or IPv6 (RFC 8200,
/// section 8.1). `addresses` are the source and destination in the IP header: 8 bytes, or 32.
#[must_use]
#[inline]
pub fn pseudo_header(addresses: &[u8], protocol: u8, l4_len: usize) -> Sum {
    let len = l4_len as u32;
    Sum::default()
        .bytes(addresses)
        .word(u16::from(protocol))
        .word((len >> 16) as u16)
        .word(len as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xddf2);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(Sum::default().bytes(&bytes).checksum(), slow(&bytes));
        }

        #[test]
        fn can_be_taken_in_parts(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100) {
            let at = (at * 2).min(bytes.len() & !1);
            let (one, two) = bytes.split_at(at);
            prop_assert_eq!(Sum::default().bytes(one).bytes(two).checksum(), slow(&bytes));
        }

        #[test]
        fn of_many_ones_does_not_overflow(len in 60_000usize..66_000) {
            let bytes = vec![0xff; len];
            prop_assert_eq!(Sum::default().bytes(&bytes).checksum(), slow(&bytes));
        }
    }
}
