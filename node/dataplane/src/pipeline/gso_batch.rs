//! Datagrams to one consumer become one send: equal lengths, the last may be shorter, cut apart by
//! the kernel or the network card (`UDP_SEGMENT`).

use weir_common::Slot;

use weir_accounts::Endpoint;
use weir_packet::{
    arena::Chunk,
    ecn::Ecn,
    iov::{IovArena, IovList},
};

/// UDP_MAX_SEGMENTS of kernels before 6.9; later ones take 128.
const MAX_SEGMENTS: u16 = 64;
/// The most UDP payload that an IPv4 packet can have.
const MAX_BYTES: u32 = 65_507;

/// Whether datagrams are sent several at once, to be cut by the kernel (`UDP_SEGMENT`, GSO).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpSegmentation {
    /// They are.
    #[default]
    On,
    /// Each is sent by itself: for kernels and devices that cut them wrongly.
    Off,
}

/// Whether the bytes of a batch are billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Data messages, billed.
    Metered,
    /// Data messages that a paused session gets from the gateway. Not billed.
    Free,
    /// One handshake message.
    Handshake,
}

/// One send.
#[derive(Clone, Copy, Debug)]
pub struct GsoBatch {
    /// To whom.
    pub to: Endpoint,
    /// Whose account it goes to.
    pub slot: Slot,
    /// What it carries.
    pub kind: BatchKind,
    /// The ECN field of the outer header.
    pub ecn: Ecn,
    /// Where its bytes are.
    pub iov: IovList,
    /// Length of each datagram but the last, in bytes.
    pub segment: u16,
    /// Datagrams.
    pub datagrams: u16,
    /// Bytes of all datagrams.
    pub bytes: u32,
    open: bool,
}

/// A place in the iteration's list of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchIndex(u32);

/// The sends of one iteration.
#[derive(Debug, Default)]
pub(crate) struct GsoBatches {
    batches: Vec<GsoBatch>,
    iovs: IovArena,
    segmentation: UdpSegmentation,
}

impl GsoBatches {
    /// No sends yet; of several datagrams each, or not.
    #[must_use]
    pub(crate) fn new(segmentation: UdpSegmentation) -> Self {
        Self { segmentation, ..Self::default() }
    }

    /// Forgets the last iteration's batches.
    pub(crate) fn begin(&mut self) {
        self.batches.clear();
        self.iovs.clear();
    }

    /// Adds a datagram behind the consumer's latest batch, `last`, or in a new one. Returns the batch
    /// that it is in. `last` must be of this iteration.
    #[inline]
    pub(crate) fn push(
        &mut self,
        last: Option<BatchIndex>,
        to: Endpoint,
        slot: Slot,
        kind: BatchKind,
        ecn: Ecn,
        chunk: Chunk,
    ) -> BatchIndex {
        if let Some(BatchIndex(index)) = last
            && let Some(batch) = self.batches.get_mut(index as usize)
            && batch.open
            && batch.kind == kind
            && batch.ecn == ecn
            && batch.to == to
            && chunk.len <= u32::from(batch.segment)
            && batch.bytes + chunk.len <= MAX_BYTES
        {
            batch.bytes += chunk.len;
            batch.datagrams += 1;
            batch.open = chunk.len == u32::from(batch.segment) && batch.datagrams < MAX_SEGMENTS;
            self.iovs.append(&mut batch.iov, chunk);
            return BatchIndex(index);
        }
        let index = BatchIndex(self.batches.len() as u32);
        self.batches.push(GsoBatch {
            to,
            slot,
            kind,
            ecn,
            iov: self.iovs.list(chunk),
            segment: chunk.len as u16,
            datagrams: 1,
            bytes: chunk.len,
            open: kind == BatchKind::Metered && self.segmentation == UdpSegmentation::On,
        });
        index
    }

    /// The batches, in the order in which they were begun.
    #[must_use]
    pub(crate) fn all(&self) -> &[GsoBatch] {
        &self.batches
    }

    /// The chunks of a batch, in the arena that the datagrams lie in.
    pub(crate) fn chunks(&self, batch: &GsoBatch) -> impl Iterator<Item = Chunk> + '_ {
        self.iovs.chunks(batch.iov)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Endpoint {
        Endpoint { remote: ([192, 0, 2, 1], port).into(), local: None }
    }

    fn lengths(lens: &[u32]) -> Vec<u16> {
        lengths_with(UdpSegmentation::On, lens)
    }

    fn lengths_with(segmentation: UdpSegmentation, lens: &[u32]) -> Vec<u16> {
        let mut batches = GsoBatches::new(segmentation);
        let (mut last, mut start) = (None, 0);
        for &len in lens {
            let chunk = Chunk { start, len };
            last = Some(batches.push(last, to(1), Slot(0), BatchKind::Metered, Ecn::NotEct, chunk));
            start += len;
        }
        batches.all().iter().map(|batch| batch.datagrams).collect()
    }

    #[test]
    fn equal_lengths_join_and_a_shorter_one_ends_the_run() {
        assert_eq!(lengths(&[100, 100, 100]), [3]);
        assert_eq!(lengths(&[100, 100, 60, 60]), [3, 1]);
        assert_eq!(lengths(&[60, 100]), [1, 1]);
    }

    #[test]
    fn a_run_keeps_the_limits_of_the_kernel() {
        assert_eq!(lengths(&[32; 65]), [64, 1]);
        assert_eq!(lengths(&[1452; 64]), [45, 19]);
    }

    #[test]
    fn another_endpoint_or_a_handshake_begins_a_run_of_its_own() {
        let mut batches = GsoBatches::default();
        let chunk = Chunk { start: 0, len: 148 };
        let mut push =
            |last, port, kind| batches.push(last, to(port), Slot(0), kind, Ecn::NotEct, chunk);
        let one = push(None, 1, BatchKind::Metered);
        let two = push(Some(one), 2, BatchKind::Metered);
        let three = push(Some(two), 2, BatchKind::Handshake);
        let four = push(Some(three), 2, BatchKind::Metered);
        assert_eq!(batches.all().len(), 4);
        assert_ne!(three, four);
    }

    #[test]
    fn without_udp_segmentation_no_run_has_more_than_one_datagram() {
        assert_eq!(lengths_with(UdpSegmentation::Off, &[100, 100, 100, 60]), [1; 4]);
    }

    #[test]
    fn another_congestion_mark_begins_a_run_of_its_own() {
        let mut batches = GsoBatches::default();
        let mut last = None;
        for (number, ecn) in [Ecn::NotEct, Ecn::NotEct, Ecn::Ect0, Ecn::Ect0, Ecn::Ce, Ecn::NotEct]
            .into_iter()
            .enumerate()
        {
            let chunk = Chunk { start: number as u32 * 100, len: 100 };
            last = Some(batches.push(last, to(1), Slot(0), BatchKind::Metered, ecn, chunk));
        }
        let made: Vec<_> = batches.all().iter().map(|batch| (batch.ecn, batch.datagrams)).collect();
        let wanted = [(Ecn::NotEct, 2), (Ecn::Ect0, 2), (Ecn::Ce, 1), (Ecn::NotEct, 1)];
        assert_eq!(made, wanted);
    }
}
