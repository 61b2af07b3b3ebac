//! Messages as the kernel wants them: pointers to names, ancillary data and pieces. Also the slow
//! ways of sending and receiving one.

#![expect(unsafe_code, reason = "hands pointers to the kernel")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::{
    pipeline::Pipeline,
    udp::{NAME, RECEIVE_CONTROL, Received, SendHeader},
};
use weir_accounts::Endpoint;
use weir_packet::ecn::Ecn;

/// A message header of zeros: nothing to and from nobody.
#[must_use]
pub(super) fn empty_header() -> libc::msghdr {
    // SAFETY: all of its fields are integers and pointers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

fn piece(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// The messages and gathered writes of one turn. The pointers within are good until the next call
/// that fills them, and as long as the pipeline's turn lasts.
#[derive(Default)]
pub(super) struct Gather {
    pieces: Vec<libc::iovec>,
    headers: Vec<SendHeader>,
    messages: Vec<libc::mmsghdr>,
    /// First piece and count, for each frame.
    frames: Vec<(u32, u32)>,
}

impl Gather {
    /// Gathers the frames and runs of a finished turn.
    pub(super) fn fill(&mut self, pipeline: &Pipeline) {
        self.pieces.clear();
        self.headers.clear();
        self.messages.clear();
        self.frames.clear();
        for frame in pipeline.frames() {
            let first = self.pieces.len();
            self.pieces.extend(pipeline.frame_bytes(frame).map(piece));
            self.frames.push((first as u32, (self.pieces.len() - first) as u32));
        }
        let mut places = self.pieces.len();
        for run in pipeline.runs() {
            self.pieces.extend(pipeline.run_bytes(run).map(piece));
            let segment = (run.datagrams > 1).then_some(run.segment);
            self.headers.push(SendHeader::new(&run.to, segment, run.ecn));
        }
        // Only now, when nothing moves any more, may there be pointers to it.
        for (run, header) in pipeline.runs().iter().zip(&self.headers) {
            let count = run.pieces.len as usize;
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
    pub(super) fn frame(&self, index: usize) -> &[libc::iovec] {
        let Some(&(first, count)) = self.frames.get(index) else { return &[] };
        self.pieces.get(first as usize..(first + count) as usize).unwrap_or_default()
    }

    /// The messages, one for each run.
    #[must_use]
    pub(super) fn messages(&self) -> &[libc::mmsghdr] {
        &self.messages
    }
}

/// Sends one datagram; the kernel takes it or not, but never makes us wait.
///
/// # Errors
///
/// Says why the kernel did not take it.
pub(super) fn send_one(socket: BorrowedFd<'_>, to: &Endpoint, datagram: &[u8]) -> io::Result<()> {
    let header = SendHeader::new(to, None, Ecn::NotEct);
    let mut pieces = [piece(datagram)];
    let message = message_of(&header, &mut pieces);
    // SAFETY: name, ancillary data, pieces and bytes all live until the call returns, and the
    // kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends datagrams as a header says, in as few system calls as can be. What the kernel does not take
/// is left out. Returns how many datagrams it took, and their bytes.
pub(super) fn send_each<'a>(
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
fn message_of(header: &SendHeader, pieces: &mut [libc::iovec]) -> libc::msghdr {
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

/// Receives one message, if there is one, and says how long it is.
pub(super) fn receive_one(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<(usize, Received)> {
    #[repr(align(8))]
    struct Control([u8; RECEIVE_CONTROL]);
    let mut control = Control([0; RECEIVE_CONTROL]);
    let mut name = [0u8; NAME];
    let mut pieces = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }];
    let mut message = empty_header();
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = NAME as u32;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = RECEIVE_CONTROL;
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = 1;
    // SAFETY: the buffers live until the call returns, are not otherwise borrowed, and their
    // lengths are what is passed.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).ok()?;
    let name = name.get(..message.msg_namelen as usize)?;
    let received = Received::parse(name, control.0.get(..message.msg_controllen)?)?;
    Some((len, received))
}

/// Writes a gathered frame.
///
/// # Safety
///
/// The [`Gather`] must have been filled from a turn that has not changed since.
///
/// # Errors
///
/// Says why the device did not take it.
pub(super) unsafe fn write_frame(tun: BorrowedFd<'_>, pieces: &[libc::iovec]) -> io::Result<()> {
    // SAFETY: the pieces point into the turn's buffers, by the caller; the kernel only reads them.
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
pub(super) unsafe fn send_many(
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

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd as _, time::Duration};

    use super::*;

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
