//! The load: what is offered, and what has come through.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    consumer::{Consumer, OVERHEAD, receive},
    counts::{Counts, PORT, PROBE_PORT},
    packet::{self, Flow, Transport},
    sink::Sink,
    window::Window,
};

/// Datagrams of a sending call, at most; the kernel's limit.
const MOST_SEGMENTS: usize = 64;
/// Bytes of a sending call, at most.
const MOST_BYTES: usize = 65_000;
/// One probe in this time, where latency is measured.
const PROBE_EVERY: Duration = Duration::from_millis(1);
const PROBE_SIZE: usize = 128;
/// The share of the packets that goes before the measurement.
const WARM_UP: f64 = 0.15;
/// So much longer than planned may a run of a certain rate take; what is left then is not sent.
const MAX_SLOWDOWN: f64 = 5.0;
/// A run ends here, whatever is left: long before a session would renew its keys.
const LONGEST: Duration = Duration::from_secs(90);

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// TCP or UDP inside.
    pub transport: Transport,
    /// Bytes of an inner packet.
    pub size: usize,
    /// Flows of each session; up, they are interleaved packet by packet.
    pub flows: usize,
    /// Packets in all; up, they are sealed beforehand (their bytes are held in memory).
    pub packets: usize,
    /// The most packets of one session that follow each other directly.
    pub burst: usize,
    /// The most packets under way at once.
    pub window: u64,
    /// Packets per second; as fast as the node takes them if `None`.
    pub rate: Option<f64>,
}

impl Shape {
    /// One TCP flow of full packets.
    #[must_use]
    pub fn new(packets: usize) -> Self {
        let (transport, size) = (Transport::Tcp, 1420);
        Self { transport, size, flows: 1, packets, burst: 44, window: 4096, rate: None }
    }

    /// Packets of a sending call.
    pub(super) fn segments(&self) -> usize {
        self.burst.min(MOST_SEGMENTS).min(MOST_BYTES / (self.size + OVERHEAD)).max(1)
    }
}

/// Counts with what `read` gave at the beginning and at the end of the measured time.
#[derive(Debug)]
pub struct Measured<R> {
    /// What came through.
    pub counts: Counts,
    /// Read at the beginning.
    pub before: R,
    /// Read at the end.
    pub after: R,
}

/// Packets from the consumers, sealed, ready to be sent once.
pub struct Sealed {
    bytes: Vec<u8>,
    call: usize,
    probes: Vec<u8>,
    shape: Shape,
}

impl Sealed {
    /// Seals packets to `server` for each of the consumers in turn. With a rate in the shape, the
    /// last consumer sends only latency probes.
    ///
    /// # Errors
    ///
    /// Fails when a session is over.
    pub fn new(consumers: &mut [Consumer], server: Ipv4Addr, shape: Shape) -> anyhow::Result<Self> {
        let (loaded, prober) = parts(consumers, &shape)?;
        let segments = shape.segments();
        let segment = shape.size + OVERHEAD;
        let call = segments * segment;
        let calls = shape.packets / segments;
        let mut bytes = vec![0; calls * call];
        let mut packet = vec![0; shape.size];
        let step = (shape.size - shape.transport.headers()) as u32;
        let count = loaded.len();
        let mut places = vec![(0usize, vec![0u32; shape.flows]); count];
        for (index, call) in bytes.chunks_mut(call).enumerate() {
            let at = index % count;
            let (consumer, (next, offsets)) = (&mut loaded[at], &mut places[at]);
            for out in call.chunks_mut(segment) {
                let flow = *next % shape.flows;
                *next += 1;
                let way = flow_of(consumer.address, server, &shape, at * shape.flows + flow);
                packet::build(&mut packet, &way, offsets[flow]);
                offsets[flow] = offsets[flow].wrapping_add(step);
                consumer.seal(&packet, out)?;
            }
        }
        let mut probes = Vec::new();
        if let (Some(prober), Some(rate)) = (prober, shape.rate) {
            let time = shape.packets as f64 / rate / PROBE_EVERY.as_secs_f64();
            probes = vec![0; (time as usize + 1) * (PROBE_SIZE + OVERHEAD)];
            let from = (prober.address, 1000);
            let flow = Flow { transport: Transport::Udp, from, to: (server, PROBE_PORT) };
            let mut packet = vec![0; PROBE_SIZE];
            for (number, out) in probes.chunks_mut(PROBE_SIZE + OVERHEAD).enumerate() {
                packet::build(&mut packet, &flow, number as u32);
                prober.seal(&packet, out)?;
            }
        }
        Ok(Self { bytes, call, probes, shape })
    }

    /// The receiver index of the first packet: what an attacker who sees the traffic knows.
    #[must_use]
    pub fn receiver_index(&self) -> u32 {
        let index = self.bytes.get(4..8).and_then(<[u8]>::first_chunk);
        index.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Sends everything, and counts what arrives at `sink`; `read` is called at the beginning and
    /// the end of what is measured.
    ///
    /// # Errors
    ///
    /// Fails when the sockets or `read` do, or nothing arrives.
    pub fn send<R>(
        self,
        consumers: &[Consumer],
        sink: &mut Sink,
        read: impl Fn() -> anyhow::Result<R>,
    ) -> anyhow::Result<Measured<R>> {
        let segments = self.shape.segments() as u64;
        let (calls, count) = (self.bytes.len() / self.call, consumers.len());
        let loaded = if self.shape.rate.is_some() { count - 1 } else { count };
        let warm = (calls as f64 * WARM_UP) as usize;
        let mut window = Window::new(self.shape.window);
        let mut probes = Probes::new(&self.probes);
        sink.reset();
        let start = Instant::now();
        let mut first = None;
        let mut sent = 0u64;
        for (index, call) in self.bytes.chunks(self.call).enumerate() {
            if index == warm {
                first = Some((read()?, Instant::now(), sink.counts));
            }
            loop {
                sink.drain(|number| probes.arrived(number));
                probes.send(consumers.last())?;
                let is_due = self
                    .shape
                    .rate
                    .is_none_or(|rate| start.elapsed().as_secs_f64() * rate >= sent as f64);
                if is_due && window.has_room(sent, sink.counts.packets, segments) {
                    break;
                }
            }
            let planned = self.shape.rate.map(|rate| self.shape.packets as f64 / rate);
            if planned.is_some_and(|planned| start.elapsed().as_secs_f64() > planned * MAX_SLOWDOWN)
            {
                break;
            }
            ensure!(start.elapsed() < LONGEST, "the run takes too long: the node is stuck?");
            let consumer = consumers.get(index % loaded).context("no consumer")?;
            // A full send buffer loses the call, which the window will notice.
            if consumer.socket.send(call).is_ok() {
                sent += segments;
            }
        }
        let after = read()?;
        let (before, since, counts) = first.context("too few packets to measure")?;
        let mut counts = sink.counts.since(&counts);
        counts.seconds = since.elapsed().as_secs_f64();
        sink.drain_rest();
        ensure!(sink.counts.packets > 0, "nothing has come through the node");
        counts.lost = sent.saturating_sub(sink.counts.packets);
        counts.window = window.size();
        counts.latency_us = probes.percentiles();
        Ok(Measured { counts, before, after })
    }
}

/// Who carries the load, and who the probes.
fn parts<'a>(
    consumers: &'a mut [Consumer],
    shape: &Shape,
) -> anyhow::Result<(&'a mut [Consumer], Option<&'a mut Consumer>)> {
    let (loaded, prober) = match (shape.rate, consumers) {
        (Some(_), [loaded @ .., prober]) => (loaded, Some(prober)),
        (_, all) => (all, None),
    };
    ensure!(!loaded.is_empty(), "no consumer for the load");
    Ok((loaded, prober))
}

/// Flow number `number` of all.
pub(super) fn flow_of(from: Ipv4Addr, server: Ipv4Addr, shape: &Shape, number: usize) -> Flow {
    let port = 2000 + (number % 60_000) as u16;
    Flow { transport: shape.transport, from: (from, port), to: (server, PORT) }
}

/// Latency probes: numbered packets whose way is timed.
struct Probes<'a> {
    packets: std::slice::Chunks<'a, u8>,
    sent: HashMap<u32, Instant>,
    next: Instant,
    number: u32,
    took: Vec<Duration>,
}

impl<'a> Probes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            packets: bytes.chunks(PROBE_SIZE + OVERHEAD),
            sent: HashMap::new(),
            next: Instant::now(),
            number: 0,
            took: Vec::new(),
        }
    }

    fn send(&mut self, prober: Option<&Consumer>) -> anyhow::Result<()> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        let (Some(packet), Some(prober)) = (self.packets.next(), prober) else { return Ok(()) };
        self.next = now + PROBE_EVERY;
        self.sent.insert(self.number, Instant::now());
        self.number += 1;
        prober.socket.send(packet).context("cannot send a probe")?;
        Ok(())
    }

    fn arrived(&mut self, number: u32) {
        if let Some(sent) = self.sent.remove(&number) {
            self.took.push(sent.elapsed());
        }
    }

    fn percentiles(&mut self) -> Option<[f64; 2]> {
        self.took.sort_unstable();
        let at = |share: f64| {
            let index = (self.took.len().checked_sub(1)? as f64 * share) as usize;
            Some(self.took.get(index)?.as_secs_f64() * 1e6)
        };
        Some([at(0.5)?, at(0.99)?])
    }
}

/// Takes what is waiting at a consumer's socket: datagrams, and calls in which they came. One call
/// in `every` is handed to `check` whole.
pub(super) fn take(
    consumer: &mut Consumer,
    buffer: &mut [u8],
    calls: &mut u64,
    every: u64,
    mut check: impl FnMut(&mut Consumer, &[u8]),
) -> u64 {
    let mut bytes = 0;
    // Not for ever: others wait too.
    for _ in 0..8 {
        let is_sample = (*calls).is_multiple_of(every);
        let part = if is_sample { buffer.len() } else { 1 };
        let Ok((len, whole)) = receive(&consumer.socket, &mut buffer[..part]) else { break };
        *calls += 1;
        bytes += whole as u64;
        if is_sample && len == whole {
            check(consumer, &buffer[..len]);
        }
    }
    bytes
}

/// That what came through was compared, and right.
///
/// # Errors
///
/// Fails when it was not.
pub fn check(counts: &Counts) -> anyhow::Result<()> {
    ensure!(
        counts.wrong == 0,
        "{} of {} packets had the wrong content",
        counts.wrong,
        counts.checked
    );
    ensure!(counts.checked > 0, "no packet was compared");
    Ok(())
}
