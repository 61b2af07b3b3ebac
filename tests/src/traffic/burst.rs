//! Datagrams that their sender hands to the kernel as one, to be cut there (`UDP_SEGMENT`).
#![expect(unsafe_code, reason = "a socket option that no library offers")]

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::Namespace;

const SOL_UDP: libc::c_int = 17;
const UDP_SEGMENT: libc::c_int = 103;

/// A burst: `total` bytes, cut into datagrams of `segment` bytes, of which the last is the rest.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Bytes of each datagram but the last.
    pub segment: u16,
    /// Bytes of all.
    pub total: usize,
}

impl Burst {
    /// Each byte says where in the burst it is, so that one that is missing or moved shows.
    fn bytes(self) -> Vec<u8> {
        (0..self.total).map(|at| (at * 7 + at / 256) as u8).collect()
    }

    /// Starts a server on any free port of one address, which answers each datagram with the burst.
    /// It serves until the test ends.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn serve(self, namespace: &Namespace, address: IpAddr) -> Result<SocketAddr> {
        let socket = namespace.enter(|| Ok(UdpSocket::bind((address, 0))?))?;
        let segment = libc::c_int::from(self.segment);
        // SAFETY: the option is an int, which lives until the call returns.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                SOL_UDP,
                UDP_SEGMENT,
                (&raw const segment).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        ensure!(set == 0, "UDP_SEGMENT: {}", io::Error::last_os_error());
        let server = socket.local_addr()?;
        let bytes = self.bytes();
        thread::spawn(move || {
            let mut question = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut question) {
                socket.send_to(&bytes, from).ok();
            }
        });
        Ok(server)
    }

    /// Asks for the burst, at most `times` times, until all of its datagrams came once.
    ///
    /// # Errors
    /// If a datagram comes that was never sent so, or each time some are missing.
    pub fn ask(self, client: &Namespace, server: SocketAddr, times: usize) -> Result<()> {
        let any: SocketAddr =
            if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = client.enter(|| Ok(UdpSocket::bind(any)?))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let bytes = self.bytes();
        let sent: Vec<&[u8]> = bytes.chunks(self.segment.into()).collect();
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let mut came = Vec::new();
        for _ in 0..times {
            socket.send_to(b"?", server)?;
            let mut missing = sent.clone();
            while !missing.is_empty() {
                let len = match socket.recv(&mut buffer) {
                    Ok(len) => len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                let datagram = &buffer[..len];
                ensure!(sent.contains(&datagram), "{len} bytes came that were never sent so");
                missing.retain(|sent| *sent != datagram);
            }
            if missing.is_empty() {
                return Ok(());
            }
            came.push(sent.len() - missing.len());
        }
        let wanted = sent.len();
        anyhow::bail!(
            "never came all {wanted} datagrams, the last of {:?} bytes: {came:?}",
            sent.last().map(|last| last.len())
        )
    }
}
