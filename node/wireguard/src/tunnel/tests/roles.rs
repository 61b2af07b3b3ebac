//! Handshakes: who may send when, and with which keys.

use super::*;

#[test]
fn the_responder_sends_nothing_before_it_has_heard_the_new_keys() {
    let (mut one, mut other) = pair();
    assert!(one.seal(&PLAIN).is_none() && other.seal(&PLAIN).is_none());
    let initiation = one.initiate().expect("an initiation");
    let response = other.take(&initiation).expect("authentic").expect("a response");
    assert!(!other.tunnel.is_connected(other.now) && other.seal(&PLAIN).is_none());
    let keepalive = one.take(&response).expect("authentic").expect("a keepalive");
    assert!(one.tunnel.is_connected(one.now));
    assert_eq!(other.open(&keepalive), Ok(Vec::new()));
    carries(&mut one, &mut other);
}

#[test]
fn a_rekey_keeps_the_old_keys_until_the_new_ones_are_heard_and_for_what_is_late() {
    let (mut one, mut other) = connected();
    let late = one.seal(&PLAIN).expect("keys");
    pass(&mut one, &mut other, 10 * SECOND);
    let initiation = one.initiate().expect("an initiation");
    let response = other.take(&initiation).expect("authentic").expect("a response");
    let old = other.seal(&PLAIN).expect("the old keys");
    let keepalive = one.take(&response).expect("authentic").expect("a keepalive");
    assert_eq!(one.open(&old).as_deref(), Ok(&PLAIN[..]), "by the previous keys");
    assert_eq!(other.open(&keepalive), Ok(Vec::new()));
    assert_eq!(other.open(&late).as_deref(), Ok(&PLAIN[..]), "by the previous keys");
    assert_eq!(other.open(&late), Err(DropReason::Replay));
    carries(&mut one, &mut other);
}

#[test]
fn keys_before_the_previous_ones_are_gone() {
    let (mut one, mut other) = connected();
    let oldest = one.seal(&PLAIN).expect("keys");
    for _ in 0..2 {
        pass(&mut one, &mut other, 10 * SECOND);
        shake(&mut one, &mut other);
    }
    assert_eq!(other.open(&oldest), Err(DropReason::NoKeys));
    carries(&mut one, &mut other);
}

#[test]
fn both_may_begin_at_once() {
    let (mut one, mut other) = pair();
    let [there, back] = [one.initiate(), other.initiate()].map(|sent| sent.expect("an initiation"));
    let to_one = other.take(&there).expect("authentic").expect("a response");
    let to_other = one.take(&back).expect("authentic").expect("a response");
    let keepalives = [one.take(&to_one), other.take(&to_other)];
    let [from_one, from_other] = keepalives.map(|sent| sent.expect("authentic").expect("keys"));
    assert_eq!(other.open(&from_one), Ok(Vec::new()));
    assert_eq!(one.open(&from_other), Ok(Vec::new()));
    carries(&mut one, &mut other);
}

#[test]
fn only_the_latest_initiation_can_be_answered_and_once() {
    let (mut one, mut other) = pair();
    let lost = one.initiate().expect("an initiation");
    let early = other.take(&lost).expect("authentic").expect("a response");
    pass(&mut one, &mut other, REKEY_TIMEOUT + MAX_JITTER);
    let (again, _) = one.tick();
    let response =
        other.take(&again.expect("a repetition")).expect("authentic").expect("an answer");
    assert_eq!(one.take(&early), Err(DropReason::HandshakeInvalid));
    assert!(one.take(&response).is_ok());
    assert_eq!(one.take(&response), Err(DropReason::HandshakeInvalid), "a replay");
}

#[test]
fn an_initiation_is_answered_once_and_none_before_it() {
    let (mut one, mut other) = pair();
    let first = one.initiate().expect("an initiation");
    pass(&mut one, &mut other, REKEY_TIMEOUT + MAX_JITTER);
    let (second, _) = one.tick();
    let second = second.expect("a repetition");
    assert!(other.take(&second).is_ok());
    for old in [&first, &second] {
        assert_eq!(other.take(old), Err(DropReason::HandshakeReplay));
    }
}

#[test]
fn timestamps_rise_though_the_date_goes_back() {
    let (mut one, mut other) = connected();
    for _ in 0..3 {
        one.date = Timestamp::from_unix(5, 0);
        pass(&mut one, &mut other, REKEY_TIMEOUT);
        shake(&mut one, &mut other);
    }
}

#[test]
fn another_preshared_key_gives_no_keys() {
    for [mine, theirs] in [[9, 8], [0, 8], [9, 0]] {
        let (one, other) = pair();
        let mut one = one.with_preshared_key([mine; 32]);
        let mut other = other.with_preshared_key([theirs; 32]);
        let initiation = one.initiate().expect("an initiation");
        let response = other.take(&initiation).expect("authentic").expect("a response");
        assert_eq!(one.take(&response), Err(DropReason::HandshakeInvalid));
    }
    let (one, other) = pair();
    let mut one = one.with_preshared_key([9; 32]);
    let mut other = other.with_preshared_key([9; 32]);
    shake(&mut one, &mut other);
    carries(&mut one, &mut other);
}

#[test]
fn an_initiation_of_somebody_else_or_for_another_node_is_refused() {
    let (_, mut node) = pair();
    let mut stranger = End::new([7; 32], [2; 32]);
    let initiation = stranger.initiate().expect("an initiation");
    assert_eq!(node.take(&initiation), Err(DropReason::HandshakeInvalid));
    let mut lost = End::new([1; 32], [3; 32]);
    let initiation = lost.initiate().expect("an initiation");
    assert_eq!(node.take(&initiation), Err(DropReason::HandshakeInvalid));
}

#[test]
fn receiver_indexes_belong_to_the_slot_and_are_used_by_one_keypair_at_a_time() {
    let (mut one, mut other) = connected();
    let slot = other.tunnel.index.get();
    for _ in 0..600 {
        pass(&mut one, &mut other, REKEY_TIMEOUT);
        shake(&mut one, &mut other);
        let keypairs = [&other.tunnel.current, &other.tunnel.previous];
        let [current, previous] = keypairs.map(|keypair| keypair.as_ref().map(|k| k.local_index));
        assert_ne!(current, previous);
        assert_eq!(current.map(|index| index >> 8), Some(slot));
    }
}

#[test]
fn another_key_of_the_node_takes_over_when_it_is_heard() {
    let (mut one, mut other) = connected();
    let old = one.seal(&PLAIN).expect("keys");
    let new = Identity::new([3; 32]);
    let mut moved = End::new([1; 32], [3; 32]);
    moved.date = moved.date.next().next();
    let initiation = moved.initiate().expect("an initiation");
    let mut out = [0; REPLY_LEN];
    let reply = other.tunnel.initiation(&new, &initiation, other.now, &mut out).expect("authentic");
    let response = message(&reply, &out).expect("a response");
    assert!(other.tunnel.is_for(&other.identity), "nobody has shown the new keys");
    assert_eq!(
        other.tunnel.initiation(&new, &initiation, other.now, &mut out),
        Err(DropReason::HandshakeReplay)
    );
    assert_eq!(other.open(&old).as_deref(), Ok(&PLAIN[..]));
    let keepalive = moved.take(&response).expect("authentic").expect("a keepalive");
    assert_eq!(other.open(&keepalive), Ok(Vec::new()));
    assert!(other.tunnel.is_for(&new));
    let late = one.seal(&PLAIN).expect("keys");
    assert_eq!(other.open(&late), Err(DropReason::NoKeys), "those of the old key are gone");
    carries(&mut moved, &mut other);
    // And the node's own initiations are by that key.
    pass(&mut moved, &mut other, 10 * SECOND);
    shake(&mut other, &mut moved);
}

/// What an idle session keeps, and what its keys take.
#[test]
fn a_tunnel_takes_little_memory() {
    let (tunnel, keypair) = (size_of::<Tunnel>(), size_of::<Keypair>());
    assert!(tunnel <= 512, "{tunnel}");
    assert!(tunnel + 2 * keypair <= 2816, "{tunnel} + 2 * {keypair}");
}
