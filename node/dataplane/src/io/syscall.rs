//! A worker on plain system calls, for hosts that do not allow io_uring.

#![expect(unsafe_code, reason = "sends what points into the iteration's buffers")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use weir_common::direct::DIRECT_QUEUES;

use crate::{
    io::{
        cmsg::MAX_UDP_PAYLOAD,
        tx::{
            SendVectors, is_segmentation_error, refuses_super_packet, send_many, send_unsegmented,
            socket_for, write_frame, write_unsegmented,
        },
        udp::receive_one,
        xsk::XskQueues,
    },
    now::Now,
    pipeline::{Handled, TAILROOM},
    worker::{Worker, WorkerIo, tun_is_gone},
};
use weir_packet::virtio::MAX_TUN_PACKET_LEN;

/// Super-packets taken from each descriptor before the iteration ends.
const BATCH: usize = 8;
/// The waker, the TUN device, two UDP sockets, and those of the direct way.
const MAX_POLL_FDS: usize = 4 + DIRECT_QUEUES as usize;

/// GsoBatches `worker` on the calling thread until it is told to stop.
///
/// # Errors
///
/// Fails when waiting fails or somebody removed the TUN device, which no packet can cause.
pub(crate) fn run(mut worker: Worker, io: &WorkerIo, mut direct: XskQueues) -> io::Result<()> {
    let mut datagrams = vec![0u8; MAX_UDP_PAYLOAD];
    let mut frame = vec![0u8; MAX_TUN_PACKET_LEN + TAILROOM];
    // A frame for which the last iteration had no room.
    let mut held: Option<usize> = None;
    let mut vectors = SendVectors::default();
    let mut gso = true;
    loop {
        worker.begin(Now::read());
        direct.take(&mut worker.pipeline);
        for socket in [Some(io.sockets.v4.as_fd()), io.sockets.v6.as_ref().map(AsFd::as_fd)] {
            let Some(socket) = socket else { continue };
            for _ in 0..BATCH {
                let Some((len, received)) = receive_one(socket, &mut datagrams) else { break };
                let payload = datagrams.get(..len).unwrap_or_default();
                let segment = received.segment.unwrap_or(len);
                worker.pipeline.handle_udp_batch(received.outer(), payload, segment);
            }
        }
        for _ in 0..BATCH {
            let len = match held.take() {
                Some(len) => len,
                None => match rustix::io::read(&io.tun, &mut frame[..MAX_TUN_PACKET_LEN]) {
                    Ok(len) => len,
                    Err(Errno::BADFD) => return Err(tun_is_gone()),
                    Err(_) => break,
                },
            };
            if worker.pipeline.handle_tun_packet(&mut frame, len) == Handled::NextIteration {
                held = Some(len);
                break;
            }
        }
        worker.mailbox().waker().drain();
        let go_on = worker.process_commands();
        worker.pipeline.finish();
        worker.hand_over();
        vectors.fill(&worker.pipeline);
        submit_tx(&mut worker, io, &vectors, &mut gso);
        if !go_on {
            return Ok(());
        }
        let at_once = held.is_some() || direct.is_ready();
        let timeout = if at_once { Some(Duration::ZERO) } else { worker.timeout() };
        wait(&worker, io, &direct, timeout)?;
    }
}

fn submit_tx(worker: &mut Worker, io: &WorkerIo, vectors: &SendVectors, gso: &mut bool) {
    for index in 0..worker.pipeline.tun_packets().len() {
        // SAFETY: `vectors` was filled from this iteration. What has changed since is frames that were
        // refused, all of them before this one.
        let written = unsafe { write_frame(io.tun.as_fd(), vectors.frame(index)) };
        let pipeline = &mut worker.pipeline;
        let Some(frame) = pipeline.tun_packets().get(index) else { break };
        match written.map_err(|error| error.raw_os_error()) {
            Err(Some(error)) if frame.packets > 1 && refuses_super_packet(error) => {
                write_unsegmented(pipeline, io, index);
            }
            written => pipeline.tun_write_done(frame, written.is_ok()),
        }
    }
    let worker = &*worker;
    let pipeline = &worker.pipeline;
    let mut next = 0;
    while let (Some(batch), Some(message)) =
        (pipeline.gso_batches().get(next), vectors.messages().get(next))
    {
        next += 1;
        if batch.datagrams > 1 && !*gso {
            send_unsegmented(worker, io, batch);
            continue;
        }
        let Some(socket) = socket_for(io, batch) else {
            pipeline.udp_send_done(batch, 0, 0);
            continue;
        };
        // SAFETY: as above.
        match unsafe { send_many(socket, &mut [*message]) } {
            Ok(_) => pipeline.udp_send_done(batch, batch.datagrams, batch.bytes),
            Err(error) => match error.raw_os_error() {
                Some(error) if batch.datagrams > 1 && is_segmentation_error(error) => {
                    if error == libc::EIO {
                        *gso = false;
                        pipeline.stats().without.udp_segmentation.store(true, Relaxed);
                    }
                    send_unsegmented(worker, io, batch);
                }
                _ => pipeline.udp_send_done(batch, 0, 0),
            },
        }
    }
}

fn wait(
    worker: &Worker,
    io: &WorkerIo,
    direct: &XskQueues,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let waker: BorrowedFd<'_> = worker.mailbox().waker().as_fd();
    let own = [Some(waker), Some(io.tun.as_fd()), Some(io.sockets.v4.as_fd())];
    let v6 = io.sockets.v6.as_ref().map(AsFd::as_fd);
    let mut fds = [None; MAX_POLL_FDS];
    let all = own.into_iter().flatten().chain(v6).chain(direct.sockets().map(|(_, fd)| fd));
    let count = fds.iter_mut().zip(all).map(|(place, fd)| *place = Some(fd)).count();
    let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd.unwrap_or(waker), PollFlags::IN));
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match poll(&mut fds[..count], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
