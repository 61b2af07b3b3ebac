//! What arrives at one worker and belongs to another one goes there in parcels, many packets at a
//! time. A network card with fewer queues than there are workers gives most packets to another
//! worker than the session's.

use weir_common::DropReason;

use super::{Pipeline, TAILROOM};
use crate::outer::{Checksum, Outer};
use weir_accounts::Endpoint;
use weir_packet::{ecn::Ecn, headers::UDP_HEADER};

/// The bytes of a parcel: some hundred packets. A worker's arenas have room for several parcels
/// beside what the worker receives itself.
const CAPACITY: usize = 256 << 10;
/// The empty parcels that a worker keeps.
const MAX_SPARE: usize = 16;

/// Packets for one worker. Its memory is used again and again.
#[derive(Debug, Default)]
pub struct Parcel {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

/// A packet, whose bytes are behind those of the one before.
#[derive(Clone, Copy, Debug)]
struct Item {
    len: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A consumer's datagram.
    Datagram { from: Endpoint, ecn: Ecn, checksum: Seen },
    /// A packet from the uplink, not translated yet, with [`TAILROOM`] bytes behind it.
    Return,
}

/// What is known of a datagram's checksum.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Right,
    Wrong,
    /// Nothing yet. In front of the datagram are the IP addresses, whose length in bytes this is, and
    /// the UDP header.
    Nothing {
        addresses: usize,
    },
}

impl Parcel {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }

    /// The reasons why the packets are dropped, if the parcel is.
    pub fn reasons(&self) -> impl Iterator<Item = DropReason> {
        self.items.iter().map(|item| match item.kind {
            Kind::Datagram { .. } => DropReason::WorkerQueueFull,
            Kind::Return => DropReason::DownWorkerQueueFull,
        })
    }

    fn datagram(&mut self, outer: &Outer<'_>, datagram: &[u8]) -> bool {
        let (checksum, parts): (_, [&[u8]; 2]) = match outer.checksum {
            Checksum::Right => (Seen::Right, [datagram, &[]]),
            Checksum::Wrong => (Seen::Wrong, [datagram, &[]]),
            Checksum::Unverified { addresses, udp } => {
                debug_assert_eq!(udp.len(), UDP_HEADER + datagram.len(), "header and payload");
                (Seen::Nothing { addresses: addresses.len() }, [addresses, udp])
            }
        };
        self.push(parts, Kind::Datagram { from: outer.from, ecn: outer.ecn, checksum })
    }

    /// Takes a packet. Returns whether there was room for it.
    fn push(&mut self, parts: [&[u8]; 2], kind: Kind) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        if self.bytes.len() + len > CAPACITY {
            return false;
        }
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.items.push(Item { len, kind });
        true
    }
}

/// The datagram of an item, with its outer headers.
fn of_item(bytes: &[u8], kind: Kind) -> Option<(Outer<'_>, &[u8])> {
    let Kind::Datagram { from, ecn, checksum } = kind else { return None };
    let (checksum, datagram) = match checksum {
        Seen::Right => (Checksum::Right, bytes),
        Seen::Wrong => (Checksum::Wrong, bytes),
        Seen::Nothing { addresses } => {
            let (addresses, udp) = bytes.split_at_checked(addresses)?;
            (Checksum::Unverified { addresses, udp }, udp.get(UDP_HEADER..)?)
        }
    };
    Some((Outer { from, ecn, checksum }, datagram))
}

/// The parcels of an iteration, for each worker.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// By the worker's number: the one that is not full yet.
    open: Vec<Parcel>,
    full: Vec<(u32, Parcel)>,
    spare: Vec<Parcel>,
}

impl Outgoing {
    /// Has something put into the parcel for a worker.
    #[inline]
    fn put(&mut self, worker: u32, put: impl Fn(&mut Parcel) -> bool) -> bool {
        let at = worker as usize;
        if at >= self.open.len() {
            self.open.resize_with(at + 1, Parcel::default);
        }
        let Some(open) = self.open.get_mut(at) else { return false };
        if put(open) {
            return true;
        }
        let full = std::mem::replace(open, self.spare.pop().unwrap_or_default());
        self.full.push((worker, full));
        put(open)
    }
}

impl Pipeline {
    /// Puts a datagram into the parcel for its owner.
    pub(super) fn send_datagram(&mut self, owner: u32, outer: &Outer<'_>, datagram: &[u8]) {
        if !self.outgoing.put(owner, |parcel| parcel.datagram(outer, datagram)) {
            self.stats.refuse(DropReason::MalformedMessage);
        }
    }

    /// Puts a packet from the uplink into the parcel for its owner, with its tailroom.
    pub(super) fn send_return_packet(&mut self, owner: u32, packet: &[u8]) {
        if !self.outgoing.put(owner, |parcel| parcel.push([packet, &[]], Kind::Return)) {
            self.stats.refuse(DropReason::DownMalformed);
        }
    }

    /// Removes and returns what is for other workers.
    pub fn take_parcels(&mut self) -> impl Iterator<Item = (u32, Parcel)> {
        let Outgoing { open, full, spare } = &mut self.outgoing;
        let last = (0..).zip(open).filter(|(_, parcel)| !parcel.is_empty());
        let last = last.map(|(worker, parcel)| {
            (worker, std::mem::replace(parcel, spare.pop().unwrap_or_default()))
        });
        full.drain(..).chain(last)
    }

    /// Keeps the memory of a parcel that has been emptied.
    pub fn reuse(&mut self, mut parcel: Parcel) {
        parcel.clear();
        if self.outgoing.spare.len() < MAX_SPARE {
            self.outgoing.spare.push(parcel);
        }
    }

    /// Whether this iteration has room for another parcel.
    #[must_use]
    pub fn has_room_for_parcel(&self) -> bool {
        // A packet takes a little more room here: headers and tags.
        self.plain.room().min(self.sealed.room()) > 2 * CAPACITY
    }

    /// Takes the packets of a parcel from another worker, and returns their number.
    pub fn handle_parcel(&mut self, parcel: &mut Parcel) -> u32 {
        let Parcel { bytes, items } = parcel;
        let mut rest = bytes.as_mut_slice();
        let group = self.group().max(1);
        let mut items = items.as_slice();
        while let Some(item) = items.first() {
            let is_datagram = |item: &Item| matches!(item.kind, Kind::Datagram { .. });
            let run = items.iter().take(group).take_while(|item| is_datagram(item)).count();
            let (taken, behind) = items.split_at(run.max(1));
            items = behind;
            let len = taken.iter().map(|item| item.len).sum();
            let Some((now, later)) = rest.split_at_mut_checked(len) else { break };
            rest = later;
            if is_datagram(item) {
                let mut at = 0;
                self.handle_datagrams(taken.iter().filter_map(|item| {
                    let bytes = now.get(at..at + item.len)?;
                    at += item.len;
                    of_item(bytes, item.kind)
                }));
            } else {
                self.handle_return_packet(now, len.saturating_sub(TAILROOM));
            }
        }
        parcel.items.len() as u32
    }
}
