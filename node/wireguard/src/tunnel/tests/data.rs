//! Transport data: what passes, and what is dropped for which reason.

use proptest::prelude::*;

use super::*;

#[test]
fn messages_may_come_in_any_order_within_the_window_and_once() {
    let (mut one, mut other) = connected();
    // The keepalive of the handshake was number 0.
    let sent: Vec<_> = (0..8200).map(|_| one.seal(&PLAIN).expect("keys")).collect();
    let window = crate::noise::replay::WINDOW_LEN as usize;
    for message in sent.iter().rev().take(window) {
        assert_eq!(other.open(message).as_deref(), Ok(&PLAIN[..]));
    }
    assert_eq!(other.open(&sent[sent.len() - window - 1]), Err(DropReason::Replay), "too old");
    for message in &sent {
        assert_eq!(other.open(message), Err(DropReason::Replay));
    }
    carries(&mut one, &mut other);
}

#[test]
fn every_altered_bit_is_noticed_and_the_message_itself_still_passes() {
    let (mut one, mut other) = connected();
    let message = one.seal(&PLAIN).expect("keys");
    for at in 4..message.len() {
        for bit in 0..8 {
            let mut altered = message.clone();
            altered[at] ^= 1 << bit;
            let refused = other.open(&altered).expect_err("it was altered");
            match at {
                4..8 => assert_eq!(refused, DropReason::NoKeys),
                8..16 => assert!(
                    [DropReason::Authentication, DropReason::Replay].contains(&refused)
                        || refused == DropReason::CounterLimit,
                    "{refused:?}"
                ),
                _ => assert_eq!(refused, DropReason::Authentication),
            }
        }
    }
    assert_eq!(other.open(&message).as_deref(), Ok(&PLAIN[..]));
}

#[test]
fn counters_stop_at_the_limit() {
    let (mut one, mut other) = connected();
    one.current().set_next_counter(REJECT_AFTER_MESSAGES - 1);
    let last = one.seal(&PLAIN).expect("one more");
    assert!(!one.tunnel.is_connected(one.now) && one.seal(&PLAIN).is_none());
    assert_eq!(other.open(&last).as_deref(), Ok(&PLAIN[..]));
    for counter in [REJECT_AFTER_MESSAGES, u64::MAX - 1, u64::MAX] {
        let mut beyond = last.clone();
        beyond[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(other.open(&beyond), Err(DropReason::CounterLimit));
    }
    assert_eq!(other.open(&last), Err(DropReason::Replay));
}

#[test]
fn many_messages_ask_for_a_new_handshake() {
    let (mut one, _) = connected();
    one.now += 6 * SECOND;
    one.current().set_next_counter(REKEY_AFTER_MESSAGES);
    one.seal(&PLAIN).expect("keys");
    let (initiation, _) = one.tick();
    assert_eq!(initiation.map(|message| message[0]), Some(message_type::INITIATION));
}

#[test]
fn what_is_inside_is_an_ip_packet_a_keepalive_or_neither() {
    let (mut one, mut other) = connected();
    let mut v6 = [0; 44];
    v6[0] = 0x60;
    v6[5] = 4;
    v6[8..24].fill(1);
    let short = [0x45; 20];
    let cases: [(&[u8], Opened); 9] = [
        (&[], Opened::Keepalive),
        (&PLAIN, Opened::Packet(20, source())),
        (&v6, Opened::Packet(44, IpAddr::from([1; 16]))),
        (&v6[..43], Opened::NotIp),
        (&v6[..39], Opened::NotIp),
        (&PLAIN[..19], Opened::NotIp),
        (&short, Opened::NotIp),
        (&[0], Opened::NotIp),
        (&[0xff; 60], Opened::NotIp),
    ];
    for (inside, wanted) in cases {
        let message = one.seal(inside).expect("keys");
        let mut out = [0; 128];
        assert_eq!(other.tunnel.open(&message, other.now, &mut out), Ok(wanted));
    }
}

#[test]
fn padding_is_sealed_with_the_packet() {
    let (mut one, mut other) = connected();
    let mut message = [0; 20 + 12 + DATA_OVERHEAD];
    assert!(one.tunnel.seal(&PLAIN, 12, one.now, &mut message));
    let mut out = [0xff; 32];
    let opened = other.tunnel.open(&message, other.now, &mut out);
    assert_eq!(opened, Ok(Opened::Packet(20, source())));
    assert_eq!((&out[..20], &out[20..]), (&PLAIN[..], &[0; 12][..]));
}

#[test]
fn buffers_of_the_wrong_length_are_refused() {
    let (mut one, mut other) = connected();
    for len in [0, 1, 51, 53, 200] {
        assert!(!one.tunnel.seal(&PLAIN, 0, one.now, &mut vec![0; len]), "{len}");
    }
    let message = one.seal(&PLAIN).expect("keys");
    for len in 0..20 {
        let opened = other.tunnel.open(&message, other.now, &mut vec![0; len]);
        assert_eq!(opened, Err(DropReason::Truncated), "{len}");
    }
    for len in 0..DATA_OVERHEAD {
        let opened = other.tunnel.open(&message[..len], other.now, &mut [0; 64]);
        assert_eq!(opened, Err(DropReason::MalformedMessage));
    }
    assert!(other.open(&message).is_ok());
}

#[test]
fn a_key_of_a_message_is_that_of_its_keypair_after_a_rekey() {
    let (mut one, mut other) = connected();
    let sealing = one.tunnel.begin_seal(true, one.now).expect("keys");
    pass(&mut one, &mut other, 10 * SECOND);
    shake(&mut one, &mut other);
    let key = one.tunnel.send_key(sealing).expect("the previous keys");
    let mut message = sealing.header.to_bytes().to_vec();
    message.resize(message.len() + PLAIN.len() + 16, 0);
    crate::aead::seal(key, sealing.header.counter, &[], &PLAIN, &mut message[16..]).expect("fits");
    assert_eq!(other.open(&message).as_deref(), Ok(&PLAIN[..]));
    pass(&mut one, &mut other, 10 * SECOND);
    shake(&mut one, &mut other);
    assert!(one.tunnel.send_key(sealing).is_none(), "they are wiped");
}

proptest! {
    /// Strangers' messages of any type and content change nothing.
    #[test]
    fn garbage_is_refused_and_the_session_goes_on(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 1u8..5,
        is_known: bool,
        fits: bool,
    ) {
        let (mut one, mut other) = connected();
        if fits {
            bytes.resize([INITIATION_LEN, RESPONSE_LEN, 64, 100][usize::from(kind) - 1], 7);
        }
        if let Some(head) = bytes.first_chunk_mut() {
            *head = [kind, 0, 0, 0];
        }
        if is_known {
            let known = other.current().local_index.to_le_bytes();
            for at in [4, 8] {
                if let Some(place) = bytes.get_mut(at..at + 4) {
                    place.copy_from_slice(&known);
                }
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        prop_assert!(other.take(&bytes).is_err());
        prop_assert!(other.open(&bytes).is_err());
        carries(&mut one, &mut other);
    }
}
