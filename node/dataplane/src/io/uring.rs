//! The io_uring backend: one ring, and one system call per iteration unless it writes much.
//!
//! Multishot receives and reads fill buffers that the kernel picks from a group. All output of an
//! iteration is submitted together. On kernels without multishot reads (before 6.7), several single
//! reads are in flight.

#![expect(unsafe_code, reason = "submits operations that point into our buffers")]

mod operation;
mod probe;

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec},
};
use tracing::debug;

use self::operation::{Kind, TUN, UPLINK, V4, V6, WAKER, read};

use crate::{
    io::{
        Backend, WorkerIo,
        buf_ring::BufferRing,
        cmsg::{MAX_UDP_PAYLOAD, NAME, RECEIVE_CONTROL, Received},
        tun_is_gone,
        tx::{
            SendVectors, empty_header, send_done, send_unsegmented, write_done, write_unsegmented,
        },
        xsk::XskQueues,
    },
    now::Now,
    pipeline::{Handled, Pipeline, TAILROOM, outlet::Device},
    waker::Waker,
};
use weir_packet::virtio::MAX_TUN_PACKET_LEN;

/// The number of buffers in a group. More of them would only displace other data from the cache.
const BUFFERS: u16 = 8;
/// The size of a receive buffer in bytes: `struct io_uring_recvmsg_out`, the address, the ancillary
/// data, and the payload.
const RECEIVE_LEN: usize = (16 + NAME + RECEIVE_CONTROL + MAX_UDP_PAYLOAD).next_multiple_of(64);
/// The number of single reads in flight, so that one system call reads several waiting packets.
const SINGLE_READS: usize = 4;
const UDP_GROUP: u16 = 0;
const TUN_GROUP: u16 = 1;
/// The maximum number of writes that one system call submits. Each write passes forwarding and NAT
/// before the next begins. Meanwhile the kernel runs no other thread on this core, not even the one
/// that receives from the NIC: with more writes the NIC's ring overflows.
const MAX_WRITES_PER_SUBMIT: usize = 16;
/// The delay before a failed receive begins again.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// The size of the submission queue.
const ENTRIES: u32 = 1024;
/// The size of the completion queue.
const COMPLETIONS: u32 = 4096;

/// How the TUN device is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// By one multishot operation (Linux 6.7).
    Multishot,
    /// By several operations, each of which begins again when it has read a packet.
    Single,
}

/// Tries out how this process may use io_uring.
///
/// # Errors
///
/// Returns what is missing.
pub fn probe() -> io::Result<Reads> {
    if !probe::receives()? {
        let problem = "the kernel has no multishot receive (Linux 6.0)";
        return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
    }
    if probe::reads(Reads::Multishot)? {
        return Ok(Reads::Multishot);
    }
    if probe::reads(Reads::Single)? {
        return Ok(Reads::Single);
    }
    let problem = "the kernel reads into no buffer of a ring (Linux 5.19)";
    Err(io::Error::new(io::ErrorKind::Unsupported, problem))
}

fn build() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(ENTRIES)
}

/// A buffer that was filled, and is not processed yet.
#[derive(Clone, Copy)]
struct Arrival {
    kind: Kind,
    buffer: u16,
    len: usize,
}

/// The backend.
pub(crate) struct Uring<'a> {
    // Dropped in this order: the kernel lets go of the buffers when the ring is gone.
    ring: IoUring,
    udp: BufferRing,
    tun: BufferRing,
    io: &'a WorkerIo,
    waker: &'a Waker,
    xsk: XskQueues,
    vectors: SendVectors,
    /// The lengths of names and ancillary data, which the kernel reads when a multishot receive
    /// begins.
    template: Box<libc::msghdr>,
    arrivals: VecDeque<Arrival>,
    in_flight: usize,
    /// Operations that have ended and must begin again.
    to_arm: Vec<(Kind, usize)>,
    /// Those that have failed, which begin again after [`RETRY_DELAY`].
    to_retry: Vec<(Kind, usize)>,
    reads: Reads,
    /// The super-packets of this iteration that their device refused, as indexes.
    refused: Vec<(Device, usize)>,
    /// Whether the kernel can segment on the way out. A device without checksum offload cannot.
    gso: bool,
    tun_is_gone: bool,
}

impl<'a> Uring<'a> {
    /// Sets up the ring, on the thread that will use it.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the ring or the memory.
    pub(crate) fn new(
        io: &'a WorkerIo,
        waker: &'a Waker,
        xsk: XskQueues,
        reads: Reads,
    ) -> io::Result<Self> {
        let ring = build()?;
        let v6 = io.sockets.v6.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let uplink = io.uplink.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let waker_fd = waker.as_fd().as_raw_fd();
        let files = [io.sockets.v4.as_raw_fd(), v6, io.tun.as_raw_fd(), waker_fd, uplink];
        ring.submitter().register_files(&files)?;
        // Older kernels do without.
        ring.submitter().register_ring_fd().ok();
        let udp = BufferRing::new(BUFFERS, RECEIVE_LEN, 0)?;
        let tun = BufferRing::new(BUFFERS, MAX_TUN_PACKET_LEN, TAILROOM)?;
        // SAFETY: both live in the same struct as the ring, which is dropped before them.
        unsafe {
            udp.register(&ring, UDP_GROUP)?;
            tun.register(&ring, TUN_GROUP)?;
        }
        let mut template = Box::new(empty_header());
        template.msg_namelen = NAME as u32;
        template.msg_controllen = RECEIVE_CONTROL;
        let mut to_arm = vec![(Kind::ReceiveV4, 0), (Kind::Waker, 0)];
        to_arm.extend(
            match reads {
                Reads::Multishot => 0..1,
                Reads::Single => 0..SINGLE_READS,
            }
            .map(|index| (Kind::Read, index)),
        );
        if v6 >= 0 {
            to_arm.push((Kind::ReceiveV6, 0));
        }
        to_arm.extend((0..xsk.sockets().count()).map(|index| (Kind::Xsk, index)));
        Ok(Self {
            ring,
            udp,
            tun,
            io,
            waker,
            xsk,
            vectors: SendVectors::default(),
            template,
            arrivals: VecDeque::with_capacity(4 * usize::from(BUFFERS)),
            in_flight: 0,
            to_arm,
            to_retry: Vec::new(),
            reads,
            refused: Vec::new(),
            gso: true,
            tun_is_gone: false,
        })
    }

    /// Begins the operations that have ended.
    fn arm(&mut self) -> io::Result<()> {
        while let Some((kind, index)) = self.to_arm.pop() {
            let template = &raw const *self.template;
            let entry = match kind {
                Kind::ReceiveV4 => opcode::RecvMsgMulti::new(V4, template, UDP_GROUP).build(),
                Kind::ReceiveV6 => opcode::RecvMsgMulti::new(V6, template, UDP_GROUP).build(),
                // Not as a registered file: the kernel (6.18) returns EBADFD for a TUN queue.
                Kind::Read => {
                    let tun = Fd(self.io.tun.as_raw_fd());
                    read(self.reads, tun, MAX_TUN_PACKET_LEN, TUN_GROUP)
                }
                Kind::Xsk => {
                    let Some((_, socket)) = self.xsk.sockets().nth(index) else { continue };
                    let socket = Fd(socket.as_raw_fd());
                    opcode::PollAdd::new(socket, libc::POLLIN as u32).multi(true).build()
                }
                Kind::Waker | Kind::Write | Kind::Send | Kind::Uplink => {
                    opcode::PollAdd::new(WAKER, libc::POLLIN as u32).multi(true).build()
                }
            };
            // SAFETY: the template lives as long as the ring and is never written; the buffers
            // are registered.
            unsafe { self.push(&entry.user_data(kind.tag(index)))? };
        }
        Ok(())
    }

    /// Queues the writes and sends of the finished iteration.
    fn submit_tx(&mut self, pipeline: &Pipeline) -> io::Result<()> {
        self.vectors.fill(pipeline);
        for (device, file, kind) in
            [(Device::Tun, TUN, Kind::Write), (Device::Uplink, UPLINK, Kind::Uplink)]
        {
            for (index, packet) in pipeline.packets(device).iter().enumerate() {
                if packet.is_small {
                    continue;
                }
                let iov = self.vectors.packet(device, index);
                let (first, count) = (iov.as_ptr(), iov.len() as u32);
                let entry = opcode::Writev::new(file, first, count).build();
                debug_assert!(packet.packets > 0, "a packet has a packet in it");
                // SAFETY: the vectors and what they point to stay until the iteration's completions
                // are all processed, before the next iteration begins.
                unsafe { self.push(&entry.user_data(kind.tag(index)))? };
                self.in_flight += 1;
                if index % MAX_WRITES_PER_SUBMIT == MAX_WRITES_PER_SUBMIT - 1 {
                    self.ring.submit()?;
                }
            }
        }
        for (index, batch) in pipeline.gso_batches().iter().enumerate() {
            if batch.is_small {
                continue;
            }
            if batch.datagrams > 1 && !self.gso {
                send_unsegmented(pipeline, self.io, batch);
                continue;
            }
            let Some(message) = self.vectors.messages().get(index) else { continue };
            let file = if batch.to.remote.is_ipv6() { V6 } else { V4 };
            let entry = opcode::SendMsg::new(file, &raw const message.msg_hdr)
                .flags(libc::MSG_DONTWAIT as u32)
                .build();
            // SAFETY: as above, for the message and everything that it points to.
            unsafe { self.push(&entry.user_data(Kind::Send.tag(index)))? };
            self.in_flight += 1;
        }
        Ok(())
    }

    /// Queues an operation. Submits what is queued if there is no room.
    ///
    /// # Safety
    ///
    /// What the operation points to must live until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: by the caller.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    /// Submits what is queued, and waits for `want` completions or for `timeout`.
    fn enter(&self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            Some(Duration::ZERO) => self.ring.submitter().submit_and_wait(0),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(want, &args)
            }
            None => self.ring.submitter().submit_and_wait(want),
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Interrupted, timed out, or completions must be processed first.
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Processes all completions: reports output to the pipeline, and notes what has arrived.
    fn process_completions(&mut self, pipeline: &Pipeline) {
        let Self {
            ring,
            arrivals,
            in_flight,
            to_arm,
            to_retry,
            refused,
            gso,
            io,
            waker,
            tun_is_gone,
            ..
        } = self;
        for completion in ring.completion() {
            let (flags, result) = (completion.flags(), completion.result());
            let Some((kind, index)) = Kind::of(completion.user_data()) else { continue };
            let outcome = if result >= 0 { Ok(()) } else { Err(-result) };
            match kind {
                Kind::Write | Kind::Uplink => {
                    *in_flight -= 1;
                    let device = if kind == Kind::Write { Device::Tun } else { Device::Uplink };
                    let Some(packet) = pipeline.packets(device).get(index) else { continue };
                    if !write_done(pipeline, device, packet, outcome) {
                        refused.push((device, index));
                    }
                }
                Kind::Send => {
                    *in_flight -= 1;
                    let Some(batch) = pipeline.gso_batches().get(index) else { continue };
                    send_done(pipeline, io, batch, outcome, gso);
                }
                // What has arrived is in the socket's own ring.
                Kind::Xsk if result < 0 => {
                    debug!(?kind, error = -result, "waiting failed");
                    to_retry.push((kind, index));
                }
                Kind::Waker | Kind::Xsk => {
                    if kind == Kind::Waker {
                        waker.drain();
                    }
                    if !cqueue::more(flags) {
                        to_arm.push((kind, index));
                    }
                }
                Kind::ReceiveV4 | Kind::ReceiveV6 | Kind::Read => {
                    if let (Some(buffer), Ok(len)) =
                        (cqueue::buffer_select(flags), usize::try_from(result))
                    {
                        arrivals.push_back(Arrival { kind, buffer, len });
                    } else if -result != libc::ENOBUFS {
                        *tun_is_gone |= kind == Kind::Read && -result == libc::EBADFD;
                        // At debug level, because ICMP errors of consumers end up here too.
                        debug!(?kind, error = -result, "a receive failed");
                        to_retry.push((kind, index));
                        continue;
                    }
                    if !cqueue::more(flags) {
                        to_arm.push((kind, index));
                    }
                }
            }
        }
    }
}

impl Backend for Uring<'_> {
    fn rx(&mut self, pipeline: &mut Pipeline) -> io::Result<u32> {
        let frames = self.xsk.take(pipeline);
        while let Some(arrival) = self.arrivals.pop_front() {
            match arrival.kind {
                Kind::ReceiveV4 | Kind::ReceiveV6 => {
                    // SAFETY: a completion handed over this buffer, and is processed only once.
                    let filled = unsafe { self.udp.filled(arrival.buffer) };
                    receive(
                        pipeline,
                        filled.get(..arrival.len).unwrap_or_default(),
                        &self.template,
                    );
                }
                Kind::Read => {
                    // SAFETY: as above, or it was kept.
                    let mut filled = unsafe { self.tun.filled(arrival.buffer) };
                    let handled = pipeline.handle_tun_packet(&mut filled, arrival.len);
                    if handled == Handled::NextIteration {
                        filled.keep();
                        self.arrivals.push_front(arrival);
                        break;
                    }
                }
                Kind::Waker | Kind::Write | Kind::Send | Kind::Xsk | Kind::Uplink => {}
            }
        }
        Ok(frames)
    }

    fn tx(&mut self, pipeline: &mut Pipeline) -> io::Result<()> {
        self.arm()?;
        self.xsk.transmit(pipeline);
        self.submit_tx(pipeline)
    }

    fn has_output(&self) -> bool {
        self.in_flight > 0
    }

    fn has_input(&self) -> bool {
        !self.arrivals.is_empty() || self.xsk.is_ready()
    }

    fn wait(&mut self, pipeline: &mut Pipeline, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            // The kernel takes output at once.
            _ if self.in_flight > 0 => None,
            timeout if self.to_retry.is_empty() => timeout,
            timeout => Some(timeout.map_or(RETRY_DELAY, |timeout| timeout.min(RETRY_DELAY))),
        };
        self.to_arm.append(&mut self.to_retry);
        let begun = (self.in_flight > 0).then(|| Now::read().nanos);
        self.enter(self.in_flight.max(1), timeout)?;
        self.process_completions(pipeline);
        while self.in_flight > 0 {
            self.enter(1, None)?;
            self.process_completions(pipeline);
        }
        // The kernel has no output of the iteration any more.
        if let Some(begun) = begun {
            pipeline.large_took(Now::read().nanos - begun);
        }
        for (device, index) in self.refused.drain(..) {
            write_unsegmented(pipeline, self.io, device, index);
        }
        if self.tun_is_gone {
            self.close()?;
            return Err(tun_is_gone());
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.ring.submitter().register_sync_cancel(None, CancelBuilder::any())
    }
}

/// Hands a filled receive buffer to the pipeline.
fn receive(pipeline: &mut Pipeline, bytes: &[u8], template: &libc::msghdr) {
    let Ok(message) = RecvMsgOut::parse(bytes, template) else { return };
    let payload = message.payload_data();
    let Some(received) = Received::parse(message.name_data(), message.control_data()) else {
        return;
    };
    if message.is_payload_truncated() {
        pipeline.stats().refuse(weir_common::DropReason::Truncated);
        return;
    }
    let segment = received.segment.unwrap_or(payload.len());
    pipeline.handle_udp_batch(received.outer(), payload, segment);
}
