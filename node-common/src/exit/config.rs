//! The addresses of the node's NAT, as the guard knows them.

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// The largest number of external IPv4 addresses.
pub const MAX_EXIT_V4: usize = 16;
/// The largest number of addresses within the routed prefix that are the host's own.
pub const MAX_HOST_V6: usize = 4;

/// The external addresses of the node's NAT. The default has none, and the guard leaves all return
/// traffic to the host then.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitConfig {
    /// The IPv6 address or prefix, in two halves.
    v6: [u64; 2],
    v6_mask: [u64; 2],
    /// Unused ones are `::`.
    host_v6: [[u64; 2]; MAX_HOST_V6],
    v4: [u32; MAX_EXIT_V4],
    v4_count: u32,
    /// 0 where there is none, or one of [`kind`].
    v6_kind: u32,
}

mod kind {
    pub(super) const ADDRESS: u32 = 1;
    pub(super) const PREFIX: u32 = 2;
}

/// Length of an [`ExitConfig`] in memory.
pub const EXIT_CONFIG_LEN: usize = size_of::<ExitConfig>();
const _: () = assert!(EXIT_CONFIG_LEN == 168);

/// How the node's consumers have IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitV6<'a> {
    /// Not at all, or not by the node's own NAT.
    None,
    /// Translated to one address (NAT66).
    Address(Ipv6Addr),
    /// Without translation, in a prefix that is routed to the node.
    Prefix {
        /// Any address within the prefix.
        address: Ipv6Addr,
        /// The prefix's length in bits.
        len: u8,
        /// The host's own addresses. Those within the prefix stay the host's.
        host: &'a [Ipv6Addr],
    },
}

/// Why the guard cannot have these addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitConfigError {
    /// More than [`MAX_EXIT_V4`] IPv4 addresses.
    TooManyV4,
    /// More than [`MAX_HOST_V6`] of the host's addresses are within the prefix.
    TooManyHostV6,
    /// No prefix of IPv6 is longer than 128 bits.
    PrefixLen,
}

impl fmt::Display for ExitConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyV4 => write!(f, "more than {MAX_EXIT_V4} external IPv4 addresses"),
            Self::TooManyHostV6 => write!(
                f,
                "more than {MAX_HOST_V6} of the host's own addresses are within the IPv6 prefix"
            ),
            Self::PrefixLen => f.write_str("the IPv6 prefix is longer than 128 bits"),
        }
    }
}

impl core::error::Error for ExitConfigError {}

impl ExitConfig {
    /// The guard's view of the external addresses.
    ///
    /// # Errors
    ///
    /// Fails where there are more addresses than the guard has room for.
    pub fn new(v4: &[Ipv4Addr], v6: ExitV6<'_>) -> Result<Self, ExitConfigError> {
        let mut config = Self { v4_count: v4.len() as u32, ..Self::default() };
        if v4.len() > MAX_EXIT_V4 {
            return Err(ExitConfigError::TooManyV4);
        }
        for (place, address) in config.v4.iter_mut().zip(v4) {
            *place = address.to_bits();
        }
        match v6 {
            ExitV6::None => {}
            ExitV6::Address(address) => {
                (config.v6, config.v6_mask) = (halves(address), [u64::MAX; 2]);
                config.v6_kind = kind::ADDRESS;
            }
            ExitV6::Prefix { address, len, host } => {
                let rest = 128_u32.checked_sub(len.into()).ok_or(ExitConfigError::PrefixLen)?;
                let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
                config.v6_mask = halves(Ipv6Addr::from_bits(mask));
                config.v6 = halves(Ipv6Addr::from_bits(address.to_bits() & mask));
                config.v6_kind = kind::PREFIX;
                let within = |own: &&Ipv6Addr| (own.to_bits() ^ address.to_bits()) & mask == 0;
                let mut places = config.host_v6.iter_mut();
                for own in host.iter().filter(within) {
                    *places.next().ok_or(ExitConfigError::TooManyHostV6)? = halves(*own);
                }
            }
        }
        Ok(config)
    }

    /// Whether there is no address at all.
    #[must_use]
    #[inline(always)]
    pub const fn is_off(&self) -> bool {
        self.v4_count | self.v6_kind == 0
    }

    #[inline(always)]
    pub(super) fn has_v4(&self, address: u32) -> bool {
        (0..)
            .zip(&self.v4)
            .take_while(|(index, _)| *index < self.v4_count)
            .any(|(_, own)| *own == address)
    }

    /// Whether it is the address of NAT66.
    #[inline(always)]
    pub(super) const fn has_v6(&self, address: [u64; 2]) -> bool {
        self.v6_kind == kind::ADDRESS && self.matches(address)
    }

    #[inline(always)]
    pub(super) const fn has_prefix(&self) -> bool {
        self.v6_kind == kind::PREFIX
    }

    /// Whether the address is in the routed prefix, and not the host's own.
    #[inline(always)]
    pub(super) fn prefix_contains(&self, address: [u64; 2]) -> bool {
        self.matches(address) && !self.host_v6.iter().any(|own| is_same(*own, address))
    }

    #[inline(always)]
    const fn matches(&self, address: [u64; 2]) -> bool {
        is_same(self.v6, [address[0] & self.v6_mask[0], address[1] & self.v6_mask[1]])
    }

    /// The config as bytes in memory order, as the map takes them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; EXIT_CONFIG_LEN] {
        let mut bytes = [0; EXIT_CONFIG_LEN];
        let [h0, h1, h2, h3] = self.host_v6;
        let longs = [self.v6, self.v6_mask, h0, h1, h2, h3];
        let (first, rest) = bytes.split_at_mut(size_of_val(&longs));
        for (place, long) in first.chunks_exact_mut(8).zip(longs.as_flattened()) {
            place.copy_from_slice(&long.to_ne_bytes());
        }
        let words = self.v4.into_iter().chain([self.v4_count, self.v6_kind]);
        for (place, word) in rest.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

#[inline(always)]
const fn is_same(one: [u64; 2], other: [u64; 2]) -> bool {
    (one[0] ^ other[0]) | (one[1] ^ other[1]) == 0
}

const fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0);

    fn prefix(len: u8, host: &[Ipv6Addr]) -> Result<ExitConfig, ExitConfigError> {
        ExitConfig::new(&[], ExitV6::Prefix { address: PREFIX, len, host })
    }

    #[test]
    fn bytes_are_in_the_order_of_memory() {
        let host = [Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 9)];
        let v6 = ExitV6::Prefix { address: PREFIX, len: 64, host: &host };
        let v4 = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let bytes = ExitConfig::new(&v4, v6).expect("few addresses").to_bytes();
        let word = |at: usize| {
            bytes[at..].first_chunk().copied().map(u32::from_ne_bytes).expect("within the config")
        };
        let long = |at: usize| {
            bytes[at..].first_chunk().copied().map(u64::from_ne_bytes).expect("within the config")
        };
        assert_eq!(long(offset_of!(ExitConfig, v6)), 0x2001_0db8_0001_0002);
        assert_eq!(long(offset_of!(ExitConfig, v6_mask)), u64::MAX);
        assert_eq!(long(offset_of!(ExitConfig, v6_mask) + 8), 0);
        assert_eq!(long(offset_of!(ExitConfig, host_v6) + 8), 9);
        assert_eq!(word(offset_of!(ExitConfig, v4)), 0xc000_0201);
        assert_eq!(word(offset_of!(ExitConfig, v4) + 4), 0xc000_0202);
        assert_eq!(word(offset_of!(ExitConfig, v4_count)), 2);
        assert_eq!(word(offset_of!(ExitConfig, v6_kind)), 2);
    }

    #[test]
    fn there_is_room_for_so_many_addresses_and_no_more() {
        let v4 = [Ipv4Addr::new(192, 0, 2, 1); MAX_EXIT_V4 + 1];
        assert!(ExitConfig::new(&v4[1..], ExitV6::None).is_ok());
        assert_eq!(ExitConfig::new(&v4, ExitV6::None), Err(ExitConfigError::TooManyV4));
        let host = [PREFIX; MAX_HOST_V6 + 1];
        assert!(prefix(64, &host[1..]).is_ok());
        assert_eq!(prefix(64, &host), Err(ExitConfigError::TooManyHostV6));
        assert!(prefix(64, &[Ipv6Addr::LOCALHOST; 9]).is_ok(), "outside of the prefix");
        assert_eq!(prefix(129, &[]), Err(ExitConfigError::PrefixLen));
    }

    #[test]
    fn a_prefix_has_its_addresses_but_for_the_hosts() {
        let other = |bit: u32| halves(Ipv6Addr::from_bits(PREFIX.to_bits() ^ 1 << bit));
        for len in 0..=128_u8 {
            let config = prefix(len, &[]).expect("a prefix");
            assert!(config.prefix_contains(halves(PREFIX)));
            for bit in 0..128 {
                let is_outside = bit >= 128 - u32::from(len);
                assert_eq!(config.prefix_contains(other(bit)), !is_outside, "/{len}, bit {bit}");
            }
        }
        let config = prefix(64, &[PREFIX]).expect("a prefix");
        assert!(!config.prefix_contains(halves(PREFIX)) && config.prefix_contains(other(0)));
    }

    #[test]
    fn every_address_of_the_list_counts_and_no_other() {
        let own: [Ipv4Addr; MAX_EXIT_V4] =
            core::array::from_fn(|index| Ipv4Addr::new(192, 0, 2, index as u8));
        for count in 0..=MAX_EXIT_V4 {
            let config = ExitConfig::new(&own[..count], ExitV6::None).expect("few addresses");
            assert_eq!(config.is_off(), count == 0);
            for (index, address) in own.iter().enumerate() {
                assert_eq!(config.has_v4(address.to_bits()), index < count);
            }
            assert!(!config.has_v4(0), "an unused place is no address");
        }
    }
}
