use weir_wireguard::keys::{PrivateKey, print_public};

use super::*;

const PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 9, 9, 9, 9];

/// Two ends of one tunnel: each is the other's node.
fn ends() -> (Session, Session) {
    let keys = [PrivateKey::random(), PrivateKey::random()];
    let conf = |own: &PrivateKey, other: &PrivateKey, allowed: &str| {
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.0.0.2/32\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 0.0.0.0/0, {allowed}\nEndpoint = 192.0.2.1:1\nPersistentKeepalive = 25\n",
            own.print().as_str(),
            print_public(&other.public())
        );
        Conf::parse(&text).expect("it is well formed")
    };
    let [one, other] = &keys;
    (Session::new(&conf(one, other, "::/0")), Session::new(&conf(other, one, "::/0")))
}

fn at(seconds: u64) -> Time {
    let date = Timestamp::from_unix(1_700_000_000 + seconds, 0);
    Time { now: (1000 + seconds) * SECOND, date }
}

/// Carries datagrams to and fro until there are none. Returns the inner packets that arrived.
fn carry(from: &mut Session, to: &mut Session, first: Vec<Vec<u8>>, time: Time) -> Vec<Vec<u8>> {
    let mut arrived = Vec::new();
    let mut datagrams = first;
    let (mut from, mut to) = (from, to);
    while !datagrams.is_empty() {
        let mut answers = Vec::new();
        for datagram in datagrams {
            let mut out = [0; 2048];
            let len = to.datagram(&datagram, time, &mut out, |it| answers.push(it.to_vec()));
            arrived.extend(len.map(|len| out[..len].to_vec()));
        }
        datagrams = answers;
        (from, to) = (to, from);
    }
    arrived
}

fn send(from: &mut Session, packet: &[u8], time: Time) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    from.packet(packet, time, &mut [0; 2048], |it| sent.push(it.to_vec()));
    sent
}

#[test]
fn a_packet_before_the_handshake_waits_for_it_and_arrives() {
    let (mut one, mut other) = ends();
    let first = send(&mut one, &PACKET, at(0));
    assert_eq!(first.len(), 1, "an initiation");
    let arrived = carry(&mut one, &mut other, first, at(0));
    assert_eq!(arrived, [PACKET.to_vec()]);
    assert!(one.counts.is_established && other.counts.is_established);
}

#[test]
fn both_ends_count_the_same_bytes() {
    let (mut one, mut other) = ends();
    let first = send(&mut one, &PACKET, at(0));
    carry(&mut one, &mut other, first, at(0));
    for _ in 0..5 {
        let datagrams = send(&mut other, &PACKET, at(1));
        assert_eq!(carry(&mut other, &mut one, datagrams, at(1)), [PACKET.to_vec()]);
    }
    assert_eq!((one.counts.sent, one.counts.received), (other.counts.received, other.counts.sent));
    assert!(one.counts.received > 5 * 64);
}

#[test]
fn forged_repeated_and_cut_datagrams_change_nothing() {
    let (mut one, mut other) = ends();
    let first = send(&mut one, &PACKET, at(0));
    carry(&mut one, &mut other, first, at(0));
    let datagram = send(&mut one, &PACKET, at(1)).pop().expect("a datagram");
    let mut forged = datagram.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    let before = other.counts;
    for bad in [&forged[..], &datagram[..20], &[], &[9; 64], &[1; 148], &[2; 92]] {
        let mut out = [0; 2048];
        assert_eq!(other.datagram(bad, at(1), &mut out, |_| panic!("an answer")), None);
    }
    assert_eq!(other.counts, before);
    assert_eq!(carry(&mut one, &mut other, vec![datagram.clone()], at(1)).len(), 1);
    assert_eq!(carry(&mut one, &mut other, vec![datagram], at(1)).len(), 0, "a replay");
}

#[test]
fn a_keepalive_is_sent_when_nothing_else_was() {
    let (mut one, mut other) = ends();
    let mut first = Vec::new();
    one.begin(at(0), |it| first.push(it.to_vec()));
    assert_eq!(carry(&mut one, &mut other, first, at(0)).len(), 0);
    let tick = |session: &mut Session, seconds| {
        let mut sent = Vec::new();
        session.tick(at(seconds), &mut [0; 2048], |it| sent.push(it.to_vec()));
        sent
    };
    assert!(tick(&mut one, 24).is_empty());
    let sent = tick(&mut one, 25);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [DATA_OVERHEAD]);
    assert!(tick(&mut one, 26).is_empty());
}

#[test]
fn a_queue_without_keys_has_a_limit_and_keeps_the_newest() {
    let (mut one, mut other) = ends();
    let mut first = Vec::new();
    for number in 0..=MAX_WAITING {
        let mut packet = PACKET;
        packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
        first.extend(send(&mut one, &packet, at(0)));
    }
    let arrived = carry(&mut one, &mut other, first, at(0));
    assert_eq!(arrived.len(), MAX_WAITING);
    assert_eq!(arrived[0][5], 1, "the oldest is dropped");
}
