//! Batches datagrams to one consumer into one send, which the kernel or the NIC segments
//! (`UDP_SEGMENT`, udp(7); `udp_send_skb` in net/ipv4/udp.c). All datagrams of a batch have one
//! length, but the last may be shorter.

use weir_common::Slot;

use weir_accounts::Endpoint;
use weir_packet::{
    arena::Chunk,
    ecn::Ecn,
    iov::{IovArena, IovList},
};

/// The maximum number of datagrams in a batch: `UDP_MAX_SEGMENTS` of kernels before 6.9, which later
/// ones raised to 128.
const MAX_SEGMENTS: u16 = 64;
/// The maximum UDP payload of an IPv4 packet in bytes.
const MAX_BYTES: u32 = 65_507;

/// Whether datagrams are sent in batches that the kernel segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpSegmentation {
    /// They are sent in batches.
    #[default]
    On,
    /// Each is sent by itself, for kernels and devices that segment wrongly.
    Off,
}

/// Whether the bytes of a batch are billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Data messages. They are billed.
    Metered,
    /// Data messages from the gateway to a paused session. They are not billed.
    Free,
    /// One handshake message.
    Handshake,
}

/// Datagrams that one system call or operation sends.
#[derive(Clone, Copy, Debug)]
pub struct GsoBatch {
    /// The destination.
    pub to: Endpoint,
    /// The slot whose account counts it.
    pub slot: Slot,
    /// The kind of messages.
    pub kind: BatchKind,
    /// The ECN field of the outer header.
    pub ecn: Ecn,
    /// The chunks of its bytes.
    pub iov: IovList,
    /// The length of each datagram but the last, in bytes.
    pub segment: u16,
    /// The number of datagrams.
    pub datagrams: u16,
    /// The length of all datagrams in bytes.
    pub bytes: u32,
    /// Whether its datagrams are sent as single frames: see `pipeline::small`.
    pub is_small: bool,
    open: bool,
}

/// The index of a batch in its iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchIndex(u32);

/// The batches of one iteration.
#[derive(Debug, Default)]
pub(crate) struct GsoBatches {
    batches: Vec<GsoBatch>,
    iovs: IovArena,
    segmentation: UdpSegmentation,
}

impl GsoBatches {
    /// Creates an empty list.
    #[must_use]
    pub(crate) fn new(segmentation: UdpSegmentation) -> Self {
        Self { segmentation, ..Self::default() }
    }

    /// Removes all batches.
    pub(crate) fn begin(&mut self) {
        self.batches.clear();
        self.iovs.clear();
    }

    /// Appends a datagram to `last`, the consumer's latest batch of this iteration, or begins a new
    /// batch. Returns the batch that it is in.
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
            is_small: false,
            open: kind == BatchKind::Metered && self.segmentation == UdpSegmentation::On,
        });
        index
    }

    /// Marks the batches to consumers that get no batch of `min` datagrams or more, if `can_send` says
    /// that they can be sent as single frames.
    pub(crate) fn mark_small(&mut self, min: u16, mut can_send: impl FnMut(&GsoBatch) -> bool) {
        // Slots may share an entry. Then both go the common way.
        let mut large = [false; 256];
        let place = |batch: &GsoBatch| batch.slot.0 as usize % 256;
        for batch in &self.batches {
            if batch.datagrams >= min
                && let Some(entry) = large.get_mut(place(batch))
            {
                *entry = true;
            }
        }
        for batch in &mut self.batches {
            let is_large = large.get(place(batch)).copied().unwrap_or(true);
            batch.is_small = !is_large && can_send(batch);
        }
    }

    /// The batches, in the order in which they began.
    #[must_use]
    pub(crate) fn all(&self) -> &[GsoBatch] {
        &self.batches
    }

    /// The chunks of a batch, in the arena of the datagrams.
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
