//! The guard's parser judges any frame without a panic, and the same way twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_common::packet::{Rules, judge};

fuzz_target!(|frame: &[u8]| {
    let rules = Rules { port: 51820, super_packets: false };
    let decision = judge(frame, rules);
    assert_eq!(judge(frame, rules), decision);
    assert!(decision.bytes as usize <= frame.len().max(usize::from(u16::MAX)));
});
