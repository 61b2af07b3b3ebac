//! A worker on io_uring: one ring, one system call a iteration unless it writes much. Multishot receives
//! and reads fill buffers that the kernel picks; the frames and batches of a iteration go out together.
//! Where the kernel has no multishot reads (before 6.7), several single ones are kept under way.

#![expect(unsafe_code, reason = "submits operations that point into our buffers")]

mod probe;

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{CancelBuilder, Fd, Fixed, RecvMsgOut, SubmitArgs, Timespec},
};
use tracing::debug;

use crate::{
    io::{
        buf_ring::BufferRing,
        cmsg::{MAX_UDP_PAYLOAD, NAME, RECEIVE_CONTROL, Received},
        tx::{
            SendVectors, empty_header, is_segmentation_error, refuses_super_packet,
            send_unsegmented, write_unsegmented,
        },
        xsk::XskQueues,
    },
    now::Now,
    pipeline::{Handled, TAILROOM},
    worker::{Worker, WorkerIo, tun_is_gone},
};
use weir_packet::virtio::MAX_TUN_PACKET_LEN;

/// Few and large: more of them only make the cache cold.
const BUFFERS: u16 = 8;
/// Of a receive: `struct io_uring_recvmsg_out`, the address, what is said about the payload, and
/// that.
const RECEIVE_LEN: usize = (16 + NAME + RECEIVE_CONTROL + MAX_UDP_PAYLOAD).next_multiple_of(64);
/// Single reads that are under way at once: what waits at the device is read in one system call.
const SINGLE_READS: usize = 4;
const UDP_GROUP: u16 = 0;
const TUN_GROUP: u16 = 1;
/// Writes that one system call submits. Each goes through forwarding and NAT before the next begins,
/// and meanwhile the kernel lets no thread onto this core, not even the one that receives: with
/// more of them its ring overflows.
const MAX_WRITES_PER_SUBMIT: usize = 16;
/// How long a failed receive rests before it is begun again.
const RETRY_DELAY: Duration = Duration::from_millis(50);
const ENTRIES: u32 = 1024;
const COMPLETIONS: u32 = 4096;

/// Registered descriptors.
const V4: Fixed = Fixed(0);
const V6: Fixed = Fixed(1);
const TUN: Fixed = Fixed(2);
const WAKER: Fixed = Fixed(3);

/// What a completion is of, in the upper half of its user data; the lower half is an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    ReceiveV4 = 1,
    ReceiveV6 = 2,
    Read = 3,
    Waker = 4,
    Write = 5,
    Send = 6,
    Direct = 7,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::ReceiveV4,
        Self::ReceiveV6,
        Self::Read,
        Self::Waker,
        Self::Write,
        Self::Send,
        Self::Direct,
    ];

    fn tag(self, index: usize) -> u64 {
        (self as u64) << 32 | index as u64 & 0xffff_ffff
    }

    fn of(user_data: u64) -> Option<(Self, usize)> {
        let kind = Self::ALL.into_iter().find(|kind| *kind as u64 == user_data >> 32)?;
        Some((kind, (user_data & 0xffff_ffff) as usize))
    }
}

/// How the TUN device is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// By one operation that goes on (Linux 6.7).
    Multishot,
    /// By several that are begun anew, each when it has brought a frame.
    Single,
}

/// How this process may use io_uring, by trying it out.
///
/// # Errors
///
/// Says what is missing.
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

/// A buffer that came, not yet looked at.
#[derive(Clone, Copy)]
struct Arrival {
    kind: Kind,
    buffer: u16,
    len: usize,
}

struct Uring<'a> {
    // Dropped in this order: the kernel lets go of the buffers when the ring is gone.
    ring: IoUring,
    udp: BufferRing,
    tun: BufferRing,
    io: &'a WorkerIo,
    direct: XskQueues,
    vectors: SendVectors,
    /// The names and lengths that multishot receives are told once.
    template: Box<libc::msghdr>,
    arrivals: VecDeque<Arrival>,
    in_flight: usize,
    /// Multishot operations that have ended and must be begun again.
    to_arm: Vec<(Kind, usize)>,
    reads: Reads,
    /// Frames of this iteration that the TUN device refused as super-packets.
    refused: Vec<usize>,
    /// Those of them that failed, which must not be begun again at once.
    resting: Vec<(Kind, usize)>,
    /// Whether the kernel can cut batches on the way out; a device without checksum offload cannot.
    gso: bool,
    tun_is_gone: bool,
}

/// GsoBatches `worker` on the calling thread until it is told to stop.
///
/// # Errors
///
/// Fails when the ring cannot be set up, waiting fails, or somebody removed the TUN device; no
/// packet can cause any of these.
pub(crate) fn run(
    mut worker: Worker,
    io: &WorkerIo,
    direct: XskQueues,
    reads: Reads,
) -> io::Result<()> {
    let mut uring = Uring::new(&worker, io, direct, reads)?;
    loop {
        worker.begin(Now::read());
        uring.direct.take(&mut worker.pipeline);
        uring.process_completions(&mut worker);
        let go_on = worker.process_commands();
        worker.pipeline.finish();
        worker.hand_over();
        uring.arm()?;
        uring.submit_tx(&worker)?;
        if !go_on && uring.in_flight == 0 {
            return uring.close();
        }
        // The iteration's buffers may be used again once all that was put out has been taken.
        let timeout = match worker.timeout() {
            _ if !go_on || uring.has_arrivals() => Some(Duration::ZERO),
            timeout if uring.resting.is_empty() => timeout,
            timeout => Some(timeout.map_or(RETRY_DELAY, |timeout| timeout.min(RETRY_DELAY))),
        };
        uring.to_arm.append(&mut uring.resting);
        uring.enter(uring.in_flight.max(1), if uring.in_flight > 0 { None } else { timeout })?;
        uring.collect(&mut worker);
        while uring.in_flight > 0 {
            uring.enter(1, None)?;
            uring.collect(&mut worker);
        }
        // Nothing of the iteration is in the kernel's hands any more.
        for frame in uring.refused.drain(..) {
            write_unsegmented(&mut worker.pipeline, io, frame);
        }
        if uring.tun_is_gone {
            uring.close()?;
            return Err(tun_is_gone());
        }
    }
}

impl<'a> Uring<'a> {
    fn new(worker: &Worker, io: &'a WorkerIo, direct: XskQueues, reads: Reads) -> io::Result<Self> {
        let ring = build()?;
        let v6 = io.sockets.v6.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let waker = worker.mailbox().waker().as_fd().as_raw_fd();
        let files = [io.sockets.v4.as_raw_fd(), v6, io.tun.as_raw_fd(), waker];
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
        to_arm.extend((0..direct.sockets().count()).map(|index| (Kind::Direct, index)));
        Ok(Self {
            ring,
            udp,
            tun,
            io,
            direct,
            vectors: SendVectors::default(),
            template,
            arrivals: VecDeque::with_capacity(4 * usize::from(BUFFERS)),
            in_flight: 0,
            to_arm,
            reads,
            refused: Vec::new(),
            resting: Vec::new(),
            gso: true,
            tun_is_gone: false,
        })
    }

    /// Makes the kernel let go of the buffers.
    fn close(self) -> io::Result<()> {
        self.ring.submitter().register_sync_cancel(None, CancelBuilder::any())
    }

    /// Whether there is something for the next iteration.
    fn has_arrivals(&self) -> bool {
        !self.arrivals.is_empty() || self.direct.is_ready()
    }

    /// Hands what has arrived to the pipeline, as far as this iteration has room.
    fn process_completions(&mut self, worker: &mut Worker) {
        while let Some(arrival) = self.arrivals.pop_front() {
            match arrival.kind {
                Kind::ReceiveV4 | Kind::ReceiveV6 => {
                    let filled = self.udp.filled(arrival.buffer);
                    let bytes = filled.get(..arrival.len).unwrap_or_default();
                    receive(worker, bytes, &self.template);
                    self.udp.give_back(arrival.buffer);
                }
                Kind::Read => {
                    let filled = self.tun.filled(arrival.buffer);
                    if worker.pipeline.handle_tun_packet(filled, arrival.len)
                        == Handled::NextIteration
                    {
                        self.arrivals.push_front(arrival);
                        return;
                    }
                    self.tun.give_back(arrival.buffer);
                }
                Kind::Waker | Kind::Write | Kind::Send | Kind::Direct => {}
            }
        }
    }

    /// Begins the receives and reads that have ended.
    fn arm(&mut self) -> io::Result<()> {
        while let Some((kind, index)) = self.to_arm.pop() {
            let template = &raw const *self.template;
            let entry = match kind {
                Kind::ReceiveV4 => opcode::RecvMsgMulti::new(V4, template, UDP_GROUP).build(),
                Kind::ReceiveV6 => opcode::RecvMsgMulti::new(V6, template, UDP_GROUP).build(),
                // Not as a registered file: for these, the kernel (6.18) says EBADFD.
                Kind::Read => {
                    let tun = Fd(self.io.tun.as_raw_fd());
                    read(self.reads, tun, MAX_TUN_PACKET_LEN, TUN_GROUP)
                }
                Kind::Direct => {
                    let Some((_, socket)) = self.direct.sockets().nth(index) else { continue };
                    let socket = Fd(socket.as_raw_fd());
                    opcode::PollAdd::new(socket, libc::POLLIN as u32).multi(true).build()
                }
                Kind::Waker | Kind::Write | Kind::Send => {
                    opcode::PollAdd::new(WAKER, libc::POLLIN as u32).multi(true).build()
                }
            };
            // SAFETY: the template lives as long as the ring and is never written; the buffers
            // are registered.
            unsafe { self.push(&entry.user_data(kind.tag(index)))? };
        }
        Ok(())
    }

    /// Queues the finished iteration's frames and batches.
    fn submit_tx(&mut self, worker: &Worker) -> io::Result<()> {
        let pipeline = &worker.pipeline;
        self.vectors.fill(pipeline);
        for (index, frame) in pipeline.tun_packets().iter().enumerate() {
            let pieces = self.vectors.frame(index);
            let (first, count) = (pieces.as_ptr(), pieces.len() as u32);
            let entry = opcode::Writev::new(TUN, first, count).build();
            debug_assert!(frame.packets > 0, "a frame has a packet");
            // SAFETY: the pieces and what they point to stay until the iteration's completions are all
            // collected, before the next iteration begins.
            unsafe { self.push(&entry.user_data(Kind::Write.tag(index)))? };
            self.in_flight += 1;
            if index % MAX_WRITES_PER_SUBMIT == MAX_WRITES_PER_SUBMIT - 1 {
                self.ring.submit()?;
            }
        }
        for (index, batch) in pipeline.gso_batches().iter().enumerate() {
            if batch.datagrams > 1 && !self.gso {
                send_unsegmented(worker, self.io, batch);
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

    /// Queues an operation; submits what is queued when there is no room.
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
                // Interrupted, timed out, or completions are waiting to be collected first.
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Collects all completions: of what was put out to the pipeline's counts, of what arrived to
    /// the list.
    fn collect(&mut self, worker: &mut Worker) {
        let Self {
            ring, arrivals, in_flight, to_arm, resting, refused, gso, io, tun_is_gone, ..
        } = self;
        for completion in ring.completion() {
            let (flags, result) = (completion.flags(), completion.result());
            let Some((kind, index)) = Kind::of(completion.user_data()) else { continue };
            let pipeline = &worker.pipeline;
            match kind {
                Kind::Write => {
                    *in_flight -= 1;
                    let Some(frame) = pipeline.tun_packets().get(index) else { continue };
                    if frame.packets > 1 && refuses_super_packet(-result) {
                        refused.push(index);
                    } else {
                        pipeline.tun_write_done(frame, result >= 0);
                    }
                }
                Kind::Send => {
                    *in_flight -= 1;
                    let Some(batch) = pipeline.gso_batches().get(index) else { continue };
                    match -result {
                        ..=0 => pipeline.udp_send_done(batch, batch.datagrams, batch.bytes),
                        error if batch.datagrams > 1 && is_segmentation_error(error) => {
                            // EIO: the device cannot do it at all. EINVAL, EMSGSIZE: not to there.
                            if error == libc::EIO {
                                *gso = false;
                                pipeline.stats().without.udp_segmentation.store(true, Relaxed);
                            }
                            send_unsegmented(worker, io, batch);
                        }
                        _ => pipeline.udp_send_done(batch, 0, 0),
                    }
                }
                // What came is in the socket's own ring.
                Kind::Direct if result < 0 => {
                    debug!(?kind, error = -result, "waiting failed");
                    resting.push((kind, index));
                }
                Kind::Waker | Kind::Direct => {
                    if kind == Kind::Waker {
                        worker.mailbox().waker().drain();
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
                        // Not for every packet: ICMP errors come this way, too.
                        debug!(?kind, error = -result, "a receive failed");
                        resting.push((kind, index));
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

/// Reads into a buffer that the kernel takes from a group.
fn read(reads: Reads, file: Fd, len: usize, group: u16) -> squeue::Entry {
    match reads {
        Reads::Multishot => opcode::ReadMulti::new(file, 0, group).build(),
        Reads::Single => opcode::Read::new(file, std::ptr::null_mut(), len as u32)
            .buf_group(group)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT),
    }
}

fn receive(worker: &mut Worker, bytes: &[u8], template: &libc::msghdr) {
    let Ok(message) = RecvMsgOut::parse(bytes, template) else { return };
    let payload = message.payload_data();
    let Some(received) = Received::parse(message.name_data(), message.control_data()) else {
        return;
    };
    if message.is_payload_truncated() {
        worker.pipeline.stats().refuse(weir_common::DropReason::Truncated);
        return;
    }
    let segment = received.segment.unwrap_or(payload.len());
    worker.pipeline.handle_udp_batch(received.outer(), payload, segment);
}
