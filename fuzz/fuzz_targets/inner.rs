//! Whatever a consumer seals, what comes out towards the internet is its own packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::dataplane::now::Now;
use weir_benches::Node;

fuzz_target!(|packets: Vec<Vec<u8>>| {
    let mut node = Node::new(4).expect("a node");
    let mut consumer = node.connect(0).expect("a consumer");
    let mut datagrams = Vec::new();
    for packet in packets.iter().take(64) {
        let mut packet = packet.clone();
        packet.truncate(2000);
        // Most inputs would die at the source address.
        if let Some(place) = packet.get_mut(12..16) {
            place.copy_from_slice(&consumer.address.octets());
        }
        datagrams.push(consumer.seal(std::iter::once(packet.as_slice())));
    }
    node.pipeline.begin(Now::read());
    for datagram in &datagrams {
        node.pipeline.datagram(consumer.endpoint, datagram);
    }
    node.pipeline.finish();
    let packets: usize =
        node.pipeline.frames().iter().map(|frame| usize::from(frame.packets)).sum();
    assert!(packets <= datagrams.len());
    for frame in node.pipeline.frames() {
        let bytes: Vec<u8> = node.pipeline.frame_bytes(frame).flatten().copied().collect();
        assert_eq!(bytes.len(), frame.len as usize);
        assert!(bytes.len() <= 10 + 65_535);
    }
});
