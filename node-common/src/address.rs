//! The inner addresses of sessions: base plus slot.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::Slot;

/// Which inner addresses the gateway and the sessions have: in both families the first address of
/// the network is the network's own, the second is the gateway's, and the slots follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPlan {
    v6_prefix: u64,
    v4_base: u32,
    capacity: u32,
}

/// Slot 0's distance from the network's first address.
const OFFSET: u32 = 2;

impl AddressPlan {
    /// A plan within an IPv4 network and the first /64 of an IPv6 network, whose host bits are
    /// taken as zero.
    #[must_use]
    pub const fn new(v4: Ipv4Addr, v4_prefix_len: u8, v6: Ipv6Addr) -> Self {
        let prefix_len = if v4_prefix_len > 32 { 32 } else { v4_prefix_len };
        let size = 1u64 << (32 - prefix_len);
        // Without the network's own address, the gateway's, and the broadcast address.
        let usable = size.saturating_sub(3);
        let capacity =
            if usable > Slot::MAX_COUNT as u64 { Slot::MAX_COUNT } else { usable as u32 };
        let v4_base = (v4.to_bits() as u64 & !(size - 1)) as u32;
        Self { v6_prefix: (v6.to_bits() >> 64) as u64, v4_base, capacity }
    }

    /// How many slots have addresses.
    #[must_use]
    #[inline(always)]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The gateway's IPv4 address.
    #[must_use]
    pub const fn gateway_v4(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.v4_base.wrapping_add(1))
    }

    /// The gateway's IPv6 address.
    #[must_use]
    pub const fn gateway_v6(&self) -> Ipv6Addr {
        self.v6(1)
    }

    /// The IPv4 address of a slot, or `None` beyond the plan's capacity.
    #[must_use]
    pub const fn address_v4(&self, slot: Slot) -> Option<Ipv4Addr> {
        if slot.0 < self.capacity {
            Some(Ipv4Addr::from_bits(self.v4_base + OFFSET + slot.0))
        } else {
            None
        }
    }

    /// The IPv6 address of a slot, or `None` beyond the plan's capacity.
    #[must_use]
    pub const fn address_v6(&self, slot: Slot) -> Option<Ipv6Addr> {
        if slot.0 < self.capacity { Some(self.v6((OFFSET + slot.0) as u64)) } else { None }
    }

    /// The slot of an IPv4 address in big-endian bytes, or `None` if it is no session's.
    #[must_use]
    #[inline(always)]
    pub const fn slot_of_v4(&self, address: [u8; 4]) -> Option<Slot> {
        let slot = u32::from_be_bytes(address).wrapping_sub(self.v4_base).wrapping_sub(OFFSET);
        if slot < self.capacity { Some(Slot(slot)) } else { None }
    }

    /// The slot of an IPv6 address in big-endian bytes, or `None` if it is no session's.
    #[must_use]
    #[inline(always)]
    pub const fn slot_of_v6(&self, address: [u8; 16]) -> Option<Slot> {
        let [p0, p1, p2, p3, p4, p5, p6, p7, i0, i1, i2, i3, i4, i5, i6, i7] = address;
        let slot = u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]).wrapping_sub(OFFSET as u64);
        let ours = u64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]) == self.v6_prefix;
        if ours && slot < self.capacity as u64 { Some(Slot(slot as u32)) } else { None }
    }

    const fn v6(&self, interface: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits((self.v6_prefix as u128) << 64 | interface as u128)
    }

    /// The plan as the kernel's programs read it.
    pub(crate) const fn words(&self) -> (u64, u32, u32) {
        (self.v6_prefix, self.v4_base, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 9, 9, 9, 9);

    #[test]
    fn slots_follow_the_gateway() {
        let plan = AddressPlan::new(Ipv4Addr::new(10, 66, 7, 9), 16, V6);
        assert_eq!(plan.gateway_v4(), Ipv4Addr::new(10, 66, 0, 1));
        assert_eq!(plan.gateway_v6(), Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, 1));
        assert_eq!(plan.address_v4(Slot(0)), Some(Ipv4Addr::new(10, 66, 0, 2)));
        assert_eq!(plan.address_v4(Slot(254)), Some(Ipv4Addr::new(10, 66, 1, 0)));
        assert_eq!(plan.address_v6(Slot(254)), Some(Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, 256)));
    }

    #[test]
    fn addresses_stay_within_the_network_and_lead_back_to_their_slot() {
        for prefix_len in [0, 8, 12, 16, 24, 29, 30, 31, 32, 200] {
            let plan = AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), prefix_len, V6);
            let size = 1u64 << 32u8.saturating_sub(prefix_len);
            assert_eq!(u64::from(plan.capacity()), size.saturating_sub(3).min(1 << 20));
            let some = [0, 1, 2, 1000, plan.capacity().wrapping_sub(1), plan.capacity(), u32::MAX];
            for slot in some.map(Slot) {
                let within = slot.0 < plan.capacity();
                let (v4, v6) = (plan.address_v4(slot), plan.address_v6(slot));
                assert_eq!(
                    (v4.is_some(), v6.is_some()),
                    (within, within),
                    "/{prefix_len} {slot:?}"
                );
                if let (Some(v4), Some(v6)) = (v4, v6) {
                    assert_eq!(plan.slot_of_v4(v4.octets()), Some(slot));
                    assert_eq!(plan.slot_of_v6(v6.octets()), Some(slot));
                    let base = plan.gateway_v4().to_bits() - 1;
                    assert!(u64::from(v4.to_bits() - base) < size - 1, "not the broadcast address");
                }
            }
        }
    }

    #[test]
    fn nobody_has_the_gateways_addresses_or_foreign_ones() {
        let plan = AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 24, V6);
        for last in [0, 1, 255] {
            assert_eq!(plan.slot_of_v4([10, 66, 0, last]), None);
        }
        assert_eq!(plan.slot_of_v4([10, 66, 1, 2]), None);
        assert_eq!(plan.slot_of_v4([10, 65, 255, 255]), None);
        assert_eq!(plan.slot_of_v6(plan.gateway_v6().octets()), None);
        assert_eq!(plan.slot_of_v6(Ipv6Addr::new(0xfd00, 1, 2, 4, 0, 0, 0, 2).octets()), None);
        assert_eq!(plan.slot_of_v6(V6.octets()), None);
    }
}
