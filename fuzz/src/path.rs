//! The packet path: what comes from the network, from the TUN device, and from a consumer.

use weir_dataplane::internals::{Device, Now, Pipeline, TAILROOM};
use weir_testkit::{
    packet::{SERVER, tcp},
    pipeline::{Consumer, Node},
};

use crate::Input;

fn node() -> (Node, Consumer) {
    let mut node = Node::new(4).expect("memory");
    let consumer = node.connect(0).expect("a handshake");
    (node, consumer)
}

/// Frames are as long as they say, and fit an IP packet behind the virtio header.
fn frames_are_whole(pipeline: &Pipeline) -> usize {
    for frame in pipeline.packets(Device::Tun) {
        let len: usize = pipeline.packet_bytes(Device::Tun, frame).map(<[u8]>::len).sum();
        assert_eq!(len, frame.len as usize);
        assert!(len <= 10 + 65_535);
    }
    pipeline.packets(Device::Tun).iter().map(|frame| usize::from(frame.packets)).sum()
}

fn runs_are_whole(pipeline: &Pipeline) {
    for run in pipeline.gso_batches() {
        let len: usize = pipeline.gso_batch_bytes(run).map(<[u8]>::len).sum();
        assert_eq!(len, run.bytes as usize);
    }
}

/// Whatever receive calls bring, authentic or not, in which order and cut into which segments: no
/// more leaves than what was sealed, each packet once.
pub fn datagrams(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut node, mut consumer) = node();
    let (mut sealed, mut left) = (0, 0);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let step = input.byte();
        let mut buffer = match step & 3 {
            // Not authentic, unless it is an old one by chance.
            0 => input.bytes(4096).to_vec(),
            // Sent before.
            1 if !sent.is_empty() => sent[usize::from(input.byte()) % sent.len()].clone(),
            // A few packets one behind the other.
            _ => {
                let packets: Vec<Vec<u8>> = (0..1 + (step >> 2 & 3))
                    .map(|_| {
                        let mut packet = input.bytes(1500).to_vec();
                        // Most inputs would die at the source address.
                        if step & 0x10 == 0
                            && let Some(place) = packet.get_mut(12..16)
                        {
                            place.copy_from_slice(&consumer.address.octets());
                        }
                        packet
                    })
                    .collect();
                sealed += packets.len();
                consumer.seal(packets.iter().map(Vec::as_slice))
            }
        };
        sent.push(buffer.clone());
        if step & 0x20 != 0 && !buffer.is_empty() {
            let at = usize::from(input.half()) % buffer.len();
            buffer[at] ^= input.byte();
        }
        let segment = if step & 0x40 != 0 { usize::from(input.half()) } else { buffer.len() };
        node.pipeline.begin(Now::read());
        node.pipeline.handle_udp_batch(consumer.endpoint, &buffer, segment);
        if step & 0x80 != 0 {
            node.pipeline.handle_udp_batch(consumer.endpoint, &buffer, segment);
        }
        node.pipeline.finish();
        left += frames_are_whole(&node.pipeline);
        runs_are_whole(&node.pipeline);
        assert!(left <= sealed, "{left} packets left of {sealed}");
    }
}

/// Whatever the TUN device hands over, every datagram fits its run.
pub fn frames(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut node, consumer) = node();
    let is_addressed = input.byte() & 1 == 0;
    let mut frame = input.0.to_vec();
    frame.truncate(65_535);
    // Most inputs would die at the address.
    if is_addressed && let Some(place) = frame.get_mut(26..30) {
        place.copy_from_slice(&consumer.address.octets());
    }
    let len = frame.len();
    frame.resize(len + TAILROOM, 0);
    node.pipeline.begin(Now::read());
    node.pipeline.handle_tun_packet(&mut frame, len);
    node.pipeline.finish();
    runs_are_whole(&node.pipeline);
}

/// Whatever a consumer seals, what comes out towards the internet is its own packets, joined to no
/// more than an IP packet may have.
pub fn inner(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut node, mut consumer) = node();
    let mut datagrams = Vec::new();
    let mut sequences = [1_u32; 4];
    while !input.is_empty() && datagrams.len() < 64 {
        let step = input.byte();
        let packet = if step & 0x80 == 0 {
            let mut packet = input.bytes(2000).to_vec();
            if let Some(place) = packet.get_mut(12..16) {
                place.copy_from_slice(&consumer.address.octets());
            }
            packet
        } else {
            // A segment that goes on where its flow was, so that it may be joined; perhaps damaged.
            let flow = step & 3;
            let (len, sequence) = (input.half() % 1400, &mut sequences[usize::from(flow)]);
            let port = 40_000 + u16::from(flow);
            let len_in_all = 40 + usize::from(len);
            let mut packet = tcp(consumer.address, SERVER, port, *sequence, len_in_all);
            *sequence = sequence.wrapping_add(len.into());
            if step & 0x40 != 0 {
                packet[usize::from(input.half()) % len_in_all] ^= input.byte();
            }
            packet
        };
        datagrams.push(consumer.seal(std::iter::once(packet.as_slice())));
    }
    node.pipeline.begin(Now::read());
    for datagram in &datagrams {
        node.pipeline.handle_datagram(consumer.endpoint, datagram);
    }
    node.pipeline.finish();
    assert!(frames_are_whole(&node.pipeline) <= datagrams.len());
}
