//! weir's own WireGuard as a client: one thread between a TUN device and a UDP socket.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, ensure};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Counts,
    device::Device,
    session::{Session, Time},
};
use crate::{
    clock::{self, MILLISECOND},
    conf::Conf,
};

/// Packets that wait for the first handshake.
pub const MAX_WAITING: usize = 64;
/// Packets, and datagrams, that are handled before the other side is looked at.
const BATCH: usize = 64;
/// The largest packet or datagram, in bytes.
const MAX_PACKET: usize = 65_535 + 64;
/// The interval of timers.
const TICK: u64 = 200 * MILLISECOND;
/// The socket's buffers, in bytes: more than one TCP connection has in flight. What is lost here, the
/// node has billed.
const BUFFER: usize = 8 << 20;

/// What the thread tells.
#[derive(Debug, Default)]
struct Shared {
    received: AtomicU64,
    sent: AtomicU64,
    lost: AtomicU64,
    is_established: AtomicBool,
    is_over: AtomicBool,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Userspace {
    shared: Arc<Shared>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Userspace {
    /// Starts the thread. The socket is one of the network namespace of the caller.
    pub(super) fn start(
        device: Device,
        conf: &Conf,
        endpoint: SocketAddr,
        mark: Option<u32>,
    ) -> anyhow::Result<Self> {
        let socket = socket(endpoint, mark).context("cannot make a UDP socket")?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared::default());
        let pump = Pump {
            device,
            socket,
            endpoint,
            session: Session::new(conf),
            shared: Arc::clone(&shared),
            stop: stop.try_clone()?,
        };
        let thread = thread::Builder::new()
            .name("tunnel".into())
            .spawn(move || pump.run())
            .context("cannot start a thread")?;
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        ensure!(!self.shared.is_over.load(Relaxed), "the interface is gone");
        Ok(Counts {
            received: self.shared.received.load(Relaxed),
            sent: self.shared.sent.load(Relaxed),
            lost: self.shared.lost.load(Relaxed),
            is_established: self.shared.is_established.load(Relaxed),
        })
    }

    /// Ends the thread, and with it the interface.
    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        // It cannot be full: nobody else writes to it.
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn socket(endpoint: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(endpoint);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    // Beyond the kernel's limit for other programs. Without the right to that, up to the limit.
    if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER).ok();
    }
    socket.set_send_buffer_size(BUFFER).ok();
    socket.set_nonblocking(true)?;
    let any = match endpoint {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    socket.bind(&any.into())?;
    Ok(socket.into())
}

struct Pump {
    device: Device,
    socket: UdpSocket,
    endpoint: SocketAddr,
    session: Session,
    shared: Arc<Shared>,
    stop: OwnedFd,
}

/// Whether a descriptor is readable.
#[derive(Clone, Copy)]
struct Ready {
    device: bool,
    socket: bool,
    stop: bool,
}

impl Pump {
    fn run(mut self) {
        let (mut packet, mut out) = (vec![0; MAX_PACKET], vec![0; MAX_PACKET]);
        let socket = self.socket.try_clone();
        let Ok(socket) = socket else { return self.over() };
        let endpoint = self.endpoint;
        // A datagram that cannot be sent is one that is lost: the link may be down.
        let send = |datagram: &[u8]| drop(socket.send_to(datagram, endpoint));
        let mut next_tick = clock::now();
        self.session.begin(time(), send);
        loop {
            let now = clock::now();
            if now >= next_tick {
                self.session.tick(time(), &mut out, send);
                next_tick = now + TICK;
            }
            self.publish();
            let Ok(ready) = self.wait(next_tick.saturating_sub(now)) else { break };
            if ready.stop {
                break;
            }
            let time = time();
            if ready.device && self.read_device(time, &mut packet, &mut out, send).is_err() {
                break;
            }
            if ready.socket && self.read_socket(time, &mut packet, &mut out, send).is_err() {
                break;
            }
        }
        self.over();
    }

    fn over(&self) {
        self.shared.is_over.store(true, Relaxed);
    }

    fn publish(&self) {
        let counts = &self.session.counts;
        self.shared.received.store(counts.received, Relaxed);
        self.shared.sent.store(counts.sent, Relaxed);
        self.shared.lost.store(counts.lost, Relaxed);
        self.shared.is_established.store(counts.is_established, Relaxed);
    }

    fn wait(&self, nanos: u64) -> io::Result<Ready> {
        let mut all = [
            PollFd::new(&self.device.file, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&self.stop, PollFlags::IN),
        ];
        let timeout = Timespec { tv_sec: 0, tv_nsec: nanos.min(TICK).try_into().unwrap_or(0) };
        match poll(&mut all, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [device, socket, stop] = all.map(|it| !it.revents().is_empty());
        Ok(Ready { device, socket, stop })
    }

    fn read_device(
        &mut self,
        time: Time,
        packet: &mut [u8],
        out: &mut [u8],
        send: impl FnMut(&[u8]) + Copy,
    ) -> io::Result<()> {
        for _ in 0..BATCH {
            match (&self.device.file).read(packet) {
                Ok(len) => {
                    let packet = packet.get(..len).unwrap_or_default();
                    self.session.packet(packet, time, out, send);
                }
                Err(error) if is_nothing(&error) => break,
                // Down, not gone.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_socket(
        &mut self,
        time: Time,
        datagram: &mut [u8],
        out: &mut [u8],
        send: impl FnMut(&[u8]) + Copy,
    ) -> io::Result<()> {
        for _ in 0..BATCH {
            let (len, from) = match self.socket.recv_from(datagram) {
                Ok(received) => received,
                Err(error) if is_nothing(&error) => break,
                // An ICMP error for an earlier datagram.
                Err(_) => continue,
            };
            if (from.ip(), from.port()) != (self.endpoint.ip(), self.endpoint.port()) {
                continue;
            }
            let datagram = datagram.get(..len).unwrap_or_default();
            let inner = self.session.datagram(datagram, time, out, send);
            if let Some(packet) = inner.and_then(|len| out.get(..len)) {
                match (&self.device.file).write(packet) {
                    // The interface is down, or the kernel finds the packet wrong.
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn time() -> Time {
    Time { now: clock::now(), date: clock::date() }
}
