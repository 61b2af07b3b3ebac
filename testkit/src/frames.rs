//! Whole Ethernet frames, put on an interface as they are.
#![expect(unsafe_code, reason = "the address of a packet socket is a structure of the kernel's")]

use std::{io, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Between two tries while the interface's queue is full, and how many there are.
const RETRY_DELAY: Duration = Duration::from_millis(1);
const MAX_RETRIES: u32 = 5000;

/// Sends frames from an interface of the calling thread's namespace.
#[derive(Debug)]
pub struct FrameSender {
    socket: Socket,
    to: SockAddr,
}

impl FrameSender {
    /// Opens a packet socket for the interface with this number.
    ///
    /// # Errors
    /// Without root.
    pub fn new(interface: u32) -> Result<Self> {
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)));
        let socket = socket.context("cannot make a packet socket: run as root")?;
        // SAFETY: what is initialised is an address of a packet socket, of that length: the
        // storage is larger than it, aligned for any address, and zeroed.
        let ((), to) = unsafe {
            SockAddr::try_init(|storage, len| {
                let address = storage.cast::<libc::sockaddr_ll>();
                (*address).sll_family = libc::AF_PACKET as u16;
                (*address).sll_ifindex = interface.cast_signed();
                *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                Ok(())
            })
        }?;
        Ok(Self { socket, to })
    }

    /// Sends a frame. Waits while the interface's queue is full.
    ///
    /// # Errors
    /// If the interface does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let is_full = |sent: &io::Result<usize>| {
            sent.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOBUFS))
        };
        let mut sent = self.socket.send_to(frame, &self.to);
        for _ in 0..MAX_RETRIES {
            if !is_full(&sent) {
                break;
            }
            thread::sleep(RETRY_DELAY);
            sent = self.socket.send_to(frame, &self.to);
        }
        let sent = sent.context("cannot send the frame")?;
        ensure!(sent == frame.len(), "only {sent} of {} bytes were sent", frame.len());
        Ok(())
    }
}
