//! Output: the vectors of a finished iteration, and what to do without segmentation offloads.
//!
//! The kernel segments a super-packet written to the TUN device (GSO, by the virtio header) and a
//! message with several datagrams (`UDP_SEGMENT`, net/ipv4/udp_offload.c). Some devices and routes
//! cannot. Then the packets go out one by one.

#![expect(unsafe_code, reason = "hands pointers to the kernel")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::atomic::Ordering::Relaxed,
};

use super::{WorkerIo, cmsg::SendHeader};
use crate::pipeline::{Pipeline, gso_batch::GsoBatch, outlet::Device};
use weir_packet::gro::TunPacket;

/// A message header without name, vectors and ancillary data.
#[must_use]
pub(super) fn empty_header() -> libc::msghdr {
    // SAFETY: all of its fields are integers and pointers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

pub(super) fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// The vectors and messages of one iteration's output. The pointers in them are valid until the next
/// [`SendVectors::fill`] or the pipeline's next iteration.
#[derive(Default)]
pub(super) struct SendVectors {
    vectors: Vec<libc::iovec>,
    headers: Vec<SendHeader>,
    messages: Vec<libc::mmsghdr>,
    /// The first vector and the number of vectors of each TUN packet.
    tun_packets: Vec<(u32, u32)>,
    /// The first vector and the number of vectors of each frame for the uplink.
    uplink_packets: Vec<(u32, u32)>,
}

impl SendVectors {
    /// Gathers the TUN packets and GSO batches of a finished iteration.
    pub(super) fn fill(&mut self, pipeline: &Pipeline) {
        self.vectors.clear();
        self.headers.clear();
        self.messages.clear();
        self.tun_packets.clear();
        self.uplink_packets.clear();
        for (device, ranges) in
            [(Device::Tun, &mut self.tun_packets), (Device::Uplink, &mut self.uplink_packets)]
        {
            for packet in pipeline.packets(device) {
                let first = self.vectors.len();
                if !packet.is_small {
                    self.vectors.extend(pipeline.packet_bytes(device, packet).map(iovec));
                }
                ranges.push((first as u32, (self.vectors.len() - first) as u32));
            }
        }
        let mut first = self.vectors.len();
        for batch in pipeline.gso_batches().iter().filter(|batch| !batch.is_small) {
            self.vectors.extend(pipeline.gso_batch_bytes(batch).map(iovec));
            let segment = (batch.datagrams > 1).then_some(batch.segment);
            self.headers.push(SendHeader::new(&batch.to, segment, batch.ecn));
        }
        // Pointers only now, when no vector moves any more.
        let mut headers = self.headers.iter();
        for batch in pipeline.gso_batches() {
            let mut message = empty_header();
            if !batch.is_small
                && let Some(header) = headers.next()
            {
                let count = batch.iov.len as usize;
                message = named(header);
                if let Some(vectors) = self.vectors.get(first..first + count) {
                    message.msg_iov = vectors.as_ptr().cast_mut();
                    message.msg_iovlen = count;
                }
                first += count;
            }
            self.messages.push(libc::mmsghdr { msg_hdr: message, msg_len: 0 });
        }
    }

    /// The vectors of packet number `index` for a device.
    #[must_use]
    pub(super) fn packet(&self, device: Device, index: usize) -> &[libc::iovec] {
        let ranges = match device {
            Device::Tun => &self.tun_packets,
            Device::Uplink => &self.uplink_packets,
        };
        let Some(&(first, count)) = ranges.get(index) else { return &[] };
        self.vectors.get(first as usize..(first + count) as usize).unwrap_or_default()
    }

    /// The messages, one for each GSO batch. That of a small batch is empty.
    #[must_use]
    pub(super) fn messages(&self) -> &[libc::mmsghdr] {
        &self.messages
    }
}

/// Sends datagrams with the same header, in as few system calls as possible. Skips those that the
/// kernel does not take. Returns the number of datagrams that it took, and their length in bytes.
pub(crate) fn send_each<'a>(
    socket: BorrowedFd<'_>,
    header: &SendHeader,
    datagrams: impl Iterator<Item = &'a [u8]>,
) -> (u16, u32) {
    let mut vectors: Vec<libc::iovec> = datagrams.map(iovec).collect();
    let message = |vector: &mut libc::iovec| libc::mmsghdr {
        msg_hdr: message_of(header, std::slice::from_mut(vector)),
        msg_len: 0,
    };
    let mut messages: Vec<libc::mmsghdr> = vectors.iter_mut().map(message).collect();
    let (mut taken, mut bytes) = (0, 0);
    let mut rest = messages.as_mut_slice();
    while !rest.is_empty() {
        // SAFETY: header, vectors and datagrams live longer than `messages`, which point to them.
        let sent = unsafe { send_many(socket, rest) }.unwrap_or(0);
        taken += sent as u16;
        bytes += rest.iter().take(sent).map(|message| message.msg_len).sum::<u32>();
        // The first of the rest is the one that was refused. The kernel returns the error for it
        // only if it is the first.
        rest = rest.get_mut(sent.max(1)..).unwrap_or_default();
    }
    (taken, bytes)
}

/// A message header that points to a name, ancillary data and vectors.
pub(super) fn message_of(header: &SendHeader, vectors: &mut [libc::iovec]) -> libc::msghdr {
    let mut message = named(header);
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

/// A message header that points to a name and ancillary data.
#[inline]
fn named(header: &SendHeader) -> libc::msghdr {
    let mut message = empty_header();
    message.msg_name = header.name().as_ptr().cast_mut().cast();
    message.msg_namelen = header.name_len;
    if header.control_len > 0 {
        message.msg_control = header.control().as_ptr().cast_mut().cast();
        message.msg_controllen = header.control_len as usize;
    }
    message
}

/// Writes a TUN packet.
///
/// # Safety
///
/// The vectors must come from a [`SendVectors`] that was filled from an iteration whose output is
/// still as it was.
///
/// # Errors
///
/// Returns why the device did not take it.
pub(super) unsafe fn write_vectors(tun: BorrowedFd<'_>, vectors: &[libc::iovec]) -> io::Result<()> {
    // SAFETY: the vectors point into the iteration's buffers, by the caller; the kernel only reads
    // them.
    let written =
        unsafe { libc::writev(tun.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends messages in order. Returns how many the kernel took.
///
/// # Safety
///
/// What the messages point to must be valid, as for [`write_vectors`].
///
/// # Errors
///
/// Returns why the kernel did not take the first.
pub(super) unsafe fn send_many(
    socket: BorrowedFd<'_>,
    messages: &mut [libc::mmsghdr],
) -> io::Result<usize> {
    // SAFETY: as for `write_vectors`; the kernel writes only the lengths within `messages`.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Reports the outcome of a write to the pipeline, with the kernel's error number if it failed.
/// Returns `false`, and reports nothing, if the device refused a super-packet for being one: call
/// [`write_unsegmented`] then.
#[inline]
pub(super) fn write_done(
    pipeline: &Pipeline,
    device: Device,
    packet: &TunPacket,
    outcome: Result<(), i32>,
) -> bool {
    if packet.packets > 1
        && matches!(outcome, Err(libc::EINVAL | libc::EOPNOTSUPP | libc::EMSGSIZE))
    {
        return false;
    }
    pipeline.write_done(device, packet, outcome.is_ok());
    true
}

/// Writes the packets of super-packet `index`, which the device refused, one by one.
pub(super) fn write_unsegmented(
    pipeline: &mut Pipeline,
    io: &WorkerIo,
    device: Device,
    index: usize,
) {
    let Some(file) = io.file(device) else { return };
    pipeline.write_segments(device, index, |packet| rustix::io::write(file, packet).is_ok());
}

/// Reports the outcome of a send to the pipeline, with the kernel's error number if it failed. If the
/// kernel could not segment the batch, sends its datagrams one by one. `gso` becomes `false` if the
/// device can segment none.
#[inline]
pub(super) fn send_done(
    pipeline: &Pipeline,
    io: &WorkerIo,
    batch: &GsoBatch,
    outcome: Result<(), i32>,
    gso: &mut bool,
) {
    match outcome {
        Ok(()) => pipeline.udp_send_done(batch, batch.datagrams, batch.bytes),
        Err(error @ (libc::EIO | libc::EINVAL | libc::EMSGSIZE)) if batch.datagrams > 1 => {
            // `udp_send_skb` returns EIO if the device has no checksum offload. The others concern
            // the route of this batch.
            if error == libc::EIO {
                *gso = false;
                pipeline.stats().without.udp_segmentation.store(true, Relaxed);
            }
            send_unsegmented(pipeline, io, batch);
        }
        Err(_) => pipeline.udp_send_done(batch, 0, 0),
    }
}

/// Sends the datagrams of a batch one by one.
pub(super) fn send_unsegmented(pipeline: &Pipeline, io: &WorkerIo, batch: &GsoBatch) {
    let Some(socket) = socket_for(io, batch) else {
        pipeline.udp_send_done(batch, 0, 0);
        return;
    };
    let header = SendHeader::new(&batch.to, None, batch.ecn);
    let segment = usize::from(batch.segment.max(1));
    let datagrams = pipeline.gso_batch_bytes(batch).flat_map(|bytes| bytes.chunks(segment));
    let (datagrams, bytes) = send_each(socket, &header, datagrams);
    pipeline.udp_send_done(batch, datagrams, bytes);
}

/// The socket of the batch's address family.
pub(super) fn socket_for<'a>(io: &'a WorkerIo, batch: &GsoBatch) -> Option<BorrowedFd<'a>> {
    if batch.to.remote.is_ipv6() {
        io.sockets.v6.as_ref().map(AsFd::as_fd)
    } else {
        Some(io.sockets.v4.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd as _, time::Duration};

    use super::*;
    use weir_accounts::Endpoint;
    use weir_packet::ecn::Ecn;

    #[test]
    fn of_datagrams_that_are_sent_at_once_those_arrive_that_the_kernel_takes() {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (from, to) = (from.expect("a socket"), to.expect("a socket"));
        to.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let remote = to.local_addr().expect("an address");
        let header = SendHeader::new(&Endpoint { remote, local: None }, None, Ecn::Ect0);
        // The second is larger than any datagram.
        let datagrams = [vec![1; 100], vec![2; 70_000], vec![3; 30], vec![]];
        let sent = send_each(from.as_fd(), &header, datagrams.iter().map(Vec::as_slice));
        assert_eq!(sent, (3, 130));
        let mut buffer = [0; 200];
        let mut came = || to.recv(&mut buffer).map(|len| buffer[..len].to_vec()).expect("one");
        assert_eq!([came(), came(), came()], [vec![1; 100], vec![3; 30], vec![]]);
    }
}
