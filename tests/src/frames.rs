//! Whole Ethernet frames, put on an interface as they are.
#![expect(unsafe_code, reason = "the address of a packet socket is a structure of the kernel's")]

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

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

    /// Sends a frame.
    ///
    /// # Errors
    /// If the interface does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = self.socket.send_to(frame, &self.to).context("cannot send the frame")?;
        ensure!(sent == frame.len(), "only {sent} of {} bytes were sent", frame.len());
        Ok(())
    }
}
