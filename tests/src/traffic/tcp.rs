//! TCP transfers. The client says what it wants in 17 bytes: `U` or `D`, a seed, a length.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::content::{Content, Hash};
use crate::{Client, Namespace};

/// A transfer that stands still for so long has failed.
const STALL: Duration = Duration::from_secs(60);

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Consumer to internet.
    Up,
    /// Internet to consumer.
    Down,
}

/// A server on a port of all addresses of a namespace. It serves until the test ends.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    port: u16,
}

impl Server {
    /// Starts it on any free port.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_on(namespace, 0)
    }

    /// Starts it on a port.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the port is taken.
    pub fn start_on(namespace: &Namespace, port: u16) -> Result<Self> {
        let listener = namespace.enter(|| Ok(TcpListener::bind(("::", port))?))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
        Ok(Self { port })
    }

    /// Where it listens, on one of the namespace's addresses.
    #[must_use]
    pub fn at(self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, self.port)
    }
}

/// Moves `length` bytes one way and compares the hash of both ends.
///
/// # Errors
/// If the connection breaks, stands still, or the content is not what was sent.
pub fn transfer(
    client: &Namespace,
    server: SocketAddr,
    direction: Direction,
    length: u64,
    progress: &AtomicU64,
) -> Result<()> {
    let timeout = Duration::from_secs(20);
    let stream = client.enter(|| Ok(TcpStream::connect_timeout(&server, timeout)?));
    transfer_over(
        stream.with_context(|| format!("no connection to {server}"))?,
        direction,
        length,
        progress,
    )
}

/// As [`transfer`], by one of several tunnels of the namespace.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_by(
    client: &Client<'_>,
    server: SocketAddr,
    direction: Direction,
    length: u64,
    progress: &AtomicU64,
) -> Result<()> {
    let connect = || {
        let domain = socket2::Domain::for_address(server);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.bind_device(Some(client.interface().as_bytes()))?;
        socket.connect_timeout(&server.into(), Duration::from_secs(20))?;
        Ok(TcpStream::from(socket))
    };
    let stream = client.namespace().enter(connect);
    let stream = stream.with_context(|| format!("no connection to {server}"))?;
    transfer_over(stream, direction, length, progress)
}

fn transfer_over(
    mut stream: TcpStream,
    direction: Direction,
    length: u64,
    progress: &AtomicU64,
) -> Result<()> {
    let server = stream.peer_addr()?;
    prepare(&stream)?;
    let seed = u64::from(stream.local_addr()?.port());
    let mut request = [0; 17];
    request[0] = if direction == Direction::Up { b'U' } else { b'D' };
    request[1..9].copy_from_slice(&seed.to_le_bytes());
    request[9..].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&request)?;
    let ours = match direction {
        Direction::Up => send(&mut stream, seed, length, Some(progress)),
        Direction::Down => receive(&mut stream, length, Some(progress)),
    }
    .with_context(|| format!("{direction:?} {server}"))?;
    let mut theirs = [0; 32];
    stream.read_exact(&mut theirs).context("the server sent no hash")?;
    ensure!(ours == theirs, "{direction:?} {server}: other content than was sent");
    Ok(())
}

/// As [`transfer`], `flows` times at once.
///
/// # Errors
/// If one of them fails.
pub fn parallel(
    client: &Namespace,
    server: SocketAddr,
    direction: Direction,
    flows: usize,
    length_each: u64,
) -> Result<()> {
    let progress = AtomicU64::new(0);
    thread::scope(|scope| {
        let run = || transfer(client, server, direction, length_each, &progress);
        let all: Vec<_> = (0..flows).map(|_| scope.spawn(run)).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a flow panicked"))?)
    })
}

/// Keeps `flows` transfers going for `time`, and gives the bytes per second that were moved, each
/// checked at its end. A transfer that has begun is finished.
///
/// # Errors
/// If one of them fails.
pub fn for_time(
    client: &Namespace,
    server: SocketAddr,
    direction: Direction,
    flows: usize,
    time: Duration,
    progress: &AtomicU64,
) -> Result<f64> {
    let start = Instant::now();
    thread::scope(|scope| {
        let run = || {
            while start.elapsed() < time {
                transfer(client, server, direction, 32 << 20, progress)?;
            }
            Ok(())
        };
        let all: Vec<_> = (0..flows).map(|_| scope.spawn(run)).collect();
        all.into_iter().try_for_each(|one| -> Result<()> {
            one.join().map_err(|_| anyhow!("a flow panicked"))?
        })
    })?;
    Ok(progress.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    prepare(&stream)?;
    let mut request = [0; 17];
    stream.read_exact(&mut request)?;
    let number =
        |at: usize| -> Result<u64> { Ok(u64::from_le_bytes(request[at..at + 8].try_into()?)) };
    let (seed, length) = (number(1)?, number(9)?);
    let hash = match request[0] {
        b'U' => receive(&mut stream, length, None)?,
        _ => send(&mut stream, seed, length, None)?,
    };
    stream.write_all(&hash)?;
    Ok(())
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    Ok(())
}

fn send(
    stream: &mut impl Write,
    seed: u64,
    length: u64,
    progress: Option<&AtomicU64>,
) -> Result<[u8; 32]> {
    let mut content = Content::new(seed, length);
    let mut hash = Hash::default();
    while let Some(piece) = content.piece() {
        stream.write_all(piece)?;
        hash.update(piece);
        if let Some(progress) = progress {
            progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    }
    Ok(hash.finish())
}

fn receive(stream: &mut impl Read, length: u64, progress: Option<&AtomicU64>) -> Result<[u8; 32]> {
    let mut buffer = vec![0; 256 * 1024];
    let mut hash = Hash::default();
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
        let got = stream.read(&mut buffer[..most])?;
        ensure!(got > 0, "the connection ended {left} bytes too early");
        hash.update(&buffer[..got]);
        left -= got as u64;
        if let Some(progress) = progress {
            progress.fetch_add(got as u64, Ordering::Relaxed);
        }
    }
    Ok(hash.finish())
}
