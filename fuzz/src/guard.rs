//! The guard: its parser, its verdicts over what it remembers, and the frames of the XSK fast path.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use weir_common::{
    AddressPlan, Slot, SlotPermutation,
    account::SessionState,
    filter::{Memory, decide},
    gcra::{Gcra, Rate},
    guard::{GuardConfig, Lane},
    mac1::{Mac1Key, Mac1Keys},
    meter::{Meter, Origin},
    packet::{Class, Rules, Source, Verdict, judge as parse},
    xsk::{XskDatagram, may_go},
};

use crate::Input;

const PORT: u16 = 51820;
const SLOTS: u32 = 4;
const INITIATIONS: Rate = Rate::new(20, 5);
const CEILING: Rate = Rate::new(100, 20);
/// Any time but 0, at which every bucket has been full for long.
const START: u64 = 1_000_000_000_000;

/// The parser judges any frame without a panic, and the same way twice.
pub fn judge(frame: &[u8]) {
    for super_packets in [false, true] {
        let rules = Rules { port: PORT, super_packets };
        let decision = parse(frame, rules);
        assert_eq!(parse(frame, rules), decision);
        assert!(decision.bytes as usize <= frame.len().max(usize::from(u16::MAX)));
    }
}

/// What the guard remembers, without the kernel.
struct Model {
    now: Cell<u64>,
    states: [SessionState; SLOTS as usize],
    meters: RefCell<HashMap<(u32, u8), Bucket>>,
    sources: RefCell<HashMap<u64, Bucket>>,
    lanes: RefCell<HashMap<u32, Bucket>>,
}

/// A bucket, and what it has let through.
#[derive(Default)]
struct Bucket {
    meter: Gcra,
    taken: u64,
}

impl Model {
    fn take_from<K: std::hash::Hash + Eq>(
        &self,
        buckets: &RefCell<HashMap<K, Bucket>>,
        key: K,
        rate: Rate,
        whole: Rate,
    ) -> bool {
        let mut buckets = buckets.borrow_mut();
        let bucket = buckets.entry(key).or_default();
        if !bucket.meter.take(rate, self.now.get()) {
            return false;
        }
        bucket.taken += 1;
        // The burst, and what the rate adds in the time that has passed.
        let most = (whole.window + self.now.get() - START) / whole.interval;
        assert!(bucket.taken <= most, "{} of {most} were taken", bucket.taken);
        true
    }

    fn taken(&self) -> u64 {
        let of = |taken: u64, bucket: &Bucket| taken + bucket.taken;
        self.lanes.borrow().values().fold(0, of) + self.meters.borrow().values().fold(0, of)
    }
}

impl Memory for Model {
    fn standing(&self, slot: Slot) -> SessionState {
        self.states.get(slot.0 as usize).copied().unwrap_or(SessionState::Vacant)
    }

    /// Each session was last heard at the address whose last byte is its slot.
    fn origin(&self, slot: Slot, source: &Source) -> Origin {
        match source.address[1] as u8 == slot.0 as u8 {
            true => Origin::Endpoint,
            false => Origin::Elsewhere,
        }
    }

    fn take(&self, slot: Slot, meter: Meter, rate: Rate) -> bool {
        let (kind, whole) = (meter as u8, meter.rate(Origin::Endpoint));
        assert!(rate.window <= whole.window && rate.interval == whole.interval);
        self.take_from(&self.meters, (slot.0, kind), rate, whole)
    }

    fn take_initiation(&self, source: u64, rate: Rate) -> bool {
        self.take_from(&self.sources, source, rate, rate)
    }

    fn take_of_all(&self, lane: Lane, rate: Rate) -> bool {
        self.take_from(&self.lanes, lane as u32, rate, rate)
    }
}

/// A frame with one datagram for the node's port.
fn frame(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let len = payload.len() as u16;
    frame.extend([0x45, 0]);
    frame.extend((28 + len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source);
    frame.extend([203, 0, 114, 1]);
    frame.extend(4000u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend((8 + len).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// A WireGuard message of a type from 1 to 4, for a receiver, whose MAC fits.
fn message(kind: u8, receiver: u32, key: &Mac1Key, filling: u8) -> Vec<u8> {
    let len = [148, 92, 64, 48][usize::from(kind - 1)];
    let mut message = vec![filling; len];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let at = if kind == 2 { 8 } else { 4 };
    message[at..at + 4].copy_from_slice(&receiver.to_le_bytes());
    if kind <= 2 {
        let mac = key.mac(&message);
        message[len - 32..len - 16].copy_from_slice(&mac);
    }
    message
}

/// A sequence of frames and pauses: whatever was before, what passes is what the standing of its
/// session allows, and no bucket gives more than it has.
pub fn guard(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (key, other) = (Mac1Key::new(&[7; 32]), Mac1Key::new(&[8; 32]));
    let permutation = SlotPermutation { keys: [1, 2, 3, 4] };
    let v6 = Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 0);
    let config = GuardConfig {
        plan: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 16, v6),
        permutation,
        workers: 1,
        slots: SLOTS,
        port: PORT,
        super_packets: u16::from(input.byte() & 1),
        mac1: Mac1Keys::one(key),
        initiations: INITIATIONS,
        ceiling: CEILING,
    };
    let states = input.byte();
    let model = Model {
        now: Cell::new(START),
        states: std::array::from_fn(|slot| {
            SessionState::from_raw(u32::from(states >> (2 * slot) & 3))
        }),
        meters: RefCell::default(),
        sources: RefCell::default(),
        lanes: RefCell::default(),
    };
    for _ in 0..256 {
        if input.is_empty() {
            break;
        }
        let step = input.byte();
        // Up to a second and a half.
        model.now.set(model.now.get() + u64::from(step >> 4).pow(3) * 400_000);
        let kind = step & 3;
        let target = Slot(u32::from(input.byte() % 6));
        let receiver = permutation.index_of(target).get() << 8 | u32::from(step);
        let source = [198, 51, 7, input.byte() % 16];
        let right_key = step & 4 == 0;
        let sealed = if right_key { &key } else { &other };
        let mut frame = frame(source, &message(kind + 1, receiver, sealed, step));
        let is_whole = step & 8 == 0;
        if !is_whole {
            let at = usize::from(input.byte()) % frame.len();
            frame[at] ^= input.byte();
        }
        let before = model.taken();
        let (decision, slot) = decide(&frame[..], &config, &model);
        if let Some(slot) = slot {
            assert_ne!(model.standing(slot), SessionState::Vacant);
        }
        let Verdict::Pass(class) = decision.verdict else { continue };
        let standing = slot.map(|slot| model.standing(slot));
        match class {
            Class::Initiation => {
                assert!(right_key || !is_whole, "it has another node's MAC");
                assert_eq!(model.taken(), before + 1, "an initiation was counted nowhere");
            }
            Class::Response | Class::CookieReply | Class::Data => {
                assert!(matches!(standing, Some(SessionState::Open | SessionState::Paused)));
                let at_endpoint = slot.is_some_and(|slot| source[3] == slot.0 as u8);
                let is_open = standing == Some(SessionState::Open);
                let is_free = class == Class::Data && at_endpoint && is_open;
                assert_eq!(model.taken(), before + u64::from(!is_free), "{class:?}");
                if class == Class::Data {
                    let at = decision.at as usize;
                    if may_go(&frame[..], at) {
                        xsk(&frame);
                    }
                }
            }
            Class::Return => panic!("there is no NAT"),
            Class::Other | Class::Fragment => assert!(!is_whole, "it is for the node's port"),
        }
    }
}

/// What is read of a frame of the XSK fast path lies within it, and would have been sent there.
pub fn xsk(frame: &[u8]) {
    let Some(datagram) = XskDatagram::of(frame) else { return };
    let (payload, whole) = (datagram.payload.as_ptr_range(), frame.as_ptr_range());
    assert!(whole.start <= payload.start && payload.end <= whole.end);
    let at = payload.start as usize - whole.start as usize;
    assert!(may_go(frame, at), "the guard would not have sent it");
    assert_eq!(XskDatagram::of(frame), Some(datagram));
}
