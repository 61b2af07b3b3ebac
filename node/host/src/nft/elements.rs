//! nftables notifications. Only they show that another program changed elements of weir's sets.

use super::{
    super::nfnetlink::{HEADER, NF_HEADER, find, number, text},
    NAME,
    kernel::NFTABLES,
};

const NEW_ELEMENT: u16 = NFTABLES | 12;
const DELETE_ELEMENT: u16 = NFTABLES | 14;
const NEW_GENERATION: u16 = NFTABLES | 15;

/// Parses notifications in order.
#[derive(Debug, Default)]
pub struct ElementEvents {
    /// Whether the current transaction has changed elements.
    pending: bool,
    changed: Option<u32>,
}

impl ElementEvents {
    /// Parses the data of one read.
    pub fn take(&mut self, mut datagram: &[u8]) {
        while let Some(&[l0, l1, l2, l3, t0, t1]) = datagram.first_chunk() {
            let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let Some(attributes) = datagram.get(HEADER + NF_HEADER..length) else { return };
            match u16::from_ne_bytes([t0, t1]) {
                NEW_ELEMENT | DELETE_ELEMENT => self.pending |= text(find(attributes, 1)) == NAME,
                // The end of a transaction, with its generation.
                NEW_GENERATION if std::mem::take(&mut self.pending) => {
                    self.changed = u32::try_from(number(find(attributes, 1))).ok();
                }
                _ => {}
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// Records that notifications were lost, so the next transaction may include unseen changes.
    pub fn forget(&mut self) {
        self.pending = false;
    }

    /// The generation of the last change to elements of weir's sets since the previous call.
    pub fn changed(&mut self) -> Option<u32> {
        self.changed.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::super::nfnetlink::{message, named},
        *,
    };

    fn generation(number: u32) -> Vec<u8> {
        let mut attribute = vec![8, 0, 1, 0];
        attribute.extend(number.to_be_bytes());
        message(NEW_GENERATION, 0, 0, &attribute)
    }

    #[test]
    fn a_change_of_elements_is_told_with_the_number_of_its_transaction() {
        let of = |table: &str| message(DELETE_ELEMENT, 0, 1, &named(1, table));
        let mut events = ElementEvents::default();
        events.take(&[of("others"), generation(6)].concat());
        assert_eq!(events.changed(), None);
        events.take(&[of("others"), of(NAME)].concat());
        assert_eq!(events.changed(), None, "its end has not come");
        events.take(&generation(7));
        assert_eq!((events.changed(), events.changed()), (Some(7), None));
        events.take(&of(NAME));
        events.forget();
        events.take(&generation(8));
        assert_eq!(events.changed(), None, "its end was lost with others");
    }

    proptest! {
        #[test]
        fn no_notification_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            ElementEvents::default().take(&bytes);
        }
    }
}
