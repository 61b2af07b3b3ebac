//! The timers of the whitepaper's section 6, by a clock that a test sets.

use super::*;

fn is_initiation(message: Option<&[u8]>) -> bool {
    message.is_some_and(|message| message[0] == message_type::INITIATION)
}

fn is_keepalive(message: Option<&[u8]>) -> bool {
    message.is_some_and(|message| message.len() == DATA_OVERHEAD)
}

/// Ticks every second until `most` seconds have passed. Returns what was sent, and when.
fn run(end: &mut End, most: u64) -> Vec<(u64, Vec<u8>)> {
    let begin = end.now;
    let mut sent = Vec::new();
    while end.now < begin + most * SECOND {
        end.now += SECOND;
        if let (Some(message), _) = end.tick() {
            sent.push(((end.now - begin) / SECOND, message));
        }
    }
    sent
}

#[test]
fn received_data_is_answered_after_ten_seconds_and_keepalives_are_not() {
    let (mut one, mut other) = connected();
    assert!(run(&mut other, 60).is_empty(), "nothing was said");
    let data = one.seal(&PLAIN).expect("keys");
    other.open(&data).expect("authentic");
    let sent = run(&mut other, 60);
    let [(10, keepalive)] = &sent[..] else { panic!("one keepalive, not {sent:?}") };
    assert!(is_keepalive(Some(keepalive)));
    assert_eq!(one.open(keepalive), Ok(Vec::new()));
    assert!(run(&mut one, 12).is_empty(), "it was an answer, and needs none");
}

#[test]
fn data_that_is_sent_needs_no_keepalive() {
    let (mut one, mut other) = connected();
    let data = one.seal(&PLAIN).expect("keys");
    other.open(&data).expect("authentic");
    other.now += 9 * SECOND;
    other.seal(&PLAIN).expect("keys");
    assert!(run(&mut other, 5).is_empty());
}

#[test]
fn data_without_an_answer_for_fifteen_seconds_begins_a_handshake() {
    let (mut one, mut other) = connected();
    for end in [&mut one, &mut other] {
        end.now += 6 * SECOND;
        end.seal(&PLAIN).expect("keys");
        let (at, message) = run(end, 20).remove(0);
        assert_eq!(at, 15);
        assert!(is_initiation(Some(&message)), "either role does");
    }
}

#[test]
fn an_initiation_is_repeated_with_some_delay_and_given_up_after_ninety_seconds() {
    let (mut one, _) = pair();
    assert!(one.initiate().is_some());
    assert!(one.initiate().is_none(), "one at a time");
    let mut times = Vec::new();
    let mut last = one.now;
    while one.now < START + 200 * SECOND {
        one.now += SECOND / 100;
        let (message, lives) = one.tick();
        if let Some(message) = message {
            assert!(is_initiation(Some(&message)));
            times.push(one.now - last);
            last = one.now;
        }
        assert_eq!(lives, one.now < START + REKEY_ATTEMPT_TIME, "{}", one.now - START);
    }
    assert!((15..=17).contains(&times.len()), "{times:?}");
    assert!(
        times
            .iter()
            .all(|time| (REKEY_TIMEOUT..=REKEY_TIMEOUT + MAX_JITTER + SECOND / 100).contains(time))
    );
    assert!(times.iter().any(|time| *time != times[0]), "by chance");
    assert!(one.initiate().is_some(), "a new packet begins anew");
}

#[test]
fn an_initiator_renews_its_keys_after_two_minutes_and_a_responder_does_not() {
    let (mut one, mut other) = connected();
    for end in [&mut one, &mut other] {
        end.now += REKEY_AFTER_TIME - SECOND;
        end.seal(&PLAIN).expect("keys");
        assert!(end.tick().0.is_none());
        end.now += SECOND;
    }
    let data = [&mut one, &mut other].map(|end| end.seal(&PLAIN).expect("keys"));
    other.open(&data[0]).expect("authentic");
    one.open(&data[1]).expect("authentic");
    assert!(is_initiation(one.tick().0.as_deref()));
    assert!(other.tick().0.is_none());
}

#[test]
fn an_initiator_that_only_receives_renews_its_keys_before_they_end() {
    let (mut one, mut other) = connected();
    pass(&mut one, &mut other, 164 * SECOND);
    let data = other.seal(&PLAIN).expect("keys");
    one.open(&data).expect("authentic");
    assert!(one.tick().0.is_none());
    pass(&mut one, &mut other, SECOND);
    let data = other.seal(&PLAIN).expect("keys");
    one.open(&data).expect("authentic");
    assert!(is_initiation(one.tick().0.as_deref()));
}

#[test]
fn keys_end_after_three_minutes_and_are_wiped() {
    let (mut one, mut other) = connected();
    let late = one.seal(&PLAIN).expect("keys");
    pass(&mut one, &mut other, REJECT_AFTER_TIME - 1);
    assert!(other.tunnel.is_connected(other.now));
    pass(&mut one, &mut other, 1);
    assert!(!other.tunnel.is_connected(other.now));
    assert!(other.seal(&PLAIN).is_none());
    assert_eq!(other.open(&late), Err(DropReason::NoKeys));
    let (_, lives) = other.tick();
    assert!(!lives && !other.has_keys(), "nothing is left to wait for");
}

#[test]
fn keys_that_nobody_confirms_are_wiped_too() {
    let (mut one, mut other) = pair();
    let initiation = one.initiate().expect("an initiation");
    other.take(&initiation).expect("authentic");
    assert!(other.tick().1);
    other.now += REJECT_AFTER_TIME;
    assert!(!other.tick().1 && !other.has_keys());
}

#[test]
fn a_session_with_traffic_one_way_goes_on_for_an_hour() {
    let (mut one, mut other) = connected();
    let mut handshakes = 0;
    for _ in 0..3600 {
        pass(&mut one, &mut other, SECOND);
        let data = other.seal(&PLAIN).expect("keys");
        one.open(&data).expect("authentic");
        let (message, _) = one.tick();
        match message {
            Some(message) if is_initiation(Some(&message)) => {
                handshakes += 1;
                let response = other.take(&message).expect("authentic").expect("an answer");
                let keepalive = one.take(&response).expect("authentic").expect("a keepalive");
                other.open(&keepalive).expect("authentic");
            }
            Some(message) => drop(other.open(&message).expect("authentic")),
            None => {}
        }
        assert!(other.tick().0.is_none(), "the responder has nothing to say by itself");
    }
    assert!((20..=40).contains(&handshakes), "{handshakes}");
}
