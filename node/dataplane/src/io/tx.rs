//! Messages as the kernel wants them: pointers to names, ancillary data and pieces. Also the slow
//! ways of sending and receiving one.

#![expect(unsafe_code, reason = "hands pointers to the kernel")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use crate::{
    io::cmsg::SendHeader,
    pipeline::{Pipeline, gso_batch::GsoBatch},
    worker::{Worker, WorkerIo},
};

/// A message header of zeros: nothing to and from nobody.
#[must_use]
pub(crate) fn empty_header() -> libc::msghdr {
    // SAFETY: all of its fields are integers and pointers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

pub(crate) fn piece(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// The messages and gathered writes of one iteration. The pointers within are good until the next call
/// that fills them, and as long as the pipeline's iteration lasts.
#[derive(Default)]
pub(crate) struct SendVectors {
    pieces: Vec<libc::iovec>,
    headers: Vec<SendHeader>,
    messages: Vec<libc::mmsghdr>,
    /// First piece and count, for each frame.
    frames: Vec<(u32, u32)>,
}

impl SendVectors {
    /// Gathers the frames and batches of a finished iteration.
    pub(crate) fn fill(&mut self, pipeline: &Pipeline) {
        self.pieces.clear();
        self.headers.clear();
        self.messages.clear();
        self.frames.clear();
        for frame in pipeline.tun_packets() {
            let first = self.pieces.len();
            self.pieces.extend(pipeline.tun_packet_bytes(frame).map(piece));
            self.frames.push((first as u32, (self.pieces.len() - first) as u32));
        }
        let mut places = self.pieces.len();
        for batch in pipeline.gso_batches() {
            self.pieces.extend(pipeline.gso_batch_bytes(batch).map(piece));
            let segment = (batch.datagrams > 1).then_some(batch.segment);
            self.headers.push(SendHeader::new(&batch.to, segment, batch.ecn));
        }
        // Only now, when nothing moves any more, may there be pointers to it.
        for (batch, header) in pipeline.gso_batches().iter().zip(&self.headers) {
            let count = batch.iov.len as usize;
            let mut message = empty_header();
            message.msg_name = header.name().as_ptr().cast_mut().cast();
            message.msg_namelen = header.name_len;
            if header.control_len > 0 {
                message.msg_control = header.control().as_ptr().cast_mut().cast();
                message.msg_controllen = header.control_len as usize;
            }
            if let Some(pieces) = self.pieces.get(places..places + count) {
                message.msg_iov = pieces.as_ptr().cast_mut();
                message.msg_iovlen = count;
            }
            places += count;
            self.messages.push(libc::mmsghdr { msg_hdr: message, msg_len: 0 });
        }
    }

    /// The pieces of frame number `index`.
    #[must_use]
    pub(crate) fn frame(&self, index: usize) -> &[libc::iovec] {
        let Some(&(first, count)) = self.frames.get(index) else { return &[] };
        self.pieces.get(first as usize..(first + count) as usize).unwrap_or_default()
    }

    /// The messages, one for each batch.
    #[must_use]
    pub(crate) fn messages(&self) -> &[libc::mmsghdr] {
        &self.messages
    }
}

/// Sends datagrams as a header says, in as few system calls as can be. What the kernel does not take
/// is left out. Returns how many datagrams it took, and their bytes.
pub(crate) fn send_each<'a>(
    socket: BorrowedFd<'_>,
    header: &SendHeader,
    datagrams: impl Iterator<Item = &'a [u8]>,
) -> (u16, u32) {
    let mut pieces: Vec<libc::iovec> = datagrams.map(piece).collect();
    let message = |piece: &mut libc::iovec| libc::mmsghdr {
        msg_hdr: message_of(header, std::slice::from_mut(piece)),
        msg_len: 0,
    };
    let mut messages: Vec<libc::mmsghdr> = pieces.iter_mut().map(message).collect();
    let (mut taken, mut bytes) = (0, 0);
    let mut rest = &mut messages[..];
    while !rest.is_empty() {
        // SAFETY: header, pieces and datagrams live longer than `messages`, which point to them.
        let sent = unsafe { send_many(socket, rest) }.unwrap_or(0);
        taken += sent as u16;
        bytes += rest.iter().take(sent).map(|message| message.msg_len).sum::<u32>();
        // The first of those that are left is the one that was refused, and why is said only then.
        rest = rest.get_mut(sent.max(1)..).unwrap_or_default();
    }
    (taken, bytes)
}

/// A message header that points to a name, ancillary data and pieces.
pub(crate) fn message_of(header: &SendHeader, pieces: &mut [libc::iovec]) -> libc::msghdr {
    let mut message = empty_header();
    message.msg_name = header.name().as_ptr().cast_mut().cast();
    message.msg_namelen = header.name_len;
    if header.control_len > 0 {
        message.msg_control = header.control().as_ptr().cast_mut().cast();
        message.msg_controllen = header.control_len as usize;
    }
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    message
}

/// Writes a gathered frame.
///
/// # Safety
///
/// The [`SendVectors`] must have been filled from a iteration that has not changed since.
///
/// # Errors
///
/// Says why the device did not take it.
pub(crate) unsafe fn write_frame(tun: BorrowedFd<'_>, pieces: &[libc::iovec]) -> io::Result<()> {
    // SAFETY: the pieces point into the iteration's buffers, by the caller; the kernel only reads them.
    let written =
        unsafe { libc::writev(tun.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends messages in order and says how many the kernel took.
///
/// # Safety
///
/// As for [`write_frame`].
///
/// # Errors
///
/// Says why the kernel did not take the first.
pub(crate) unsafe fn send_many(
    socket: BorrowedFd<'_>,
    messages: &mut [libc::mmsghdr],
) -> io::Result<usize> {
    // SAFETY: as for `write_frame`; the kernel writes only the lengths within `messages`.
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

/// Whether a send failed because the kernel could not cut it.
pub(crate) fn is_segmentation_error(error: i32) -> bool {
    matches!(error, libc::EIO | libc::EINVAL | libc::EMSGSIZE)
}

/// Sends the datagrams of a batch one by one.
pub(crate) fn send_unsegmented(worker: &Worker, io: &WorkerIo, batch: &GsoBatch) {
    let Some(socket) = socket_for(io, batch) else {
        worker.pipeline.udp_send_done(batch, 0, 0);
        return;
    };
    let header = SendHeader::new(&batch.to, None, batch.ecn);
    let segment = usize::from(batch.segment.max(1));
    let datagrams = worker.pipeline.gso_batch_bytes(batch).flat_map(|piece| piece.chunks(segment));
    let (datagrams, bytes) = send_each(socket, &header, datagrams);
    worker.pipeline.udp_send_done(batch, datagrams, bytes);
}

/// Writes the packets of a frame that the TUN device refused as a super-packet.
pub(crate) fn write_unsegmented(pipeline: &mut Pipeline, io: &WorkerIo, frame: usize) {
    pipeline.write_segments(frame, |packet| rustix::io::write(&io.tun, packet).is_ok());
}

/// The socket of the batch's family.
pub(crate) fn socket_for<'a>(io: &'a WorkerIo, batch: &GsoBatch) -> Option<BorrowedFd<'a>> {
    if batch.to.remote.is_ipv6() {
        io.sockets.v6.as_ref().map(AsFd::as_fd)
    } else {
        Some(io.sockets.v4.as_fd())
    }
}

/// Whether the device refused a super-packet for being one, so that its packets may pass alone.
#[must_use]
pub(crate) fn refuses_super_packet(error: i32) -> bool {
    matches!(error, libc::EINVAL | libc::EOPNOTSUPP | libc::EMSGSIZE)
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
