//! Which session an address belongs to, and which address a session has, inside and outside.

use std::net::Ipv6Addr;

use weir_common::Slot;

use crate::{
    config::V6,
    flow::EXTERNAL_PREFIX,
    nat::Nat,
    parse::{Address, mapped},
    session::Session,
};

impl Nat {
    /// The place of a session of this worker.
    #[inline]
    pub(crate) fn session_index(&self, slot: Slot) -> Option<usize> {
        let is_ours = slot.0 < self.plan.capacity() && slot.worker(self.workers) == self.worker;
        is_ours.then_some((slot.0 / self.workers) as usize)
    }

    pub(crate) fn session_mut(&mut self, slot: Slot) -> Option<&mut Session> {
        let index = self.session_index(slot)?;
        self.sessions.get_mut(index)
    }

    /// The inner address of a session.
    #[inline]
    pub(crate) fn inner_address(&self, slot: Slot, v6: bool) -> Option<Address> {
        if v6 {
            Some(self.plan.address_v6(slot)?.octets())
        } else {
            Some(mapped(self.plan.address_v4(slot)?.octets()))
        }
    }

    /// The external address of a session's flow.
    #[inline]
    pub(crate) fn external_address(&self, external: u8, slot: Slot) -> Option<Address> {
        if external == EXTERNAL_PREFIX {
            self.prefix_address(slot)
        } else {
            self.pool.bytes(external)
        }
    }

    /// The address of a session within the prefix.
    pub(crate) fn prefix_address(&self, slot: Slot) -> Option<Address> {
        let V6::Prefix(prefix, len) = self.v6 else { return None };
        let host = u128::from(slot.0) + 2;
        let mask = host_mask(len);
        (host <= mask).then(|| Ipv6Addr::from_bits(prefix.to_bits() & !mask | host).octets())
    }

    /// The session of this worker that an address of the prefix belongs to. `Some(None)` for an
    /// address that is nobody's here.
    pub(crate) fn slot_of_prefix(&self, address: Address) -> Option<Option<Slot>> {
        let slot = self.prefix_slot(address)?;
        Some(slot.filter(|slot| self.session_index(*slot).is_some()))
    }

    /// The slot of an address of the prefix, whichever worker has it. `Some(None)` for an address
    /// that has none.
    pub(crate) fn prefix_slot(&self, address: Address) -> Option<Option<Slot>> {
        let V6::Prefix(prefix, len) = self.v6 else { return None };
        let mask = host_mask(len);
        let bits = u128::from_be_bytes(address);
        if (bits ^ prefix.to_bits()) & !mask != 0 {
            return None;
        }
        let slot = (bits & mask).checked_sub(2).and_then(|slot| u32::try_from(slot).ok());
        Some(slot.map(Slot).filter(|slot| slot.0 < self.plan.capacity()))
    }
}

/// The bits of an address that a prefix of such a length leaves.
fn host_mask(len: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(len)).unwrap_or_default()
}
