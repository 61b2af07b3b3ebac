//! Tries out what the kernel's io_uring can do. Neither its version nor its list of operations says
//! whether an operation may be multishot.

use std::{
    io,
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{CancelBuilder, Fd, SubmitArgs, Timespec},
};

use super::{BufferRing, NAME, RECEIVE_CONTROL, Reads, build, empty_header, read};

/// How long to wait for the kernel. It completes at once what can be completed.
const TIMEOUT: Duration = Duration::from_secs(5);
const GROUP: u16 = 0;
const BUFFERS: u16 = 2;
const BUFFER_LEN: usize = 512;

/// Whether a receive can be multishot, with buffers that the kernel picks.
pub(crate) fn receives() -> io::Result<bool> {
    let (from, to) = UnixDatagram::pair()?;
    from.send(&[1])?;
    let mut template = Box::new(empty_header());
    template.msg_namelen = NAME as u32;
    template.msg_controllen = RECEIVE_CONTROL;
    let receive = opcode::RecvMsgMulti::new(Fd(to.as_raw_fd()), &raw const *template, GROUP);
    // SAFETY: the template and the sockets live until `completes` has returned.
    unsafe { completes(&receive.build(), true) }
}

/// Whether the kernel can read like this.
pub(crate) fn reads(reads: Reads) -> io::Result<bool> {
    let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK)?;
    rustix::io::write(&to, &[1])?;
    let entry = read(reads, Fd(from.as_raw_fd()), BUFFER_LEN, GROUP);
    // SAFETY: the pipe lives until `completes` has returned.
    unsafe { completes(&entry, reads == Reads::Multishot) }
}

/// Whether the kernel completes an operation that has its input, and keeps it going if `goes_on`.
///
/// # Safety
///
/// What the operation points to must live until this returns.
unsafe fn completes(entry: &squeue::Entry, goes_on: bool) -> io::Result<bool> {
    // Dropped in this order: the kernel lets go of the buffers when the ring is gone.
    let mut ring: IoUring = build()?;
    let buffers = BufferRing::new(BUFFERS, BUFFER_LEN, 0)?;
    // SAFETY: the buffers live longer than the ring.
    unsafe { buffers.register(&ring, GROUP)? };
    // SAFETY: by the caller, and everything is cancelled below.
    if unsafe { ring.submission().push(entry) }.is_err() {
        return Ok(false);
    }
    let timeout = Timespec::from(TIMEOUT);
    ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))?;
    let done = ring.completion().next().is_some_and(|completion| {
        completion.result() > 0
            && cqueue::buffer_select(completion.flags()).is_some()
            && cqueue::more(completion.flags()) == goes_on
    });
    match ring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where multishot reads are to be had single ones are, too.
    #[test]
    fn what_is_tried_out_is_found() {
        match super::super::probe() {
            Ok(_) => assert!(reads(Reads::Single).expect("a ring")),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
