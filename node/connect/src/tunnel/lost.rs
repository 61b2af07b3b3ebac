//! What the node sent and what never arrived, by the gaps in its counters (whitepaper, section
//! 5.4.6). The node has billed it.

use weir_wireguard::tunnel::Header;

/// The data messages under one keypair.
#[derive(Clone, Copy, Debug)]
struct Received {
    index: u32,
    /// One more than the highest counter.
    next: u64,
    messages: u64,
}

impl Received {
    fn lost(&self) -> u64 {
        self.next.saturating_sub(self.messages)
    }
}

/// The data messages of a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    /// Of the keypair in use, and of the one before: its last messages may arrive later.
    keypairs: [Option<Received>; 2],
    /// Messages that were lost under older keypairs.
    before: u64,
    largest: u64,
}

impl Lost {
    /// Takes the header of an authentic and new message of `len` bytes.
    pub(super) fn received(&mut self, header: Header, len: usize) {
        self.largest = self.largest.max(len as u64);
        let known = self.keypairs.iter_mut().flatten().find(|it| it.index == header.index);
        if let Some(known) = known {
            known.next = known.next.max(header.counter.saturating_add(1));
            known.messages += 1;
            return;
        }
        let [newest, oldest] = &mut self.keypairs;
        self.before += oldest.map_or(0, |it| it.lost());
        let next = header.counter.saturating_add(1);
        *oldest = newest.replace(Received { index: header.index, next, messages: 1 });
    }

    /// The bytes that were lost at most: as if each message had been as large as the largest.
    pub(super) fn bytes(&self) -> u64 {
        let open: u64 = self.keypairs.iter().flatten().map(Received::lost).sum();
        (self.before + open).saturating_mul(self.largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(counters: &[(u32, u64)]) -> u64 {
        let mut lost = Lost::default();
        for &(index, counter) in counters {
            lost.received(Header { index, counter }, 100);
        }
        lost.bytes()
    }

    #[test]
    fn what_arrives_in_any_order_is_not_lost() {
        assert_eq!(after(&[]), 0);
        assert_eq!(after(&[(1, 0), (1, 2), (1, 1)]), 0);
        assert_eq!(after(&[(1, 0), (2, 0), (1, 1), (2, 1)]), 0, "new keys overtake");
    }

    #[test]
    fn gaps_are_lost_even_under_keys_that_are_gone() {
        assert_eq!(after(&[(1, 1)]), 100, "the first one");
        assert_eq!(after(&[(1, 0), (1, 3)]), 200);
        assert_eq!(after(&[(1, 0), (1, 3), (2, 0), (3, 0), (4, 1)]), 300);
    }
}
