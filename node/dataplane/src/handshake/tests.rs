//! The handshake thread without its loop: what has come, by a time that a test says.

use std::{net::SocketAddr, os::fd::AsFd as _};

use socket2::SockRef;

use super::*;
use crate::{
    io::tx::send_each,
    io::{cmsg::SendHeader, udp},
    mailbox::Mailbox,
    testing::{self, Consumer, Node},
};
use weir_packet::ecn::Ecn;
use weir_wireguard::identity::Pair;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1000 * SECOND;

/// The thread's state, and who hears of what it lets through.
struct Thread {
    handshakes: Handshakes,
    node: Node,
    worker: Arc<Mailbox>,
    buffer: Vec<u8>,
}

impl Thread {
    fn new(limits: Limits) -> Self {
        let node = Node::new(4, 1, 0);
        let worker = Arc::new(Mailbox::new().expect("a descriptor"));
        let parts = Parts {
            identities: Identities::new(Pair { current: testing::identity(), previous: None }),
            permutation: node.shared.permutation,
            directory: Arc::default(),
            accounts: Arc::clone(&node.shared.accounts),
            workers: [Arc::clone(&worker)].into_iter().collect(),
            mailbox: Arc::new(HandshakeMailbox::new().expect("a descriptor")),
            sockets: udp::bind(0).expect("sockets"),
            listens: true,
            stats: Arc::default(),
            limits,
        };
        Self { handshakes: Handshakes::new(parts), node, worker, buffer: vec![0; SUPER_PACKET] }
    }

    /// A session whose key is known.
    fn add(&mut self, slot: u32) -> Consumer {
        let consumer = self.node.add(slot);
        self.handshakes.directory.insert(consumer.public, consumer.slot);
        consumer
    }

    /// Lets the thread take what has come; how many initiations it has let through.
    fn batch(&mut self, now: u64) -> usize {
        self.handshakes.batch(&mut self.buffer, now);
        std::iter::from_fn(|| self.worker.initiations.pop()).count()
    }

    /// Hands over `count` new initiations of a consumer. Returns how many pass.
    fn initiate(&mut self, consumer: &mut Consumer, count: usize, now: u64) -> usize {
        for _ in 0..count {
            let initiation = consumer.initiation();
            assert!(self.handshakes.mailbox.push(initiation.message, initiation.from));
        }
        self.batch(now)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.handshakes.stats.dropped(reason)
    }
}

#[test]
fn a_source_has_its_initiations_by_the_time_that_is_handed_in() {
    let limits = Limits { per_source: Rate::new(20, 5), before_cookies: u32::MAX };
    let mut thread = Thread::new(limits);
    let (mut one, mut other) = (thread.add(0), thread.add(1));
    other.endpoint.remote = ([203, 0, 113, 9], 4000).into();
    assert_eq!(thread.initiate(&mut one, 8, START), 5);
    assert_eq!(thread.initiate(&mut one, 8, START), 0, "no time has passed");
    assert_eq!(thread.initiate(&mut other, 1, START), 1, "another source");
    assert_eq!(thread.dropped(DropReason::HandshakeSourceRate), 11);
    assert_eq!(thread.initiate(&mut one, 8, START + SECOND / 20), 1);
    assert_eq!(thread.initiate(&mut one, 8, START + 60 * SECOND), 5);
    assert_eq!(thread.dropped(DropReason::HandshakeReplay), 0);
}

#[test]
fn a_batch_ends_though_more_has_come_and_the_next_one_goes_on() {
    let limits = Limits { per_source: Rate::new(1000, 1000), before_cookies: u32::MAX };
    let mut thread = Thread::new(limits);
    let mut consumer = thread.add(0);
    let initiation = consumer.initiation();
    for _ in 0..BATCH + 1 {
        assert!(thread.handshakes.mailbox.push(initiation.message.clone(), initiation.from));
    }
    assert_eq!(thread.batch(START), 1);
    assert_eq!(thread.dropped(DropReason::HandshakeReplay), BATCH as u64 - 1);
    // Nobody rings for the last one.
    thread.handshakes.wait().expect("it does not wait");
    assert_eq!(thread.batch(START), 0);
    assert_eq!(thread.dropped(DropReason::HandshakeReplay), BATCH as u64);
}

#[test]
fn data_that_was_merged_behind_an_initiation_keeps_its_congestion_mark() {
    let limits = Limits { per_source: Rate::new(20, 5), before_cookies: u32::MAX };
    let mut thread = Thread::new(limits);
    let mut consumer = thread.add(0);
    let index = thread.node.shared.permutation.index_of(consumer.slot);
    let data = [&[4, 0, 0, 0], &(index.get() << 8).to_le_bytes()[..], &[7; 60]].concat();
    let initiation = consumer.initiation().message;
    let merged = [&initiation[..], &data].concat();
    let port = SockRef::from(&thread.handshakes.sockets.v4).local_addr().expect("an address");
    let port = port.as_socket().expect("of IP").port();
    let remote = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let segment = Some(INITIATION_LEN as u16);
    for ecn in [Ecn::Ce, Ecn::Ect0, Ecn::NotEct] {
        let header =
            SendHeader::new(&weir_accounts::Endpoint { remote, local: None }, segment, ecn);
        assert_eq!(send_each(socket.as_fd(), &header, [&merged[..]].into_iter()).0, 1);
        thread.batch(START);
        let misdirected = thread.worker.misdirected.pop();
        let Some(Misdirected::Datagram(datagram, outer)) = misdirected else {
            panic!("no data: {misdirected:?}")
        };
        assert_eq!((&datagram[..], outer.ecn), (&data[..], ecn));
        assert_eq!(Some(outer.from.remote), socket.local_addr().ok());
    }
}
