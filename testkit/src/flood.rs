//! What an attacker sends to a node's port, from the internet and with sources of its choice.
//!
//! The frames are made in the kernel and handed to the driver of the interface: less than 1 us
//! each, so that there is time left for those whom the attack is to harm. The other end must take
//! frames so: a veth does with an XDP program in its driver, or with GRO.

mod copier;
mod outlet;
mod program;

use std::{
    net::SocketAddrV4,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    process::setpriority_process,
    time::{ClockId, Timespec, clock_gettime},
};
use weir_common::{
    mac1::{MAC_LEN, Mac1Key},
    wire::{DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN, message_type},
};
use weir_packet::checksum::Sum;

use self::{
    copier::Copier,
    outlet::Outlet,
    program::{HEADERS, Varied},
};
use crate::{Namespace, Tunnel};

/// Number of different messages, which are sent in turn.
const MESSAGES: usize = 512;
/// Copies of a message that are made at once; all but those with a valid MAC are made different.
const BATCH: f64 = 64.0;
/// Of a data message: an inner packet of 112 bytes.
const DATA_LEN: usize = DATA_OVERHEAD + 112;
/// Of what could not be sent in time no more is made up for: an attack comes evenly.
const MOST_LATE: f64 = 2.0 * BATCH;

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Initiations with a wrong first MAC, from random sources.
    Forged,
    /// Initiations with the right first MAC and nothing else right, from random sources.
    ValidMac,
    /// The same, from one source.
    ValidMacOneSource,
    /// Data messages with random receiver indexes, from random sources.
    DeadIndexes,
    /// Data messages with this receiver index, from random sources.
    LiveIndex(u32),
    /// Handshake responses to the initiation with this index, with the right first MAC and nothing
    /// else right, from random sources.
    Response(u32),
    /// Initiations by the consumer with this private key, each right and newer than the last until
    /// they begin again, from random sources.
    Initiations([u8; 32]),
}

/// What a flood came to.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Datagrams a second that were sent.
    pub sent: f64,
    /// Those that found a place in the receive ring of the other end.
    pub taken: f64,
    /// The share of a core that the sending took.
    pub core: f64,
}

/// A running flood; it ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<Rates>>>,
}

impl Flood {
    /// Begins to send `rate` datagrams a second, or as many as can be, from `from` to the node at
    /// `to` with this public key.
    ///
    /// # Errors
    /// Without root, or when the node's host does not answer.
    pub fn start(
        from: &Namespace,
        to: SocketAddrV4,
        public_key: &[u8; 32],
        kind: Kind,
        rate: u32,
    ) -> Result<Self> {
        from.enter(|| Self::from_here(to, public_key, kind, rate))
    }

    /// The same from the calling thread's network namespace.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn from_here(
        to: SocketAddrV4,
        public_key: &[u8; 32],
        kind: Kind,
        rate: u32,
    ) -> Result<Self> {
        let outlet = Outlet::towards(to)?;
        let copier = Copier::new(outlet.interface, BATCH as u32, &program::change(kind.varied()))?;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let payloads = payloads(kind, public_key, &mut random)?;
        let frames: Vec<_> =
            payloads.iter().map(|payload| frame(&outlet, kind, payload, &mut random)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        // A thread is where the one is that made it.
        let sender = thread::spawn(move || send(&outlet, &copier, &frames, rate, &told));
        Ok(Self { stop, sender: Some(sender) })
    }

    /// Ends it, and gives what it came to.
    ///
    /// # Errors
    /// If a frame could not be sent, or the other end took none.
    pub fn stop(mut self) -> Result<Rates> {
        self.stop.store(true, Relaxed);
        let sender = self.sender.take().context("stopped once only")?;
        sender.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn send(
    outlet: &Outlet,
    copier: &Copier,
    frames: &[Vec<u8>],
    rate: u32,
    stop: &AtomicBool,
) -> Result<Rates> {
    // It sleeps most of the time, and is to send in time beside whoever is busy.
    setpriority_process(None, -20).context("cannot hurry. Fix: run this as root")?;
    let before = outlet.taken()?;
    let rate = f64::from(rate.max(1));
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let (mut sent, mut given_up) = (0.0, 0.0);
    for frame in frames.iter().cycle() {
        if stop.load(Relaxed) {
            break;
        }
        let late = start.elapsed().as_secs_f64() * rate - sent - given_up;
        given_up += (late - MOST_LATE).max(0.0);
        if late < BATCH {
            thread::sleep(Duration::from_secs_f64((BATCH - late) / rate));
        }
        copier.send(frame)?;
        sent += BATCH;
    }
    let seconds = start.elapsed().as_secs_f64();
    let taken = outlet.taken()? - before;
    ensure!(
        taken > 0,
        "the other end took no frame. Fix: XDP in its driver, or `ethtool -K gro on`"
    );
    let core = (cpu_seconds() - cpu) / seconds;
    Ok(Rates { sent: sent / seconds, taken: taken as f64 / seconds, core })
}

/// Processor time of the calling thread.
fn cpu_seconds() -> f64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    tv_sec as f64 + tv_nsec as f64 / 1e9
}

impl Kind {
    /// A MAC is over all of its message, so that only the source can be another.
    fn varied(self) -> Varied {
        let (source, index, counter) = match self {
            Self::ValidMacOneSource => (false, false, false),
            Self::ValidMac | Self::Response(_) | Self::Initiations(_) => (true, false, false),
            Self::LiveIndex(_) => (true, false, true),
            Self::Forged | Self::DeadIndexes => (true, true, true),
        };
        Varied { source, index, counter }
    }
}

/// The messages of a flood.
fn payloads(kind: Kind, public_key: &[u8; 32], random: &mut Random) -> Result<Vec<Vec<u8>>> {
    if let Kind::Initiations(private) = kind {
        // Each is newer than the last.
        let mut consumer = Tunnel::new(private, *public_key, 7);
        let mut initiation = || consumer.initiation().context("no initiation");
        return (0..MESSAGES).map(|_| initiation()).collect();
    }
    let key = Mac1Key::new(public_key);
    Ok((0..MESSAGES).map(|_| message(kind, &key, random)).collect())
}

fn message(kind: Kind, key: &Mac1Key, random: &mut Random) -> Vec<u8> {
    let (tag, len, index) = match kind {
        Kind::Forged | Kind::ValidMac | Kind::ValidMacOneSource | Kind::Initiations(_) => {
            (message_type::INITIATION, INITIATION_LEN, random.next() as u32)
        }
        Kind::Response(_) => (message_type::RESPONSE, RESPONSE_LEN, random.next() as u32),
        Kind::DeadIndexes => (message_type::DATA, DATA_LEN, random.next() as u32),
        Kind::LiveIndex(index) => (message_type::DATA, DATA_LEN, index),
    };
    let mut message = vec![0; len];
    message.fill_with(|| random.next() as u8);
    if let Some(header) = message.first_chunk_mut::<8>() {
        let [i0, i1, i2, i3] = index.to_le_bytes();
        *header = [tag, 0, 0, 0, i0, i1, i2, i3];
    }
    if let Kind::Response(receiver) = kind
        && let Some(place) = message.get_mut(8..12)
    {
        place.copy_from_slice(&receiver.to_le_bytes());
    }
    if matches!(kind, Kind::ValidMac | Kind::ValidMacOneSource | Kind::Response(_)) {
        let mac = key.mac(&message);
        let macs = message.len() - 2 * MAC_LEN;
        if let Some(place) = message.get_mut(macs..macs + MAC_LEN) {
            place.copy_from_slice(&mac);
        }
        // No cookie.
        message.get_mut(macs + MAC_LEN..).unwrap_or_default().fill(0);
    }
    message
}

/// A frame with a UDP datagram, whose checksum is left out.
fn frame(outlet: &Outlet, kind: Kind, payload: &[u8], random: &mut Random) -> Vec<u8> {
    // 64.0.0.0/3, whose answers go nowhere in the lab. The program replaces the low half and the
    // ID, of which one is the other's complement here too.
    let [s0, s1] = match kind {
        Kind::ValidMacOneSource => [70, 1],
        _ => [(random.next() as u8 & 0x1f) | 0x40, random.next() as u8],
    };
    let udp_len = payload.len() as u16 + 8;
    let mut frame = Vec::with_capacity(HEADERS + payload.len());
    frame.extend(outlet.next_hop);
    // An address of its own; nobody looks at it.
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend([0x45, 0]);
    frame.extend((udp_len + 20).to_be_bytes());
    frame.extend([0xfd, 0xfc, 0x40, 0, 64, 17, 0, 0, s0, s1, 2, 3]);
    frame.extend(outlet.to.ip().octets());
    if let Some(header) = frame.get(14..34) {
        let [c0, c1] = Sum::default().bytes(header).checksum().to_be_bytes();
        if let Some(place) = frame.get_mut(24..26) {
            place.copy_from_slice(&[c0, c1]);
        }
    }
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(outlet.to.port().to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// Marsaglia's xorshift: enough to be different.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}
