//! One consumer's WireGuard without I/O: packets in, datagrams out, and back. Time is passed in.

use std::collections::VecDeque;

use rand_core::{OsRng, RngCore as _};
use weir_common::{
    PeerIndex,
    mac1::{Mac1Key, Mac1Keys},
    wire::{DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN, message_type},
};
use weir_wireguard::{
    identity::Identity,
    timestamp::Timestamp,
    tunnel::{Header, Opened, REPLY_LEN, Reply, Tunnel, padded_len},
};

use super::{Counts, lost::Lost, userspace::MAX_WAITING};
use crate::{clock::SECOND, conf::Conf};

/// The time, as WireGuard needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    /// Nanoseconds since boot.
    pub(super) now: u64,
    /// The date.
    pub(super) date: Timestamp,
}

/// The consumer's end of one tunnel.
pub(super) struct Session {
    tunnel: Tunnel,
    identity: Identity,
    own_mac1: Mac1Keys,
    conf: Conf,
    /// Packets that wait for the first handshake.
    waiting: VecDeque<Vec<u8>>,
    /// When a datagram was last sent, for keepalives.
    last_sent: u64,
    lost: Lost,
    pub(super) counts: Counts,
}

impl Session {
    pub(super) fn new(conf: &Conf) -> Self {
        let identity = Identity::new(conf.private_key.secret().to_bytes());
        let index = PeerIndex::of_receiver_index(OsRng.next_u32());
        let tunnel = Tunnel::new(&identity, conf.public_key.0, index)
            .with_preshared_key(conf.preshared_key.clone());
        let own_mac1 = Mac1Keys::one(Mac1Key::new(identity.public().as_bytes()));
        Self {
            tunnel,
            identity,
            own_mac1,
            conf: conf.clone(),
            waiting: VecDeque::new(),
            last_sent: 0,
            lost: Lost::default(),
            counts: Counts::default(),
        }
    }

    /// Begins the first handshake.
    pub(super) fn begin(&mut self, time: Time, mut send: impl FnMut(&[u8])) {
        let mut out = [0; REPLY_LEN];
        let reply = self.tunnel.initiate(time.now, time.date, &mut out);
        self.reply(reply, &out, time, &mut send);
    }

    /// Takes a packet from the machine. `out` has room for it and the overhead.
    pub(super) fn packet(
        &mut self,
        packet: &[u8],
        time: Time,
        out: &mut [u8],
        mut send: impl FnMut(&[u8]),
    ) {
        if self.seal(packet, time, out, &mut send) {
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(packet.to_vec());
        self.begin(time, send);
    }

    fn seal(
        &mut self,
        packet: &[u8],
        time: Time,
        out: &mut [u8],
        send: &mut impl FnMut(&[u8]),
    ) -> bool {
        let padding = padded_len(packet.len(), self.conf.mtu.into()).saturating_sub(packet.len());
        let len = packet.len() + padding + DATA_OVERHEAD;
        let Some(out) = out.get_mut(..len) else { return false };
        let is_sealed = self.tunnel.seal(packet, padding, time.now, out);
        if is_sealed {
            self.sent(out.len(), time);
            send(out);
        }
        is_sealed
    }

    /// Takes a datagram from the node's address. What is not authentic is dropped in silence. `out`
    /// has room for it. Returns the inner packet's length in `out`.
    pub(super) fn datagram(
        &mut self,
        datagram: &[u8],
        time: Time,
        out: &mut [u8],
        mut send: impl FnMut(&[u8]),
    ) -> Option<usize> {
        let mut reply = [0; REPLY_LEN];
        let answer = match datagram.first().copied()? {
            message_type::DATA => return self.data(datagram, time, out),
            message_type::INITIATION if datagram.len() == INITIATION_LEN => {
                if !self.own_mac1.fit_initiation(datagram, 0) {
                    return None;
                }
                self.tunnel.initiation(&self.identity, datagram, time.now, &mut reply)
            }
            message_type::RESPONSE if datagram.len() == RESPONSE_LEN => {
                if !self.tunnel.has_right_mac1(datagram) {
                    return None;
                }
                let answer = self.tunnel.handshake(datagram, time.now, &mut reply);
                self.counts.is_established |= answer.is_ok();
                answer
            }
            message_type::COOKIE_REPLY => self.tunnel.handshake(datagram, time.now, &mut reply),
            _ => return None,
        };
        self.reply(answer.ok()?, &reply, time, &mut send);
        self.received(datagram.len());
        self.flush(time, out, &mut send);
        None
    }

    fn data(&mut self, datagram: &[u8], time: Time, out: &mut [u8]) -> Option<usize> {
        let opened = self.tunnel.open(datagram, time.now, out).ok()?;
        self.counts.is_established = true;
        self.received(datagram.len());
        if let Some(header) = Header::of(datagram) {
            self.lost.received(header, datagram.len());
            self.counts.lost = self.lost.bytes();
        }
        match opened {
            Opened::Packet(len, source) if self.conf.allows(source) => Some(len),
            Opened::Packet(..) | Opened::Keepalive | Opened::NotIp => None,
        }
    }

    /// Lets time pass: several times a second.
    pub(super) fn tick(&mut self, time: Time, out: &mut [u8], mut send: impl FnMut(&[u8])) {
        let mut reply = [0; REPLY_LEN];
        let (answer, _) = self.tunnel.tick(time.now, time.date, &mut reply);
        self.reply(answer, &reply, time, &mut send);
        self.flush(time, out, &mut send);
        let keepalive = u64::from(self.conf.keepalive) * SECOND;
        if keepalive > 0 && time.now.saturating_sub(self.last_sent) >= keepalive {
            let mut message = [0; DATA_OVERHEAD];
            if self.tunnel.seal(&[], 0, time.now, &mut message) {
                self.sent(message.len(), time);
                send(&message);
            } else {
                self.begin(time, send);
            }
        }
    }

    /// Sends what has waited for keys.
    fn flush(&mut self, time: Time, out: &mut [u8], send: &mut impl FnMut(&[u8])) {
        while self.tunnel.is_connected(time.now)
            && let Some(packet) = self.waiting.pop_front()
        {
            self.seal(&packet, time, out, send);
        }
    }

    fn reply(
        &mut self,
        reply: Reply,
        out: &[u8; REPLY_LEN],
        time: Time,
        send: &mut impl FnMut(&[u8]),
    ) {
        if let Reply::Send(len) = reply
            && let Some(message) = out.get(..len)
        {
            self.sent(len, time);
            send(message);
        }
    }

    fn sent(&mut self, len: usize, time: Time) {
        self.counts.sent += len as u64;
        self.last_sent = time.now;
    }

    fn received(&mut self, len: usize) {
        self.counts.received += len as u64;
    }
}

#[cfg(test)]
mod tests;
