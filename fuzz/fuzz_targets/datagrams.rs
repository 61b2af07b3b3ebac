//! Whatever a receive call brings, nothing unauthentic leaves and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::dataplane::now::Now;
use weir_benches::Node;

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (segment, bytes) = input;
    let mut node = Node::new(4).expect("a node");
    let consumer = node.connect(0).expect("a consumer");
    node.pipeline.begin(Now::read());
    node.pipeline.receive(consumer.endpoint, &bytes, usize::from(segment));
    node.pipeline.finish();
    assert!(node.pipeline.frames().is_empty());
});
