//! Datagrams to one consumer become one send: equal lengths, the last may be shorter, cut apart by
//! the kernel or the network card (`UDP_SEGMENT`).

use weir_common::Slot;

use weir_accounts::Endpoint;
use weir_packet::{
    arena::Span,
    ecn::Ecn,
    iov::{List, Pieces},
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

/// Whether the bytes of a run are billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// Data messages, billed.
    Data,
    /// Data messages that a paused session gets from the gateway. Not billed.
    Unbilled,
    /// One handshake message.
    Handshake,
}

/// One send.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// To whom.
    pub to: Endpoint,
    /// Whose account it goes to.
    pub slot: Slot,
    /// What it carries.
    pub kind: RunKind,
    /// The ECN field of the outer header.
    pub ecn: Ecn,
    /// Where its bytes are.
    pub pieces: List,
    /// Length of each datagram but the last, in bytes.
    pub segment: u16,
    /// Datagrams.
    pub datagrams: u16,
    /// Bytes of all datagrams.
    pub bytes: u32,
    open: bool,
}

/// A place in the turn's list of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunIndex(u32);

/// The sends of one turn.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    pieces: Pieces,
    segmentation: UdpSegmentation,
}

impl Runs {
    /// No sends yet; of several datagrams each, or not.
    #[must_use]
    pub(crate) fn new(segmentation: UdpSegmentation) -> Self {
        Self { segmentation, ..Self::default() }
    }

    /// Forgets the last turn's runs.
    pub(crate) fn begin(&mut self) {
        self.runs.clear();
        self.pieces.clear();
    }

    /// Adds a datagram behind the consumer's latest run, `last`, or in a new one. Returns the run
    /// that it is in. `last` must be of this turn.
    #[inline]
    pub(crate) fn push(
        &mut self,
        last: Option<RunIndex>,
        to: Endpoint,
        slot: Slot,
        kind: RunKind,
        ecn: Ecn,
        span: Span,
    ) -> RunIndex {
        if let Some(RunIndex(index)) = last
            && let Some(run) = self.runs.get_mut(index as usize)
            && run.open
            && run.kind == kind
            && run.ecn == ecn
            && run.to == to
            && span.len <= u32::from(run.segment)
            && run.bytes + span.len <= MAX_BYTES
        {
            run.bytes += span.len;
            run.datagrams += 1;
            run.open = span.len == u32::from(run.segment) && run.datagrams < MAX_SEGMENTS;
            self.pieces.append(&mut run.pieces, span);
            return RunIndex(index);
        }
        let index = RunIndex(self.runs.len() as u32);
        self.runs.push(Run {
            to,
            slot,
            kind,
            ecn,
            pieces: self.pieces.list(span),
            segment: span.len as u16,
            datagrams: 1,
            bytes: span.len,
            open: kind == RunKind::Data && self.segmentation == UdpSegmentation::On,
        });
        index
    }

    /// The runs, in the order in which they were begun.
    #[must_use]
    pub(crate) fn all(&self) -> &[Run] {
        &self.runs
    }

    /// The spans of a run, in the arena that the datagrams lie in.
    pub(crate) fn spans(&self, run: &Run) -> impl Iterator<Item = Span> + '_ {
        self.pieces.spans(run.pieces)
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
        let mut runs = Runs::new(segmentation);
        let (mut last, mut start) = (None, 0);
        for &len in lens {
            let span = Span { start, len };
            last = Some(runs.push(last, to(1), Slot(0), RunKind::Data, Ecn::NotEct, span));
            start += len;
        }
        runs.all().iter().map(|run| run.datagrams).collect()
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
        let mut runs = Runs::default();
        let span = Span { start: 0, len: 148 };
        let mut push =
            |last, port, kind| runs.push(last, to(port), Slot(0), kind, Ecn::NotEct, span);
        let one = push(None, 1, RunKind::Data);
        let two = push(Some(one), 2, RunKind::Data);
        let three = push(Some(two), 2, RunKind::Handshake);
        let four = push(Some(three), 2, RunKind::Data);
        assert_eq!(runs.all().len(), 4);
        assert_ne!(three, four);
    }

    #[test]
    fn without_udp_segmentation_no_run_has_more_than_one_datagram() {
        assert_eq!(lengths_with(UdpSegmentation::Off, &[100, 100, 100, 60]), [1; 4]);
    }

    #[test]
    fn another_congestion_mark_begins_a_run_of_its_own() {
        let mut runs = Runs::default();
        let mut last = None;
        for (number, ecn) in [Ecn::NotEct, Ecn::NotEct, Ecn::Ect0, Ecn::Ect0, Ecn::Ce, Ecn::NotEct]
            .into_iter()
            .enumerate()
        {
            let span = Span { start: number as u32 * 100, len: 100 };
            last = Some(runs.push(last, to(1), Slot(0), RunKind::Data, ecn, span));
        }
        let made: Vec<_> = runs.all().iter().map(|run| (run.ecn, run.datagrams)).collect();
        let wanted = [(Ecn::NotEct, 2), (Ecn::Ect0, 2), (Ecn::Ce, 1), (Ecn::NotEct, 1)];
        assert_eq!(made, wanted);
    }
}
