//! The load from the internet: super-packets to the places that the node's NAT gave the consumers.

use std::{
    net::Ipv4Addr,
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use super::{
    consumer::{Consumer, OVERHEAD},
    counts::Counts,
    load::{Measured, Shape, flow_of, take},
    packet::{self, Flow, Transport},
    sink::{SAMPLE, Sink},
    socket::{ETHERNET, NET_HEADER},
    window::Window,
};

const FRAME_TIMEOUT: Duration = Duration::from_secs(2);
const WARM_UP: f64 = 0.15;
const LONGEST: Duration = Duration::from_secs(90);
const VIRTIO_NEEDS_CHECKSUM: u8 = 1;
const VIRTIO_TCPV4: u8 = 1;
const VIRTIO_UDP: u8 = 5;

/// Open ways from the internet to the consumers.
pub struct Download {
    ways: Vec<Way>,
    shape: Shape,
}

/// A flow as the internet's side sees it.
struct Way {
    ethernet: [u8; ETHERNET],
    flow: Flow,
    offset: u32,
    /// Whether nothing was sent yet: the first segment answers a SYN.
    is_new: bool,
}

impl Download {
    /// Opens the flows: each consumer sends one packet of each to `server`.
    ///
    /// # Errors
    ///
    /// Fails when one of them does not arrive.
    pub fn open(
        consumers: &mut [Consumer],
        sink: &mut Sink,
        server: Ipv4Addr,
        shape: Shape,
    ) -> anyhow::Result<Self> {
        let mut ways = Vec::new();
        let mut packet = vec![0; shape.size];
        let mut sealed = vec![0; shape.size + OVERHEAD];
        sink.reset();
        for (index, consumer) in consumers.iter_mut().enumerate() {
            for flow in 0..shape.flows {
                let flow = flow_of(consumer.address, server, &shape, index * shape.flows + flow);
                packet::build(&mut packet, &flow, 0);
                packet::begin(&mut packet);
                consumer.seal(&packet, &mut sealed)?;
                consumer.socket.send(&sealed).context("cannot open a flow")?;
                let frame = sink.next_frame(FRAME_TIMEOUT);
                let frame = frame.context("what a consumer sent did not leave the node")?;
                ways.push(Way::back(frame, shape.transport).context("a frame is too short")?);
            }
        }
        // Flow by flow, and within them session by session, so that neighbours differ.
        let mut order: Vec<usize> = (0..ways.len()).collect();
        order.sort_by_key(|at| at % shape.flows);
        let mut slots: Vec<_> = ways.into_iter().map(Some).collect();
        let ways = order.into_iter().filter_map(|at| slots[at].take()).collect();
        Ok(Self { ways, shape })
    }

    /// Opens the flows of a load from the consumers, and answers each once. A real server would: what
    /// has no answer is new to the node's connection tracking with every packet.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], or if an answer cannot be sent.
    pub fn establish(
        consumers: &mut [Consumer],
        sink: &mut Sink,
        server: Ipv4Addr,
        shape: Shape,
    ) -> anyhow::Result<Self> {
        let mut flows = Self::open(consumers, sink, server, shape)?;
        flows.answer(sink)?;
        Ok(flows)
    }

    /// Answers each flow once.
    ///
    /// # Errors
    ///
    /// Fails if an answer cannot be sent.
    pub fn answer(&mut self, sink: &Sink) -> anyhow::Result<()> {
        let end = Instant::now() + FRAME_TIMEOUT;
        for way in &mut self.ways {
            // The ring in front of the node holds 256.
            while !way.send(sink, &self.shape, 1) {
                ensure!(Instant::now() < end, "cannot answer a flow");
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Sends everything, and counts what arrives at the consumers.
    ///
    /// # Errors
    ///
    /// Fails when the sockets or `read` do, or nothing arrives.
    pub fn send<R>(
        mut self,
        consumers: &mut [Consumer],
        sink: &Sink,
        read: impl Fn() -> anyhow::Result<R>,
    ) -> anyhow::Result<Measured<R>> {
        let shape = self.shape;
        let segments = shape.segments();
        let calls = shape.packets / segments;
        let warm = (calls as f64 * WARM_UP) as usize;
        let mut window = Window::new(shape.window);
        let mut arrivals = Arrivals::new(&shape);
        let (mut sent, mut first) = (0u64, None);
        let start = Instant::now();
        let count = self.ways.len();
        for index in 0..calls {
            if index == warm {
                first = Some((read()?, Instant::now(), arrivals.counts));
            }
            loop {
                arrivals.take(consumers);
                let is_due = shape
                    .rate
                    .is_none_or(|rate| start.elapsed().as_secs_f64() * rate >= sent as f64);
                if is_due && window.has_room(sent, arrivals.counts.packets, segments as u64) {
                    break;
                }
            }
            ensure!(start.elapsed() < LONGEST, "the run takes too long: the node is stuck?");
            if self.ways[index % count].send(sink, &shape, segments) {
                sent += segments as u64;
            }
        }
        let after = read()?;
        let (before, since, counts) = first.context("too few packets to measure")?;
        let mut counts = arrivals.counts.since(&counts);
        counts.seconds = since.elapsed().as_secs_f64();
        let end = Instant::now() + Duration::from_millis(50);
        while Instant::now() < end {
            arrivals.take(consumers);
        }
        ensure!(arrivals.counts.packets > 0, "nothing has come through the node");
        counts.lost = sent.saturating_sub(arrivals.counts.packets);
        counts.window = window.size();
        Ok(Measured { counts, before, after })
    }
}

impl Way {
    /// The way back of a frame.
    fn back(frame: &[u8], transport: Transport) -> Option<Self> {
        let ethernet = frame.get(NET_HEADER..NET_HEADER + ETHERNET)?;
        let packet = frame.get(NET_HEADER + ETHERNET..)?;
        let mut back = [0; ETHERNET];
        back[..6].copy_from_slice(&ethernet[6..12]);
        back[6..12].copy_from_slice(&ethernet[..6]);
        back[12..].copy_from_slice(&ethernet[12..]);
        let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
        let port = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        let flow =
            Flow { transport, from: (address(16)?, port(22)?), to: (address(12)?, port(20)?) };
        Some(Self { ethernet: back, flow, offset: 0, is_new: true })
    }

    /// Sends one super-packet of the flow.
    fn send(&mut self, sink: &Sink, shape: &Shape, segments: usize) -> bool {
        let headers = shape.transport.headers();
        let segment = shape.size - headers;
        let payload = segment * segments;
        let mut frame = [0; NET_HEADER + ETHERNET + 40];
        frame[0] = VIRTIO_NEEDS_CHECKSUM;
        if segments > 1 {
            frame[1] = match shape.transport {
                Transport::Tcp => VIRTIO_TCPV4,
                Transport::Udp => VIRTIO_UDP,
            };
            frame[4..6].copy_from_slice(&(segment as u16).to_ne_bytes());
        }
        frame[2..4].copy_from_slice(&((ETHERNET + headers) as u16).to_ne_bytes());
        frame[6..8].copy_from_slice(&((ETHERNET + 20) as u16).to_ne_bytes());
        frame[8..10].copy_from_slice(&(shape.transport.checksum_at() as u16).to_ne_bytes());
        frame[NET_HEADER..NET_HEADER + ETHERNET].copy_from_slice(&self.ethernet);
        let mut bytes = packet::headers(&self.flow, self.offset, payload);
        if self.is_new && shape.transport == Transport::Tcp {
            bytes[33] = packet::SYN_ACK;
        }
        frame[NET_HEADER + ETHERNET..].copy_from_slice(&bytes);
        let frame = &frame[..NET_HEADER + ETHERNET + headers];
        let sent = match shape.transport {
            Transport::Tcp => sink.send(frame, packet::content(self.offset, payload)),
            Transport::Udp => {
                let mut content = Vec::with_capacity(payload);
                for part in 0..segments {
                    let offset = self.offset.wrapping_add((part * segment) as u32);
                    content.extend_from_slice(&offset.to_be_bytes());
                    content.extend_from_slice(&packet::content(offset, segment)[4..]);
                }
                sink.send(frame, &content)
            }
        };
        if sent {
            self.is_new = false;
            // A place that wraps within a packet would not find its content again.
            let next = self.offset + payload as u32;
            self.offset = if next > 0xf000_0000 { 0 } else { next };
        }
        sent
    }
}

/// What has arrived at the consumers.
struct Arrivals {
    counts: Counts,
    buffer: Vec<u8>,
    size: usize,
}

impl Arrivals {
    fn new(shape: &Shape) -> Self {
        Self { counts: Counts::default(), buffer: vec![0; 1 << 16], size: shape.size }
    }

    fn take(&mut self, consumers: &mut [Consumer]) {
        if let [only] = consumers {
            return self.take_from(only);
        }
        let mut waiting: Vec<_> = consumers
            .iter()
            .map(|consumer| PollFd::from_borrowed_fd(consumer.socket.as_fd(), PollFlags::IN))
            .collect();
        let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut waiting, Some(&none)).unwrap_or(0) == 0 {
            return;
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (consumer, _) in consumers.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
            self.take_from(consumer);
        }
    }

    fn take_from(&mut self, consumer: &mut Consumer) {
        let datagram = self.size + OVERHEAD;
        let (mut checked, mut wrong) = (0, 0);
        let mut opened = [0; 4096];
        let Self { counts, buffer, .. } = self;
        let bytes = take(consumer, buffer, &mut counts.super_packets, SAMPLE, |consumer, call| {
            // Others of the call would be as authentic, and cost as much to open.
            let Some(first) = call.get(..datagram) else { return };
            let packet = consumer.open(first, &mut opened);
            checked += 1;
            wrong += u64::from(!packet.is_some_and(|packet| packet::is_right(packet, datagram)));
        });
        let packets = bytes / datagram as u64;
        counts.packets += packets;
        counts.bytes += packets * self.size as u64;
        counts.checked += checked;
        counts.wrong += wrong;
    }
}
