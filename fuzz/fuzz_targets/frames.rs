//! Whatever the TUN device hands over, nothing panics and every datagram fits its run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::dataplane::{now::Now, pipeline::FRAME_SLACK};
use weir_benches::Node;

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (addressed, mut bytes) = input;
    let mut node = Node::new(4).expect("a node");
    let consumer = node.connect(0).expect("a consumer");
    // Most inputs would die at the address: let half of them get past it.
    if addressed && let Some(place) = bytes.get_mut(26..30) {
        place.copy_from_slice(&consumer.address.octets());
    }
    let len = bytes.len();
    bytes.resize(len + FRAME_SLACK, 0);
    node.pipeline.begin(Now::read());
    node.pipeline.transmit(&mut bytes, len);
    node.pipeline.finish();
    for run in node.pipeline.runs() {
        let len: usize = node.pipeline.run_bytes(run).map(<[u8]>::len).sum();
        assert_eq!(len, run.bytes as usize);
    }
});
