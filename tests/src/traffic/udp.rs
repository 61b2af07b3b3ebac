//! UDP conversations: every datagram comes back unchanged.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::Namespace;

/// A server that sends every datagram back. It serves until the test ends.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    port: u16,
}

impl Echo {
    /// Starts it on any free port of one address.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let socket = namespace.enter(|| Ok(UdpSocket::bind((address, 0))?))?;
        let port = socket.local_addr()?.port();
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..length], from).ok();
                }
            }
        });
        Ok(Self { port })
    }

    /// Where it listens.
    #[must_use]
    pub fn at(self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, self.port)
    }
}

/// Sends `count` datagrams of each length, one after the other, and checks what comes back.
/// A datagram may be lost now and then: it is sent again, at most 5 times. On a busy machine the
/// first may have been late alone, so that one that was sent before may come back again.
///
/// # Errors
/// If a datagram does not come back, or other than it was.
pub fn converse(
    client: &Namespace,
    server: SocketAddr,
    lengths: &[usize],
    count: usize,
) -> Result<()> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = client.enter(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let port = socket.local_addr()?.port();
    let mut buffer = vec![0; 65536];
    let mut before: Vec<Vec<u8>> = Vec::new();
    for number in 0..count {
        for &length in lengths {
            let stamp = (number * 65536 + length) as u64;
            let sent: Vec<u8> = (0..length)
                .map(|at| (stamp.wrapping_mul(31) as usize + at * 7 + usize::from(port)) as u8)
                .collect();
            exchange(&socket, &sent, &before, &mut buffer)
                .with_context(|| format!("{length} bytes to {server}"))?;
            before.push(sent);
        }
    }
    Ok(())
}

/// As [`converse`], `flows` times at once.
///
/// # Errors
/// If one of them fails.
pub fn parallel(
    client: &Namespace,
    server: SocketAddr,
    flows: usize,
    lengths: &[usize],
    count: usize,
) -> Result<()> {
    thread::scope(|scope| {
        let run = || converse(client, server, lengths, count);
        let all: Vec<_> = (0..flows).map(|_| scope.spawn(run)).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a flow panicked"))?)
    })
}

fn exchange(socket: &UdpSocket, sent: &[u8], before: &[Vec<u8>], buffer: &mut [u8]) -> Result<()> {
    for _ in 0..5 {
        socket.send(sent)?;
        loop {
            match socket.recv(buffer) {
                Ok(length) => {
                    let came = &buffer[..length];
                    if came == sent {
                        return Ok(());
                    }
                    ensure!(before.iter().any(|it| it == came), "other content came back");
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Err(anyhow!("nothing came back"))
}
