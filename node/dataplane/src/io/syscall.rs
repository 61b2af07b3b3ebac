//! The backend on plain system calls, for hosts that do not allow io_uring.

#![expect(unsafe_code, reason = "sends what points into the iteration's buffers")]

use std::{io, os::fd::AsFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use weir_common::xsk::XSK_QUEUES;

use super::{
    Backend, WorkerIo,
    cmsg::MAX_UDP_PAYLOAD,
    tun_is_gone,
    tx::{
        SendVectors, send_done, send_many, send_unsegmented, socket_for, write_done,
        write_unsegmented, write_vectors,
    },
    udp::receive_one,
    xsk::XskQueues,
};
use crate::{
    pipeline::{Handled, Pipeline, TAILROOM, outlet::Device},
    waker::Waker,
};
use weir_packet::virtio::MAX_TUN_PACKET_LEN;

/// The maximum number of super-packets taken from each descriptor in one iteration.
const BATCH: usize = 8;
/// The maximum number of descriptors to wait for: the waker, the TUN device, two UDP sockets, and
/// the AF_XDP sockets.
const MAX_POLL_FDS: usize = 4 + XSK_QUEUES as usize;

/// The backend.
pub(crate) struct Syscall<'a> {
    io: &'a WorkerIo,
    waker: &'a Waker,
    xsk: XskQueues,
    datagrams: Vec<u8>,
    packet: Vec<u8>,
    /// The length of a TUN packet for which the last iteration had no room.
    held: Option<usize>,
    vectors: SendVectors,
    /// Whether the kernel can segment on the way out. A device without checksum offload cannot.
    gso: bool,
}

impl<'a> Syscall<'a> {
    /// Creates the backend.
    pub(crate) fn new(io: &'a WorkerIo, waker: &'a Waker, xsk: XskQueues) -> Self {
        Self {
            io,
            waker,
            xsk,
            datagrams: vec![0; MAX_UDP_PAYLOAD],
            packet: vec![0; MAX_TUN_PACKET_LEN + TAILROOM],
            held: None,
            vectors: SendVectors::default(),
            gso: true,
        }
    }

    /// Writes the packets of a finished iteration for a device, but the small ones.
    fn write(&self, pipeline: &mut Pipeline, device: Device) {
        let Some(file) = self.io.file(device) else { return };
        for index in 0..pipeline.packets(device).len() {
            if pipeline.packets(device).get(index).is_some_and(|packet| packet.is_small) {
                continue;
            }
            let vectors = self.vectors.packet(device, index);
            // SAFETY: the vectors were filled from this iteration. Since then only packets have
            // changed that the device refused, all of them before this one.
            let written = unsafe { write_vectors(file, vectors) };
            let Some(packet) = pipeline.packets(device).get(index) else { break };
            let outcome = written.map_err(|error| error_number(&error));
            if !write_done(pipeline, device, packet, outcome) {
                write_unsegmented(pipeline, self.io, device, index);
            }
        }
    }
}

impl Backend for Syscall<'_> {
    fn rx(&mut self, pipeline: &mut Pipeline) -> io::Result<u32> {
        let frames = self.xsk.take(pipeline);
        for socket in self.io.udp_sockets() {
            for _ in 0..BATCH {
                let Some((len, received)) = receive_one(socket, &mut self.datagrams) else { break };
                let payload = self.datagrams.get(..len).unwrap_or_default();
                let segment = received.segment.unwrap_or(len);
                pipeline.handle_udp_batch(received.outer(), payload, segment);
            }
        }
        for _ in 0..BATCH {
            let len = match self.held.take() {
                Some(len) => len,
                None => {
                    let room = self.packet.get_mut(..MAX_TUN_PACKET_LEN).unwrap_or_default();
                    match rustix::io::read(&self.io.tun, room) {
                        Ok(len) => len,
                        Err(Errno::BADFD) => return Err(tun_is_gone()),
                        Err(_) => break,
                    }
                }
            };
            if pipeline.handle_tun_packet(&mut self.packet, len) == Handled::NextIteration {
                self.held = Some(len);
                break;
            }
        }
        // Before the worker looks into its mailbox: what comes later wakes it again.
        self.waker.drain();
        Ok(frames)
    }

    fn tx(&mut self, pipeline: &mut Pipeline) -> io::Result<()> {
        self.xsk.transmit(pipeline);
        self.vectors.fill(pipeline);
        for device in [Device::Tun, Device::Uplink] {
            self.write(pipeline, device);
        }
        for (batch, message) in pipeline.gso_batches().iter().zip(self.vectors.messages()) {
            if batch.is_small {
                continue;
            }
            if batch.datagrams > 1 && !self.gso {
                send_unsegmented(pipeline, self.io, batch);
                continue;
            }
            let Some(socket) = socket_for(self.io, batch) else {
                pipeline.udp_send_done(batch, 0, 0);
                continue;
            };
            // SAFETY: as in [`Syscall::write`].
            let sent = unsafe { send_many(socket, &mut [*message]) };
            let outcome = sent.map(drop).map_err(|error| error_number(&error));
            send_done(pipeline, self.io, batch, outcome, &mut self.gso);
        }
        Ok(())
    }

    fn has_output(&self) -> bool {
        false
    }

    fn has_input(&self) -> bool {
        self.held.is_some() || self.xsk.is_ready()
    }

    fn wait(&mut self, _: &mut Pipeline, timeout: Option<Duration>) -> io::Result<()> {
        let waker = self.waker.as_fd();
        let own = [waker, self.io.tun.as_fd()].into_iter().chain(self.io.udp_sockets());
        let mut fds = [None; MAX_POLL_FDS];
        let all = own.chain(self.xsk.sockets().map(|(_, fd)| fd));
        let count = fds.iter_mut().zip(all).map(|(entry, fd)| *entry = Some(fd)).count();
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd.unwrap_or(waker), PollFlags::IN));
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match poll(fds.get_mut(..count).unwrap_or_default(), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel's error number. 0 for an error that is not the kernel's.
fn error_number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}
