//! Data messages are opened several at a time, straight from the receive buffer into the arena.

use smallvec::SmallVec;
use weir_common::{
    DropReason,
    meter::{Meter, Origin},
    wire::DATA_OVERHEAD,
};

use super::{Pipeline, cipher::GROUP, decapsulate::headroom};
use crate::outer::Outer;
use weir_packet::arena::Chunk;
use weir_wireguard::{
    aead::{Open, Outcome},
    tunnel::Header,
};

/// Messages to open, in the order in which they came. They are on the heap only with helpers.
pub(super) type Openings<'a> = SmallVec<[Opening<'a>; GROUP]>;

/// A data message to open.
pub(super) struct Opening<'a> {
    /// The index of its peer.
    pub(super) index: usize,
    pub(super) outer: Outer<'a>,
    pub(super) origin: Origin,
    pub(super) message: &'a [u8],
    pub(super) header: Header,
    /// Where the plaintext goes, with the room before it.
    pub(super) chunk: Chunk,
}

impl Pipeline {
    /// Takes a data message of the peer at `index` up to the cipher. Opens those before it if there
    /// is no room for more, or if what becomes of them matters to this one.
    #[inline]
    pub(super) fn begin_open<'a>(
        &mut self,
        openings: &mut Openings<'a>,
        index: usize,
        outer: Outer<'a>,
        message: &'a [u8],
    ) -> Result<(), DropReason> {
        let (mut origin, mut meter) = self.meter_of_data(index, &outer)?;
        let is_full = openings.len() >= self.shared.cipher.group();
        if is_full || (meter.is_some() && !openings.is_empty()) {
            self.open(openings);
            (origin, meter) = self.meter_of_data(index, &outer)?;
        }
        let now = self.iteration.now.nanos;
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        if let Some(meter) = meter {
            peer.meters.take(meter, origin, now)?;
        }
        let header = peer.tunnel.begin_open(message, now)?;
        if peer.tunnel.is_first_of_next(header) {
            // It may change the keys.
            self.seal();
        }
        let len = headroom(self.exit.is_some()) + message.len().saturating_sub(DATA_OVERHEAD);
        let (chunk, _) = self.plain.take(len).ok_or(DropReason::Truncated)?;
        self.active.wake(index);
        openings.push(Opening { index, outer, origin, message, header, chunk });
        if meter.is_some() {
            // It may move the endpoint, and the next one is judged by that.
            self.open(openings);
        }
        Ok(())
    }

    /// The meter that a data message takes from before it is opened, and where it comes from.
    #[inline]
    fn meter_of_data(
        &self,
        index: usize,
        outer: &Outer<'_>,
    ) -> Result<(Origin, Option<Meter>), DropReason> {
        let peer = self.peers.get(index).and_then(Option::as_deref);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        let origin = peer.origin(&outer.from);
        Ok((origin, peer.meter_of_data(origin)?))
    }

    /// Opens the messages, and takes each through all further steps.
    #[inline]
    pub(super) fn open(&mut self, openings: &mut Openings<'_>) {
        if openings.is_empty() {
            return;
        }
        let outcomes = self.decrypt(openings);
        for (opening, outcome) in openings.drain(..).zip(outcomes) {
            let result = match outcome {
                Outcome::Authentic => self.take_opened(&opening),
                Outcome::Forged | Outcome::Pending => Err(DropReason::Authentication),
            };
            if let Err(reason) = result {
                self.stats.refuse(reason);
            }
        }
    }

    /// What the cipher says of each message.
    #[inline]
    fn decrypt(&mut self, openings: &Openings<'_>) -> SmallVec<[Outcome; GROUP]> {
        let headroom = headroom(self.exit.is_some());
        let outs = self.plain.get_many_mut(openings.iter().map(|opening| opening.chunk));
        let mut jobs: SmallVec<[Open<'_>; GROUP]> = SmallVec::new();
        for (opening, out) in openings.iter().zip(outs) {
            let peer = self.peers.get(opening.index).and_then(Option::as_deref);
            let key = peer.and_then(|peer| peer.tunnel.receive_key(opening.header));
            let sealed = opening.message.get(Header::LEN..).unwrap_or_default();
            let out = out.get_mut(headroom..).unwrap_or_default();
            let counter = opening.header.counter;
            let job = key.and_then(|key| Open::new(key, counter, sealed, out).ok());
            // Since the message was taken, its keys have not changed, and its room fits.
            let Some(job) = job else { break };
            jobs.push(job);
        }
        self.shared.cipher.open(&mut jobs);
        let mut outcomes: SmallVec<_> = jobs.iter().map(Open::outcome).collect();
        while outcomes.len() < openings.len() {
            outcomes.push(Outcome::Pending);
        }
        outcomes
    }
}
