//! The tunnel between two of its kind with a simulated clock, and against boringtun.

mod data;
mod interop;
mod roles;
mod timers;

use std::net::IpAddr;

use weir_common::{Slot, SlotPermutation};

use super::*;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1000 * SECOND;
const PLAIN: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];

fn source() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

fn index(slot: u32) -> PeerIndex {
    SlotPermutation { keys: [1, 2, 3, 4] }.index_of(Slot(slot))
}

/// One end, with the time that a test sets.
struct End {
    tunnel: Tunnel,
    identity: Identity,
    now: u64,
    date: Timestamp,
    /// What the last tick said of the next one, unless a message came or went since.
    due: Option<u64>,
}

impl End {
    fn new(own: [u8; 32], other: [u8; 32]) -> Self {
        let identity = Identity::new(own);
        let other = *Identity::new(other).public();
        let tunnel = Tunnel::new(&identity, other.to_bytes(), index(u32::from(own[0])));
        let date = Timestamp::from_unix(1_700_000_000, 0);
        Self { tunnel, identity, now: START, date, due: None }
    }

    fn with_preshared_key(mut self, key: [u8; 32]) -> Self {
        self.tunnel = self.tunnel.with_preshared_key(PresharedKey::new(key));
        self
    }

    fn initiate(&mut self) -> Option<Vec<u8>> {
        let mut out = [0; REPLY_LEN];
        let reply = self.tunnel.initiate(self.now, self.date, &mut out);
        self.due = None;
        message(&reply, &out)
    }

    /// Takes a handshake message. Returns the answer.
    fn take(&mut self, received: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        let mut out = [0; REPLY_LEN];
        self.due = None;
        let reply = if received[0] == message_type::INITIATION {
            self.tunnel.initiation(&self.identity.clone(), received, self.now, &mut out)?
        } else {
            self.tunnel.handshake(received, self.now, &mut out)?
        };
        Ok(message(&reply, &out))
    }

    /// Returns also whether the timers go on. A tick before the last one said must do nothing.
    fn tick(&mut self) -> (Option<Vec<u8>>, bool) {
        let mut out = [0; REPLY_LEN];
        let keys = self.tunnel.memory();
        let (reply, due) = self.tunnel.tick(self.now, self.date, &mut out);
        if let Some(before) = self.due.filter(|before| self.now < *before) {
            assert_eq!((&reply, due), (&Reply::None, Some(before)), "nothing was due");
            assert_eq!(self.tunnel.memory(), keys, "no key had to go");
        }
        self.due = due;
        (message(&reply, &out), due.is_some())
    }

    fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; packet.len() + DATA_OVERHEAD];
        self.due = None;
        self.tunnel.seal(packet, 0, self.now, &mut out).then_some(out)
    }

    fn open(&mut self, message: &[u8]) -> Result<Vec<u8>, DropReason> {
        let mut out = vec![0; message.len()];
        self.due = None;
        match self.tunnel.open(message, self.now, &mut out)? {
            Opened::Packet(len, _) => Ok(out[..len].to_vec()),
            Opened::Keepalive => Ok(Vec::new()),
            Opened::NotIp => panic!("no IP packet: {message:?}"),
        }
    }

    fn has_keys(&self) -> bool {
        self.tunnel.memory() > size_of::<Tunnel>()
    }

    fn current(&mut self) -> &mut Keypair {
        self.tunnel.current.as_deref_mut().expect("keys")
    }
}

fn message(reply: &Reply, out: &[u8]) -> Option<Vec<u8>> {
    match reply {
        Reply::None => None,
        Reply::Send(len) => Some(out[..*len].to_vec()),
    }
}

/// Two ends without keys: consumer and node.
fn pair() -> (End, End) {
    (End::new([1; 32], [2; 32]), End::new([2; 32], [1; 32]))
}

/// A whole handshake that `one` begins.
fn shake(one: &mut End, other: &mut End) {
    let initiation = one.initiate().expect("an initiation");
    let response = other.take(&initiation).expect("authentic").expect("a response");
    let keepalive = one.take(&response).expect("authentic").expect("a keepalive");
    assert_eq!(other.open(&keepalive), Ok(Vec::new()));
}

fn connected() -> (End, End) {
    let (mut one, mut other) = pair();
    shake(&mut one, &mut other);
    (one, other)
}

/// Lets time pass for both.
fn pass(one: &mut End, other: &mut End, time: u64) {
    one.now += time;
    other.now += time;
}

/// That packets pass both ways.
fn carries(one: &mut End, other: &mut End) {
    let there = one.seal(&PLAIN).expect("keys");
    assert_eq!(other.open(&there).as_deref(), Ok(&PLAIN[..]));
    let back = other.seal(&PLAIN).expect("keys");
    assert_eq!(one.open(&back).as_deref(), Ok(&PLAIN[..]));
}
