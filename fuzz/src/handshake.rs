//! A tunnel between two ends, with everything that strangers may send in between.

use weir_common::{
    PeerIndex, SlotPermutation,
    wire::{DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN, message_type},
};
use weir_wireguard::{
    identity::Identity,
    timestamp::Timestamp,
    tunnel::{Opened, REPLY_LEN, Reply, Tunnel},
};

use crate::Input;

const SECOND: u64 = 1_000_000_000;
const PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];

/// One end.
struct End {
    tunnel: Tunnel,
    identity: Identity,
}

impl End {
    fn new(own: u8, other: u8) -> Self {
        let identity = Identity::new([own; 32]);
        let other = Identity::new([other; 32]).public().to_bytes();
        let index: PeerIndex =
            SlotPermutation { keys: [1, 2, 3, 4] }.index_of(weir_common::Slot(own.into()));
        let tunnel = Tunnel::new(&identity, other, index);
        Self { tunnel, identity }
    }

    /// Takes a message of any type. Returns the answer, and whether a packet came out.
    fn take(&mut self, message: &[u8], now: u64) -> (Option<Vec<u8>>, bool) {
        let mut out = [0; REPLY_LEN];
        let reply = match message.first() {
            Some(&message_type::INITIATION) => {
                self.tunnel.initiation(&self.identity, message, now, &mut out)
            }
            Some(&message_type::DATA) => {
                let mut plain = vec![0; message.len()];
                let opened = self.tunnel.open(message, now, &mut plain);
                if let Ok(Opened::Packet(len, _)) = opened {
                    assert_eq!(plain.get(..len), Some(&PACKET[..]), "only what was sealed");
                }
                return (None, matches!(opened, Ok(Opened::Packet(..))));
            }
            _ => self.tunnel.handshake(message, now, &mut out),
        };
        (sent(&reply.unwrap_or(Reply::None), &out), false)
    }
}

fn sent(reply: &Reply, out: &[u8]) -> Option<Vec<u8>> {
    match reply {
        Reply::Send(len) => out.get(..*len).map(<[u8]>::to_vec),
        Reply::None => None,
    }
}

/// Messages of two ends that are lost, repeated, late, damaged and made up, while time passes. No more
/// packets come out than were sealed, what comes out is what was sealed, and a handshake that nothing
/// disturbs succeeds at the end.
pub fn handshake(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut ends = [End::new(1, 2), End::new(2, 1)];
    let mut sent_before: Vec<(usize, Vec<u8>)> = Vec::new();
    let (mut now, mut sealed, mut opened) = (1000 * SECOND, 0, 0);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let step = input.byte();
        let who = usize::from(step >> 7);
        let date = Timestamp::from_unix(now / SECOND, 0);
        let mut out = [0; REPLY_LEN];
        let message = match step & 7 {
            0 => sent(&ends[who].tunnel.initiate(now, date, &mut out), &out),
            1 => {
                now += u64::from(input.byte()) * SECOND;
                sent(&ends[who].tunnel.tick(now, date, &mut out).0, &out)
            }
            2 => {
                let mut message = vec![0; PACKET.len() + DATA_OVERHEAD];
                let is_sealed = ends[who].tunnel.seal(&PACKET, 0, now, &mut message);
                sealed += usize::from(is_sealed);
                is_sealed.then_some(message)
            }
            // Made up, with a length that fits the type.
            3 => {
                let kind = step >> 3 & 3;
                let len = [INITIATION_LEN, RESPONSE_LEN, 64, 100][usize::from(kind)];
                let mut message = input.bytes(len).to_vec();
                message.resize(len, 0);
                message[..4].copy_from_slice(&[kind + 1, 0, 0, 0]);
                Some(message)
            }
            // Of any length and type.
            4 => Some(input.bytes(200).to_vec()),
            // An earlier message, intact or damaged, to either end.
            _ if !sent_before.is_empty() => {
                let (of, mut message) =
                    sent_before[usize::from(input.byte()) % sent_before.len()].clone();
                if step & 7 == 6 && !message.is_empty() {
                    let at = usize::from(input.byte()) % message.len();
                    message[at] ^= input.byte();
                }
                let to = if step & 0x40 == 0 { 1 - of } else { of };
                let (answer, is_packet) = ends[to].take(&message, now);
                opened += usize::from(is_packet);
                answer.into_iter().for_each(|answer| sent_before.push((to, answer)));
                None
            }
            _ => None,
        };
        let Some(message) = message else { continue };
        // Or it is lost, and may come later.
        if step & 0x20 == 0 {
            let (answer, is_packet) = ends[1 - who].take(&message, now);
            opened += usize::from(is_packet);
            answer.into_iter().for_each(|answer| sent_before.push((1 - who, answer)));
        }
        sent_before.push((who, message));
        assert!(opened <= sealed, "{opened} packets came out of {sealed}");
    }
    // What was due begins, what was under way is given up, and old keys are gone.
    let mut out = [0; REPLY_LEN];
    for _ in 0..2 {
        now += 1000 * SECOND;
        let date = Timestamp::from_unix(now / SECOND, 0);
        for end in &mut ends {
            end.tunnel.tick(now, date, &mut out);
        }
    }
    let date = Timestamp::from_unix(now / SECOND, 0);
    let initiation = sent(&ends[0].tunnel.initiate(now, date, &mut out), &out);
    let (response, _) = ends[1].take(&initiation.expect("an initiation"), now);
    let (keepalive, _) = ends[0].take(&response.expect("a response"), now);
    ends[1].take(&keepalive.expect("a keepalive"), now);
    assert!(ends.iter().all(|end| end.tunnel.is_connected(now)));
}
