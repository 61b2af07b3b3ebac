//! The direct way from the guard to a worker: its sockets, and what their frames are.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
};

use weir_common::{
    DropReason,
    direct::{Addresses, DIRECT_QUEUES, Direct},
};

use super::{endpoint::Endpoint, pipeline::Pipeline, xsk::Xsk};

/// Frames of one turn: more of them would leave the processor's cache before they are sealed.
const MOST: u32 = 512;

/// The sockets of one worker: one for each receive queue of the uplink whose number has the
/// worker's as its remainder.
#[derive(Default)]
pub struct DirectQueues {
    sockets: Vec<Xsk>,
}

impl DirectQueues {
    /// Opens a socket at each receive queue of the interface, and deals them out to the workers.
    ///
    /// # Errors
    ///
    /// Says why there can be none.
    pub fn open(interface: u32, workers: usize) -> io::Result<Vec<Self>> {
        let mut all: Vec<Self> = (0..workers).map(|_| Self::default()).collect();
        for queue in 0..DIRECT_QUEUES {
            match Xsk::open(interface, queue) {
                Ok(socket) => {
                    if let Some(own) = all.get_mut(queue as usize % workers.max(1)) {
                        own.sockets.push(socket);
                    }
                }
                // The interface has no more queues.
                Err(_) if queue > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The sockets with their queues, for the guard's map.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.sockets.iter().map(|socket| (socket.queue(), socket.as_fd()))
    }

    /// Whether frames are waiting.
    pub(super) fn is_ready(&self) -> bool {
        self.sockets.iter().any(Xsk::is_ready)
    }

    /// Hands what has arrived to the pipeline, as far as one turn has room.
    pub(super) fn take(&mut self, pipeline: &mut Pipeline) {
        let mut room = MOST;
        for socket in &mut self.sockets {
            let taken = socket.take(room, |frame| receive(pipeline, frame));
            room -= taken;
            if taken > 0 {
                pipeline.stats().udp_receive.add(u64::from(taken));
                let lost = socket.newly_lost();
                if lost > 0 {
                    pipeline.stats().refuse_many(DropReason::DirectFull, lost);
                }
            }
        }
    }
}

fn receive(pipeline: &mut Pipeline, frame: &[u8]) {
    let Some(direct) = Direct::of(frame) else {
        pipeline.stats().refuse(DropReason::Message);
        return;
    };
    let (remote, local): (IpAddr, IpAddr) = match direct.addresses {
        Addresses::V4(from, to) => (Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into()),
        Addresses::V6(from, to) => (Ipv6Addr::from(from).into(), Ipv6Addr::from(to).into()),
    };
    let remote = SocketAddr::new(remote, direct.source_port);
    pipeline.datagram(Endpoint { remote, local: Some(local) }, direct.payload);
}
