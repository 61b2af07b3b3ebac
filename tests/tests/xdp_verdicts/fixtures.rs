//! The table: frame, verdict, bytes counted.

use weir_common::{
    DropReason,
    packet::{Class, Verdict},
};

use super::frames::{FrameSpec, PORT, message};

/// A frame and what becomes of it.
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    pub(crate) verdict: Verdict,
    /// The UDP payload, or `None` for the whole frame.
    pub(crate) payload: Option<usize>,
}

/// All fixtures. `index` is the receiver index in the messages that have one.
pub(crate) fn all(index: u32) -> Vec<Fixture> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        messages(v6, index, &mut all);
        headers(v6, index, &mut all);
        truncated(v6, index, &mut all);
    }
    ipv4(index, &mut all);
    ipv6(index, &mut all);
    all
}

fn spec(v6: bool, payload: &[u8]) -> FrameSpec {
    if v6 { FrameSpec::v6(payload) } else { FrameSpec::v4(payload) }
}

fn fixture(name: String, frame: &FrameSpec, verdict: Verdict) -> Fixture {
    let judged = match verdict {
        Verdict::Pass(Class::Other | Class::Fragment) => false,
        Verdict::Pass(_) => true,
        Verdict::Drop(reason) => reason != DropReason::GuardHeader,
    };
    let payload = judged.then_some((frame.payload.len() as i32 + frame.udp_len_error) as usize);
    Fixture { name, frame: frame.build(), verdict, payload }
}

const PASS_DATA: Verdict = Verdict::Pass(Class::Data);
const OTHER: Verdict = Verdict::Pass(Class::Other);
const HEADER: Verdict = Verdict::Drop(DropReason::GuardHeader);
const LENGTH: Verdict = Verdict::Drop(DropReason::GuardLength);
const TYPE: Verdict = Verdict::Drop(DropReason::GuardType);

/// Each message type at its length and on both sides of it, and what is no message.
fn messages(v6: bool, index: u32, all: &mut Vec<Fixture>) {
    let types = [
        (1, 148, Class::Initiation),
        (2, 92, Class::Response),
        (3, 64, Class::CookieReply),
        (4, 32, Class::Data),
    ];
    for (kind, len, class) in types {
        let mut add = |len, verdict| {
            let frame = spec(v6, &message(kind, len, index));
            all.push(fixture(format!("v6={v6} type {kind} of {len} bytes"), &frame, verdict));
        };
        add(len, Verdict::Pass(class));
        add(len - 1, LENGTH);
        add(len + 1, if kind == 4 { PASS_DATA } else { LENGTH });
        for short in 4..16 {
            add(short, LENGTH);
        }
        for none in 0..4 {
            add(none, TYPE);
        }
    }
    for kind in [0, 5, 22, 255] {
        let frame = spec(v6, &message(kind, 148, index));
        all.push(fixture(format!("v6={v6} type {kind}"), &frame, TYPE));
    }
    for reserved in 1..4 {
        let mut payload = message(4, 64, index);
        payload[reserved] = 1;
        let frame = spec(v6, &payload);
        all.push(fixture(format!("v6={v6} reserved byte {reserved}"), &frame, TYPE));
    }
}

/// VLAN tags, padding, and lengths that contradict each other.
fn headers(v6: bool, index: u32, all: &mut Vec<Fixture>) {
    let good = spec(v6, &message(4, 96, index));
    let mut add = |name: &str, frame: FrameSpec, verdict| {
        all.push(fixture(format!("v6={v6} {name}"), &frame, verdict));
    };
    add("VLAN", FrameSpec { vlans: vec![0x8100], ..good.clone() }, PASS_DATA);
    add("two VLAN tags", FrameSpec { vlans: vec![0x88a8, 0x8100], ..good.clone() }, PASS_DATA);
    add("three VLAN tags", FrameSpec { vlans: vec![0x8100; 3], ..good.clone() }, OTHER);
    add("padding", FrameSpec { padding: 18, ..good.clone() }, PASS_DATA);
    add("another port", FrameSpec { port: PORT + 1, ..good.clone() }, OTHER);
    add("port 0", FrameSpec { port: 0, ..good.clone() }, OTHER);
    add("TCP", FrameSpec { protocol: 6, ..good.clone() }, OTHER);
    add("IP length beyond the frame", FrameSpec { ip_len_error: 1, ..good.clone() }, HEADER);
    add("IP length short of UDP's", FrameSpec { ip_len_error: -1, ..good.clone() }, HEADER);
    add("IP length without a payload", FrameSpec { ip_len_error: -104, ..good.clone() }, HEADER);
    add("UDP length beyond IP's", FrameSpec { udp_len_error: 1, ..good.clone() }, HEADER);
    add("UDP length of no header", FrameSpec { udp_len_error: -97, ..good.clone() }, HEADER);
    add("UDP length zero", FrameSpec { udp_len_error: -104, ..good.clone() }, HEADER);
    add("a surplus area after UDP", FrameSpec { udp_len_error: -8, ..good.clone() }, PASS_DATA);
    add("UDP length of no data", FrameSpec { udp_len_error: -96, ..good.clone() }, TYPE);
    let padded = FrameSpec { ip_len_error: 18, padding: 18, ..good };
    add("IP length into the padding", padded, PASS_DATA);
    let jumbo = spec(v6, &message(4, 8900, index));
    add("jumbo", jumbo, PASS_DATA);
}

/// A good frame, cut off at each length.
fn truncated(v6: bool, index: u32, all: &mut Vec<Fixture>) {
    let good = spec(v6, &message(1, 148, index));
    let whole = good.build();
    // Before the UDP header is whole, nothing says that it is ours.
    let judged_from = whole.len() - 148;
    for len in 14..whole.len() {
        let verdict = if len < judged_from { OTHER } else { HEADER };
        all.push(Fixture {
            name: format!("v6={v6} truncated to {len}"),
            frame: whole[..len].to_vec(),
            verdict,
            payload: None,
        });
    }
}

fn ipv4(index: u32, all: &mut Vec<Fixture>) {
    let good = FrameSpec::v4(&message(4, 96, index));
    let mut add =
        |name: &str, frame: FrameSpec, verdict| all.push(fixture(name.to_owned(), &frame, verdict));
    for words in 1..=10 {
        let options = vec![1; words * 4];
        add(&format!("{words} words of options"), FrameSpec { options, ..good.clone() }, PASS_DATA);
    }
    let options_beyond = FrameSpec { options: vec![1; 40], ip_len_error: -104, ..good.clone() };
    add("IP length within the options", options_beyond, HEADER);
    let fragment = Verdict::Pass(Class::Fragment);
    add("a first fragment", FrameSpec { fragment: 0x2000, ..good.clone() }, fragment);
    add("a middle fragment", FrameSpec { fragment: 0x2010, ..good.clone() }, fragment);
    add("a last fragment", FrameSpec { fragment: 0x0010, ..good.clone() }, fragment);
    add("no flags", FrameSpec { fragment: 0, ..good.clone() }, PASS_DATA);
    let tcp = FrameSpec { fragment: 0x2000, protocol: 6, ..good.clone() };
    add("a fragment of TCP", tcp, OTHER);

    let mut broken = |name: &str, at: usize, value: u8| {
        let mut frame = good.build();
        frame[at] = value;
        all.push(Fixture { name: name.to_owned(), frame, verdict: OTHER, payload: None });
    };
    broken("IP version 5", 14, 0x55);
    broken("an IP header of 4 words", 14, 0x44);
    broken("ARP", 13, 0x06);
}

fn ipv6(index: u32, all: &mut Vec<Fixture>) {
    let good = FrameSpec::v6(&message(4, 96, index));
    let mut add = |name: &str, extensions: Vec<(u8, Vec<u8>)>, verdict| {
        let frame = FrameSpec { extensions, ..good.clone() };
        all.push(fixture(name.to_owned(), &frame, verdict));
    };
    // The length byte counts 8-byte units beyond the first.
    let options = |kind: u8, units: u8| {
        let mut rest = vec![0; usize::from(units) * 8 + 7];
        rest[0] = units;
        (kind, rest)
    };
    let fragment = |offset_and_more: u16| {
        let [high, low] = offset_and_more.to_be_bytes();
        (44, vec![0, high, low, 0, 0, 0, 1])
    };
    add("hop-by-hop options", vec![options(0, 0)], PASS_DATA);
    add("routing", vec![options(43, 2)], PASS_DATA);
    add("destination options of 2048 bytes", vec![options(60, 255)], PASS_DATA);
    add("three headers", vec![options(0, 0), options(60, 1), options(43, 0)], PASS_DATA);
    let five = vec![options(0, 0), options(60, 0), options(43, 0), fragment(0), options(60, 0)];
    add("five headers", five, PASS_DATA);
    add("six headers", vec![options(60, 0); 6], OTHER);
    add("an atomic fragment", vec![fragment(0)], PASS_DATA);
    add("a first v6 fragment", vec![fragment(1)], Verdict::Pass(Class::Fragment));
    add("a last v6 fragment", vec![fragment(0x10)], Verdict::Pass(Class::Fragment));
    add("ESP", vec![(50, vec![0; 7])], OTHER);
    let mut broken = good.build();
    broken[14] = 0x50;
    all.push(Fixture { name: "v6 version".into(), frame: broken, verdict: OTHER, payload: None });
}
