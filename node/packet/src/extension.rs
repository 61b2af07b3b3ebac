//! The extension headers of IPv6 (RFC 8200, section 4) and the authentication header (RFC 4302), and
//! the fragment fields of both versions.

use weir_common::ip::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};

use crate::headers::{half, word};

/// How many extension headers of a packet are looked through. No packet that means well has as many.
pub const MAX_EXTENSIONS: usize = 8;

/// Which part of a packet's payload a fragment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the part begins, in units of 8 bytes.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
}

impl Place {
    /// Reads the flags and the offset in bytes 6 and 7 of an IPv4 header (RFC 791, section 3.1).
    #[must_use]
    #[inline]
    pub const fn v4(field: u16) -> Self {
        Self { offset: field & 0x1fff, more: field & 0x2000 != 0 }
    }

    /// Reads bytes 2 and 3 of an IPv6 fragment header (RFC 8200, section 4.5).
    #[must_use]
    #[inline]
    pub const fn v6(field: u16) -> Self {
        Self { offset: field >> 3, more: field & 1 != 0 }
    }

    /// Whether the packet is whole. An IPv6 packet may be, in spite of its fragment header (RFC 6946).
    #[must_use]
    #[inline]
    pub const fn is_whole(self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// What a fragment header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Which part it is.
    pub place: Place,
    /// The packet's identification.
    pub id: u32,
}

/// An extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// A fragment header.
    Fragment(FragmentHeader),
    /// A routing header.
    Routing {
        /// The routing type.
        kind: u8,
        /// The number of segments that are left.
        segments_left: u8,
    },
    /// Options for each router.
    HopByHop,
    /// Options for the destination.
    DestinationOptions,
    /// An authentication header.
    Authentication,
}

/// What is found where an extension header may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'p> {
    /// The header of the protocol above IP.
    UpperLayer,
    /// An extension header.
    Extension {
        /// What it is.
        extension: Extension,
        /// The protocol number of what follows it.
        next: u8,
        /// What follows it.
        rest: &'p [u8],
    },
    /// An extension header that the packet has no room for.
    Truncated,
}

impl<'p> Step<'p> {
    /// Looks at the header with this protocol number at the start of `rest`.
    #[must_use]
    #[inline]
    pub fn at(protocol: u8, rest: &'p [u8]) -> Self {
        if !matches!(
            protocol,
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS | AUTHENTICATION
        ) {
            return Self::UpperLayer;
        }
        Self::extension(protocol, rest)
    }

    #[cold]
    fn extension(protocol: u8, header: &'p [u8]) -> Self {
        let Some([next, len, kind, segments_left, ..]) = header.first_chunk::<8>().copied() else {
            return Self::Truncated;
        };
        let (extension, len) = match protocol {
            // Its second byte is reserved.
            FRAGMENT => {
                let place = Place::v6(half(header, 2));
                (Extension::Fragment(FragmentHeader { place, id: word(header, 4) }), 8)
            }
            AUTHENTICATION => (Extension::Authentication, 8 + usize::from(len) * 4),
            ROUTING => (Extension::Routing { kind, segments_left }, 8 + usize::from(len) * 8),
            HOP_BY_HOP => (Extension::HopByHop, 8 + usize::from(len) * 8),
            _ => (Extension::DestinationOptions, 8 + usize::from(len) * 8),
        };
        header.get(len..).map_or(Self::Truncated, |rest| Self::Extension { extension, next, rest })
    }
}

#[cfg(test)]
mod tests {
    use weir_common::ip::{TCP, UDP};

    use super::*;

    #[test]
    fn each_header_is_as_long_as_its_own_rule_says() {
        let bytes: [u8; 64] = std::array::from_fn(|at| match at {
            0 => UDP,
            1 => 2,
            _ => at as u8,
        });
        for (protocol, extension, len) in [
            (HOP_BY_HOP, Extension::HopByHop, 24),
            (DESTINATION_OPTIONS, Extension::DestinationOptions, 24),
            (ROUTING, Extension::Routing { kind: 2, segments_left: 3 }, 24),
            (AUTHENTICATION, Extension::Authentication, 16),
            (
                FRAGMENT,
                Extension::Fragment(FragmentHeader {
                    place: Place { offset: 0x203 >> 3, more: true },
                    id: 0x0405_0607,
                }),
                8,
            ),
        ] {
            let expected = Step::Extension { extension, next: UDP, rest: &bytes[len..] };
            assert_eq!(Step::at(protocol, &bytes), expected);
            assert_eq!(
                Step::at(protocol, &bytes[..len]),
                Step::Extension { extension, next: UDP, rest: &[] }
            );
            assert_eq!(Step::at(protocol, &bytes[..len - 1]), Step::Truncated);
            assert_eq!(Step::at(protocol, &[]), Step::Truncated);
        }
        assert_eq!(Step::at(TCP, &[]), Step::UpperLayer);
    }

    #[test]
    fn a_place_is_read_from_the_fields_of_both_versions() {
        assert_eq!(Place::v4(0x2001), Place { offset: 1, more: true });
        assert_eq!(Place::v4(0x1fff), Place { offset: 0x1fff, more: false });
        // Don't Fragment and the reserved bit say nothing about the place.
        assert!(Place::v4(0xc000).is_whole());
        assert_eq!(Place::v6(0xfff9), Place { offset: 0x1fff, more: true });
        assert!(Place::v6(0x0006).is_whole());
        assert!(!Place::v6(0x0001).is_whole() && !Place::v6(0x0008).is_whole());
    }
}
