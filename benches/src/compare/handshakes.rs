//! Handshakes of other consumers beside the load, at an even rate.

use std::{
    io::ErrorKind,
    net::{SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use rustix::time::{ClockId, Timespec, clock_gettime};
use weir_testkit::{Namespace, Tunnel, flood::Rates};

/// Consumers that handshake in turn: each stays well below what a node allows one key.
pub const CONSUMERS: u32 = 40;
/// Handshakes per second of all of them.
const RATE: f64 = 1000.0;

/// Consumers that handshake again and again; they stop when this is dropped.
#[derive(Debug)]
pub struct Handshakes {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Rates>>>,
}

impl Handshakes {
    /// Begins, with the consumers that have these private keys.
    ///
    /// # Errors
    ///
    /// Fails when there are no sockets.
    pub fn begin(
        from: &Namespace,
        node: SocketAddrV4,
        node_key: [u8; 32],
        private_keys: &[[u8; 32]],
    ) -> anyhow::Result<Self> {
        let consumers: Vec<_> = from.enter(|| {
            let numbered = private_keys.iter().zip(1..);
            numbered.map(|(key, index)| Handshaking::new(*key, node, node_key, index)).collect()
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || work(consumers, &told));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends them. Sent are the initiations, and taken are those whose response was confirmed.
    ///
    /// # Errors
    ///
    /// Fails when something could not be sent.
    pub fn stop(mut self) -> anyhow::Result<Rates> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("stopped once only")?;
        thread.join().map_err(|_| anyhow!("the handshakes panicked"))?
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// One consumer.
struct Handshaking {
    private: [u8; 32],
    node_key: [u8; 32],
    index: u32,
    /// A new one for each handshake: boringtun takes few answers a second.
    tunnel: Tunnel,
    socket: UdpSocket,
}

impl Handshaking {
    fn new(
        private: [u8; 32],
        node: SocketAddrV4,
        node_key: [u8; 32],
        index: u32,
    ) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(node)?;
        socket.set_nonblocking(true)?;
        let tunnel = Tunnel::new(private, node_key, index);
        Ok(Self { private, node_key, index, tunnel, socket })
    }

    /// Confirms the response to the last initiation, if there is one. Then it initiates again.
    fn turn(&mut self) -> anyhow::Result<bool> {
        let answered = self.confirm()?;
        self.tunnel = Tunnel::new(self.private, self.node_key, self.index);
        let initiation = self.tunnel.initiation().context("no initiation")?;
        self.socket.send(&initiation).context("cannot send an initiation")?;
        Ok(answered)
    }

    fn confirm(&mut self) -> anyhow::Result<bool> {
        let (mut answered, mut buffer) = (false, [0; 2048]);
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(len) => {
                    let message = buffer.get(..len).unwrap_or_default();
                    if let Some(confirmation) = self.tunnel.handshake(message) {
                        self.socket.send(&confirmation).context("cannot confirm")?;
                        answered = true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(answered),
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }
}

fn work(mut consumers: Vec<Handshaking>, stop: &AtomicBool) -> anyhow::Result<Rates> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let (mut sent, mut answered) = (0u32, 0u32);
    let count = consumers.len();
    while !stop.load(Relaxed) {
        let due = Duration::from_secs_f64(f64::from(sent) / RATE);
        thread::sleep(due.saturating_sub(start.elapsed()));
        let next = consumers.get_mut(sent as usize % count.max(1)).context("no consumer")?;
        answered += u32::from(next.turn()?);
        sent += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Rates {
        sent: f64::from(sent) / seconds,
        taken: f64::from(answered) / seconds,
        core: (cpu_seconds() - cpu) / seconds,
    })
}

/// Processor time of the calling thread.
fn cpu_seconds() -> f64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    tv_sec as f64 + tv_nsec as f64 / 1e9
}
