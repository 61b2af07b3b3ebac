//! A worker on plain system calls, for hosts that do not allow io_uring.

#![expect(unsafe_code, reason = "sends what points into the turn's buffers")]

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
            Gather, cannot_cut, refuses_super_packet, send_apart, send_many, socket_for,
            write_apart, write_frame,
        },
        udp::receive_one,
        xsk::XskQueues,
    },
    now::Now,
    pipeline::{FRAME_SLACK, Transmitted},
    worker::{Worker, WorkerIo, tun_is_gone},
};
use weir_packet::virtio::MAX_FRAME_LEN;

/// Super-packets taken from each descriptor before the turn ends.
const BATCH: usize = 8;
/// The waker, the TUN device, two UDP sockets, and those of the direct way.
const MOST_WAITED_FOR: usize = 4 + DIRECT_QUEUES as usize;

/// Runs `worker` on the calling thread until it is told to stop.
///
/// # Errors
///
/// Fails when waiting fails or somebody removed the TUN device, which no packet can cause.
pub(crate) fn run(mut worker: Worker, io: &WorkerIo, mut direct: XskQueues) -> io::Result<()> {
    let mut datagrams = vec![0u8; MAX_UDP_PAYLOAD];
    let mut frame = vec![0u8; MAX_FRAME_LEN + FRAME_SLACK];
    // A frame for which the last turn had no room.
    let mut held: Option<usize> = None;
    let mut gather = Gather::default();
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
                worker.pipeline.receive(received.outer(), payload, segment);
            }
        }
        for _ in 0..BATCH {
            let len = match held.take() {
                Some(len) => len,
                None => match rustix::io::read(&io.tun, &mut frame[..MAX_FRAME_LEN]) {
                    Ok(len) => len,
                    Err(Errno::BADFD) => return Err(tun_is_gone()),
                    Err(_) => break,
                },
            };
            if worker.pipeline.transmit(&mut frame, len) == Transmitted::NextTurn {
                held = Some(len);
                break;
            }
        }
        worker.mailbox().waker().drain();
        let go_on = worker.between();
        worker.pipeline.finish();
        worker.hand_over();
        gather.fill(&worker.pipeline);
        put_out(&mut worker, io, &gather, &mut gso);
        if !go_on {
            return Ok(());
        }
        let at_once = held.is_some() || direct.is_ready();
        let patience = if at_once { Some(Duration::ZERO) } else { worker.patience() };
        wait(&worker, io, &direct, patience)?;
    }
}

fn put_out(worker: &mut Worker, io: &WorkerIo, gather: &Gather, gso: &mut bool) {
    for index in 0..worker.pipeline.frames().len() {
        // SAFETY: `gather` was filled from this turn. What has changed since is frames that were
        // refused, all of them before this one.
        let written = unsafe { write_frame(io.tun.as_fd(), gather.frame(index)) };
        let pipeline = &mut worker.pipeline;
        let Some(frame) = pipeline.frames().get(index) else { break };
        match written.map_err(|error| error.raw_os_error()) {
            Err(Some(error)) if frame.packets > 1 && refuses_super_packet(error) => {
                write_apart(pipeline, io, index);
            }
            written => pipeline.wrote(frame, written.is_ok()),
        }
    }
    let worker = &*worker;
    let pipeline = &worker.pipeline;
    let mut next = 0;
    while let (Some(run), Some(message)) = (pipeline.runs().get(next), gather.messages().get(next))
    {
        next += 1;
        if run.datagrams > 1 && !*gso {
            send_apart(worker, io, run);
            continue;
        }
        let Some(socket) = socket_for(io, run) else {
            pipeline.sent(run, 0, 0);
            continue;
        };
        // SAFETY: as above.
        match unsafe { send_many(socket, &mut [*message]) } {
            Ok(_) => pipeline.sent(run, run.datagrams, run.bytes),
            Err(error) => match error.raw_os_error() {
                Some(error) if run.datagrams > 1 && cannot_cut(error) => {
                    if error == libc::EIO {
                        *gso = false;
                        pipeline.stats().without.udp_segmentation.store(true, Relaxed);
                    }
                    send_apart(worker, io, run);
                }
                _ => pipeline.sent(run, 0, 0),
            },
        }
    }
}

fn wait(
    worker: &Worker,
    io: &WorkerIo,
    direct: &XskQueues,
    patience: Option<Duration>,
) -> io::Result<()> {
    let waker: BorrowedFd<'_> = worker.mailbox().waker().as_fd();
    let own = [Some(waker), Some(io.tun.as_fd()), Some(io.sockets.v4.as_fd())];
    let v6 = io.sockets.v6.as_ref().map(AsFd::as_fd);
    let mut fds = [None; MOST_WAITED_FOR];
    let all = own.into_iter().flatten().chain(v6).chain(direct.sockets().map(|(_, fd)| fd));
    let count = fds.iter_mut().zip(all).map(|(place, fd)| *place = Some(fd)).count();
    let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd.unwrap_or(waker), PollFlags::IN));
    let timeout = patience.map(|patience| Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: i64::from(patience.subsec_nanos()),
    });
    match poll(&mut fds[..count], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
