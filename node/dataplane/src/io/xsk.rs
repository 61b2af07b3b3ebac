//! The XSK fast path: AF_XDP receive, from the guard to a worker past the kernel's stack.

mod ring;
mod socket;
mod sources;
mod transmit;
mod umem;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
};

use smallvec::SmallVec;
use weir_common::{
    DropReason,
    exit::return_packet,
    xsk::{Addresses, XSK_QUEUES, XskDatagram},
};

use self::socket::Xsk;
pub use self::{socket::XskMode, sources::Sources};
use crate::{
    now::Now,
    outer::{Checksum, Outer},
    pipeline::{GROUP, Pipeline},
};
use weir_accounts::Endpoint;
use weir_packet::{ecn::Ecn, ethernet::ETHERNET_HEADER};

/// The maximum number of frames in one iteration. More of them would leave the processor's cache
/// before they are written.
const MAX_FRAMES: u32 = 512;

/// A received frame.
pub struct Frame<'a> {
    /// The memory from the beginning of the frame on, to the end of its chunk.
    memory: &'a mut [u8],
    /// The frame's length in bytes.
    len: usize,
}

impl Frame<'_> {
    /// The frame itself.
    fn bytes(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

/// A queue of received frames.
pub trait ReceiveQueue {
    /// Whether frames are waiting.
    fn is_ready(&self) -> bool;

    /// Calls `take` with up to `most` waiting frames, at most `group` at a time, and gives their
    /// memory back to the kernel. Returns the number of frames.
    fn take(&mut self, most: u32, group: usize, take: impl FnMut(&mut [Frame<'_>])) -> u32;

    /// The number of frames that the kernel dropped since the last call, because too many were
    /// waiting.
    fn newly_lost(&mut self) -> u64;
}

/// The sockets of one worker: one for each of its receive queues of the uplink. Queue q belongs to
/// worker q mod the number of workers.
pub struct XskQueues<Q = Xsk> {
    queues: Vec<Q>,
    /// The queue that is first in this iteration.
    first: usize,
    sources: Sources,
}

impl<Q> Default for XskQueues<Q> {
    fn default() -> Self {
        Self { queues: Vec::new(), first: 0, sources: Sources::default() }
    }
}

impl XskQueues {
    /// Opens a socket at each receive queue of the interface, for the workers in turn: in the `best`
    /// mode that the driver supports. Frames from other addresses than `sources` are dropped.
    ///
    /// # Errors
    ///
    /// Fails if not even the first queue can have a socket.
    pub fn open(
        interface: u32,
        workers: usize,
        sources: Sources,
        best: XskMode,
    ) -> io::Result<Vec<Self>> {
        let mut all: Vec<Self> =
            (0..workers).map(|_| Self { sources, ..Self::default() }).collect();
        let open = |queue| match Xsk::open(interface, queue, best) {
            Err(_) if best != XskMode::Copy => Xsk::open(interface, queue, XskMode::Copy),
            opened => opened,
        };
        for queue in 0..XSK_QUEUES {
            match open(queue) {
                Ok(socket) => {
                    if let Some(own) = all.get_mut(queue as usize % workers.max(1)) {
                        own.queues.push(socket);
                    }
                }
                // The interface has no more queues.
                Err(_) if queue > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Sends the small frames and batches of a finished iteration, if the worker has a socket.
    pub(crate) fn transmit(&mut self, pipeline: &mut Pipeline) {
        let Some(socket) = self.queues.first_mut() else { return };
        let begun = Now::read().nanos;
        let frames = pipeline.send_small(|parts| socket.push(parts.iter().copied()));
        socket.flush();
        if frames > 0 {
            pipeline.small_took(frames, Now::read().nanos - begun);
        }
    }

    /// The sockets with the numbers of their queues, for the guard's map.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.queues.iter().map(|socket| (socket.queue(), socket.as_fd()))
    }

    /// How many of the sockets are bound in this mode.
    pub fn count(&self, mode: XskMode) -> usize {
        self.queues.iter().filter(|socket| socket.mode() == mode).count()
    }
}

impl<Q: ReceiveQueue> XskQueues<Q> {
    /// Whether frames are waiting.
    pub(crate) fn is_ready(&self) -> bool {
        self.queues.iter().any(Q::is_ready)
    }

    /// Hands what has arrived to the pipeline, as much as one iteration has room for. Returns the
    /// number of frames.
    pub(crate) fn take(&mut self, pipeline: &mut Pipeline) -> u32 {
        let sources = self.sources;
        // As many together as the cipher opens together.
        let group = pipeline.group();
        let (taken, lost) =
            self.share(MAX_FRAMES, group, |frames| receive(pipeline, sources, frames));
        if taken > 0 {
            pipeline.stats().udp_receive.add(u64::from(taken));
        }
        if lost > 0 {
            pipeline.stats().refuse_many(DropReason::XskRingFull, lost);
        }
        taken
    }

    /// Takes up to `room` frames. Each queue gets an equal share of what those before it have left.
    /// Then the first queue gets the rest, and another queue is first the next time. Returns the
    /// number of frames taken, and of frames that the queues have lost.
    fn share(
        &mut self,
        room: u32,
        group: usize,
        mut take: impl FnMut(&mut [Frame<'_>]),
    ) -> (u32, u64) {
        let count = self.queues.len();
        self.first = (self.first + 1) % count.max(1);
        let (mut taken, mut lost) = (0, 0);
        for round in 0..2 * count {
            let Some(queue) = self.queues.get_mut((self.first + round) % count) else { continue };
            let left = room - taken;
            if round < count {
                taken += queue.take(left.div_ceil((count - round) as u32), group, &mut take);
            } else {
                if left > 0 && queue.is_ready() {
                    taken += queue.take(left, group, &mut take);
                }
                lost += queue.newly_lost();
            }
        }
        (taken, lost)
    }
}

/// Takes frames. Return traffic goes before the consumers' datagrams, which are opened together.
fn receive(pipeline: &mut Pipeline, sources: Sources, frames: &mut [Frame<'_>]) {
    let mut datagrams: SmallVec<[_; GROUP]> = SmallVec::new();
    for frame in frames {
        if pipeline.exit().is_some_and(|exit| !exit.is_message(frame.bytes())) {
            receive_return(pipeline, frame);
            continue;
        }
        match datagram(sources, frame.bytes()) {
            Ok(datagram) => datagrams.push(datagram),
            Err(reason) => pipeline.stats().refuse(reason),
        }
    }
    pipeline.handle_datagrams(datagrams.into_iter());
}

fn receive_return(pipeline: &mut Pipeline, frame: &mut Frame<'_>) {
    match return_packet(frame.bytes()).map(<[u8]>::len) {
        Some(len) => {
            let room = frame.memory.get_mut(ETHERNET_HEADER..).unwrap_or_default();
            pipeline.handle_return_packet(room, len);
        }
        None => pipeline.stats().refuse(DropReason::DownMalformed),
    }
}

/// The datagram in a frame, with its outer headers.
fn datagram(sources: Sources, frame: &[u8]) -> Result<(Outer<'_>, &[u8]), DropReason> {
    let datagram = XskDatagram::of(frame).ok_or(DropReason::MalformedMessage)?;
    let (remote, local): (IpAddr, IpAddr) = match datagram.addresses {
        Addresses::V4(from, to) => (Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into()),
        Addresses::V6(from, to) => (Ipv6Addr::from(from).into(), Ipv6Addr::from(to).into()),
    };
    if !sources.allow(remote) {
        return Err(DropReason::MartianSource);
    }
    let remote = SocketAddr::new(remote, datagram.source_port);
    let outer = Outer {
        from: Endpoint { remote, local: Some(local) },
        ecn: Ecn::of_traffic_class(datagram.traffic_class),
        checksum: Checksum::Unverified { addresses: datagram.ip_addresses, udp: datagram.udp },
    };
    Ok((outer, datagram.payload))
}

#[cfg(test)]
mod tests;
