//! Each rule of the guard, with frames on both sides of its edge.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use weir_common::{
    DropReason, GuardConfig, Slot,
    account::SessionState,
    gcra::Rate,
    mac1::{Mac1Key, Mac1Keys},
    meter::{PAUSED_DATA, RESPONSES, ROAMING_DATA},
    packet::{Class, Verdict},
};

use super::{
    Loaded, SLOTS, config,
    frames::{FrameSpec, NODE_KEY, message, sign},
    receiver_index,
};

const MAC1: Verdict = Verdict::Drop(DropReason::GuardMac1);
const INITIATION: Verdict = Verdict::Pass(Class::Initiation);
const RESPONSE: Verdict = Verdict::Pass(Class::Response);

#[test]
fn a_handshake_message_passes_only_with_the_mac_of_the_node_s_key() {
    for linear in [false, true] {
        let loaded = Loaded::new(config(), linear);
        for v6 in [false, true] {
            let verdict = |payload: &[u8]| {
                let frame = FrameSpec { v6, ..FrameSpec::v4(payload) };
                loaded.fill_buckets(5);
                loaded.verdict(&frame.build())
            };
            for (kind, len, class) in [(1, 148, INITIATION), (2, 92, RESPONSE)] {
                let good = message(kind, len, receiver_index(5));
                assert_eq!(verdict(&good), class);
                let mut others = good.clone();
                sign(&mut others, &[0x6c; 32]);
                assert_eq!(verdict(&others), MAC1, "another key");
                // Type, reserved bytes and index have rules of their own.
                for byte in 12..len {
                    let mut flipped = good.clone();
                    flipped[byte] ^= 1 << (byte % 8);
                    let expected = if byte < len - 16 { MAC1 } else { class };
                    assert_eq!(verdict(&flipped), expected, "type {kind}, byte {byte}");
                }
            }
        }
    }
}

#[test]
fn a_mac_is_found_behind_tags_options_and_extension_headers() {
    let loaded = Loaded::new(config(), false);
    let good = message(1, 148, 0);
    let mut bad = good.clone();
    bad[60] ^= 1;
    for (payload, expected) in [(good, INITIATION), (bad, MAC1)] {
        let v4 = FrameSpec::v4(&payload);
        let v6 = FrameSpec::v6(&payload);
        let hop_by_hop = vec![(0, vec![0; 7])];
        for frame in [
            FrameSpec { vlans: vec![0x88a8, 0x8100], ..v4.clone() },
            FrameSpec { options: vec![1; 40], ..v4.clone() },
            FrameSpec { padding: 9, ..v4 },
            FrameSpec { extensions: hop_by_hop, vlans: vec![0x8100], ..v6 },
        ] {
            assert_eq!(loaded.verdict(&frame.build()), expected, "{frame:?}");
        }
    }
}

#[test]
fn both_keys_pass_while_one_follows_the_other() {
    let (old, new) = (NODE_KEY, [0x6c; 32]);
    let signed = |key| {
        let mut message = message(1, 148, 0);
        sign(&mut message, key);
        FrameSpec::v4(&message).build()
    };
    let (by_old, by_new) = (signed(&old), signed(&new));
    let mut loaded = Loaded::new(config(), false);
    assert_eq!([&by_old, &by_new].map(|frame| loaded.passes(frame)), [true, false]);
    let guard = |loaded: &mut Loaded| loaded.guard.take().expect("taken by drop only");
    let mut changed = guard(&mut loaded);
    changed.add_mac1_key(Mac1Key::new(&new)).expect("the kernel takes it");
    loaded.guard = Some(changed);
    assert_eq!([&by_old, &by_new].map(|frame| loaded.passes(frame)), [true, true]);
    let mut changed = guard(&mut loaded);
    changed.retire_mac1_key().expect("the kernel takes it");
    changed.retire_mac1_key().expect("one key is left alone");
    loaded.guard = Some(changed);
    assert_eq!([&by_old, &by_new].map(|frame| loaded.passes(frame)), [false, true]);
}

#[test]
fn without_a_key_no_mac_is_checked() {
    let loaded = Loaded::new(GuardConfig { mac1: Mac1Keys::default(), ..config() }, false);
    let mut message = message(1, 148, 0);
    sign(&mut message, &[1; 32]);
    assert_eq!(loaded.verdict(&FrameSpec::v4(&message).build()), INITIATION);
}

#[test]
fn messages_to_slots_without_a_session_are_dropped() {
    let loaded = Loaded::new(config(), false);
    loaded.set_state(7, SessionState::Vacant);
    let unknown = Verdict::Drop(DropReason::GuardIndex);
    for (kind, len, class) in
        [(2, 92, Class::Response), (3, 64, Class::CookieReply), (4, 32, Class::Data)]
    {
        let verdict = |slot| {
            loaded.verdict(&FrameSpec::v4(&message(kind, len, receiver_index(slot))).build())
        };
        assert_eq!(verdict(SLOTS - 1), Verdict::Pass(class));
        assert_eq!(verdict(SLOTS), unknown);
        assert_eq!(verdict(6), Verdict::Pass(class));
        assert_eq!(verdict(7), unknown);
        assert_eq!(verdict(8), Verdict::Pass(class));
    }
}

#[test]
fn nothing_of_a_closed_session_passes_and_its_account_says_so() {
    let loaded = Loaded::new(config(), false);
    loaded.set_state(7, SessionState::Closed);
    for (kind, len) in [(2, 92), (3, 64), (4, 32), (4, 1000)] {
        let frame = FrameSpec::v4(&message(kind, len, receiver_index(7))).build();
        assert_eq!(loaded.verdict(&frame), Verdict::Drop(DropReason::GuardClosed));
    }
    let counters = loaded.guard().accounts().get(Slot(7)).expect("an account").counters();
    assert_eq!((counters.dropped_datagrams, counters.dropped_bytes), (4, 92 + 64 + 32 + 1000));
    assert_eq!(counters.seen_datagrams, 0);
}

#[test]
fn a_paused_session_has_a_trickle_of_data_and_its_handshakes() {
    for by_credit in [false, true] {
        let loaded = Loaded::new(config(), false);
        let accounts = loaded.guard().accounts();
        let account = accounts.get(Slot(7)).expect("an account");
        if by_credit {
            account.set_limit(Some(5000));
            account.worker.spent.store(5000, Relaxed);
        } else {
            account.set_state(SessionState::Paused);
        }
        let data = FrameSpec::v4(&message(4, 200, receiver_index(7)));
        let other = FrameSpec::v4(&message(4, 200, receiver_index(8)));
        loaded.set_endpoint(7, &data);
        loaded.set_endpoint(8, &other);
        let (data, other) = (data.build(), other.build());
        assert_is_held_to(PAUSED_DATA, 500, || loaded.passes(&data));
        let verdict = |kind, len| {
            loaded.verdict(&FrameSpec::v4(&message(kind, len, receiver_index(7))).build())
        };
        assert_eq!(verdict(2, 92), RESPONSE);
        assert_eq!(verdict(3, 64), Verdict::Pass(Class::CookieReply));
        // One in 10 ms may pass, as long as the machine takes for one.
        let dropped = (0..100).any(|_| verdict(4, 32) == Verdict::Drop(DropReason::GuardPaused));
        assert!(dropped);
        assert!((0..500).all(|_| loaded.passes(&other)), "its neighbour has all");
        // New credit, or the control plane's word, opens it at once.
        account.set_state(SessionState::Open);
        account.set_limit(by_credit.then_some(6000));
        assert!((0..500).all(|_| loaded.passes(&data)));
    }
}

/// Of so many that come at once a burst passes, and what is refilled meanwhile.
fn assert_is_held_to(rate: Rate, tries: usize, mut passes: impl FnMut() -> bool) {
    let start = Instant::now();
    let passed = (0..tries).filter(|_| passes()).count() as u128;
    let burst = u128::from(rate.window / rate.interval);
    let refilled = start.elapsed().as_nanos() / u128::from(rate.interval);
    assert!(passed >= burst && passed <= burst + refilled + 1, "{passed} passed");
}

#[test]
fn data_that_does_not_come_from_the_sessions_endpoint_is_a_trickle_and_its_own_is_not() {
    for linear in [false, true] {
        let loaded = Loaded::new(config(), linear);
        let payload = message(4, 200, receiver_index(7));
        let v4 = FrameSpec::v4(&payload);
        let v6 = FrameSpec::v6(&payload);
        let passes = |from: &FrameSpec| loaded.passes(&from.build());
        // A session that was heard nowhere yet, and then at its endpoint.
        assert_is_held_to(ROAMING_DATA, 1000, || passes(&v4));
        let others = |own: &FrameSpec, other: &FrameSpec| {
            [
                FrameSpec { source_port: 40_001, ..own.clone() },
                FrameSpec { source: own.source ^ 1, ..own.clone() },
                FrameSpec { subnet: 1, v6: true, ..own.clone() },
                other.clone(),
            ]
        };
        for (own, other) in [(&v4, &v6), (&v6, &v4)] {
            for elsewhere in others(own, other) {
                loaded.set_endpoint(7, own);
                loaded.fill_buckets(7);
                assert_is_held_to(ROAMING_DATA, 1000, || passes(&elsewhere));
                let verdict = (0..100).map(|_| loaded.verdict(&elsewhere.build()));
                let refused = Verdict::Drop(DropReason::GuardRoaming);
                assert!(verdict.into_iter().any(|verdict| verdict == refused), "{elsewhere:?}");
                assert!((0..1000).all(|_| passes(own)), "the consumer has all");
                // It moves there.
                loaded.set_endpoint(7, &elsewhere);
                assert!((0..1000).all(|_| passes(&elsewhere)), "{elsewhere:?}");
            }
        }
        let neighbour = FrameSpec::v4(&message(4, 200, receiver_index(8)));
        assert!((0..100).all(|_| passes(&neighbour)), "another session's bucket is its own");
        let counters = loaded.guard().accounts().get(Slot(7)).expect("an account").counters();
        assert!(counters.dropped_datagrams > 1000, "{counters:?}");
    }
}

#[test]
fn a_sessions_responses_are_few_and_a_flood_from_elsewhere_leaves_it_half_of_them() {
    for linear in [false, true] {
        let loaded = Loaded::new(config(), linear);
        for (kind, len) in [(2, 92), (3, 64)] {
            let good = message(kind, len, receiver_index(7));
            let own = FrameSpec::v4(&good);
            loaded.set_endpoint(7, &own);
            loaded.fill_buckets(7);
            // With a wrong MAC nothing is taken.
            if kind == 2 {
                let mut bad = good.clone();
                bad[20] ^= 1;
                let bad = FrameSpec::v4(&bad).build();
                assert!((0..100).all(|_| loaded.verdict(&bad) == MAC1));
            }
            let mut source = 0;
            let mut elsewhere = || {
                source += 1;
                loaded.passes(&FrameSpec { source: source as u8, subnet: 1, ..own.clone() }.build())
            };
            assert_is_held_to(RESPONSES.half(), 100, &mut elsewhere);
            let half = RESPONSES.window / RESPONSES.interval / 2;
            assert!((0..half).all(|_| loaded.passes(&own.build())), "its own half");
            let verdicts: Vec<_> = (0..100).map(|_| loaded.verdict(&own.build())).collect();
            assert!(verdicts.contains(&Verdict::Drop(DropReason::GuardResponses)));
            assert_eq!(
                loaded.verdict(&FrameSpec::v4(&message(kind, len, receiver_index(8))).build()),
                if kind == 2 { RESPONSE } else { Verdict::Pass(Class::CookieReply) },
                "another session's bucket is its own"
            );
        }
    }
}

#[test]
fn a_source_has_its_burst_of_initiations_and_others_have_theirs() {
    let initiations = Rate::new(1, 5);
    let loaded = Loaded::new(GuardConfig { initiations, ..config() }, false);
    let start = Instant::now();
    let passed = |spec: &FrameSpec| (0..20).filter(|_| loaded.passes(&spec.build())).count();
    let mut bad = message(1, 148, 0);
    bad[50] ^= 1;
    let v4 = FrameSpec::v4(&message(1, 148, 0));
    let v6 = FrameSpec { v6: true, ..v4.clone() };
    assert_eq!(passed(&FrameSpec::v4(&bad)), 0, "these take nothing from the bucket");
    assert_eq!(passed(&v4), 5);
    assert_eq!(loaded.verdict(&v4.build()), Verdict::Drop(DropReason::GuardHandshakeSourceRate));
    assert_eq!(passed(&FrameSpec { source: 193, ..v4 }), 5, "another address");
    assert_eq!(passed(&v6), 5);
    assert_eq!(passed(&FrameSpec { source: 7, ..v6.clone() }), 0, "the same /64");
    assert_eq!(passed(&FrameSpec { subnet: 7, ..v6 }), 5, "another /64");
    assert!(start.elapsed().as_millis() < 1000, "too slow to tell");
    let data = FrameSpec::v4(&message(4, 32, receiver_index(1)));
    assert!(loaded.passes(&data.build()), "initiations only");
}

#[test]
fn all_sources_together_have_a_ceiling_and_those_with_a_cookie_one_of_their_own() {
    // Each CPU has buckets of its own, and the kernel runs the program where this thread is.
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).expect("a thread may choose among its CPUs");
    let loaded = Loaded::new(GuardConfig { ceiling: Rate::new(1, 7), ..config() }, false);
    let start = Instant::now();
    let with = message(1, 148, 0);
    let mut without = with.clone();
    without[132..].fill(0);
    let [with, without] = [with, without].map(|message| FrameSpec::v4(&message).build());
    let passed = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        (0..20u32)
            .filter(|source| {
                frame[26..30].copy_from_slice(&source.to_be_bytes());
                loaded.passes(&frame)
            })
            .count()
    };
    let mut bad = message(1, 148, 0);
    bad[50] ^= 1;
    assert_eq!(passed(&FrameSpec::v4(&bad).build()), 0, "these take nothing from the bucket");
    assert_eq!(passed(&without), 7);
    assert_eq!(loaded.verdict(&without), Verdict::Drop(DropReason::GuardHandshakeCpuRate));
    assert_eq!(passed(&with), 7, "who has a cookie keeps its chance");
    assert!(start.elapsed().as_millis() < 1000, "too slow to tell");
    let data = FrameSpec::v4(&message(4, 32, receiver_index(1)));
    assert!(loaded.passes(&data.build()), "initiations only");
}

#[test]
fn new_limits_count_at_once() {
    let mut loaded = Loaded::new(config(), false);
    let initiation = FrameSpec::v4(&message(1, 148, 0)).build();
    assert!((0..50).all(|_| loaded.passes(&initiation)), "no limit");
    let guard = loaded.guard.as_mut().expect("taken by drop only");
    guard
        .set_initiations(Rate::new(1, 3), Rate::UNLIMITED)
        .expect("the kernel takes a configuration");
    assert_eq!((0..50).filter(|_| loaded.passes(&initiation)).count(), 3);
}

#[test]
fn a_flood_of_sources_is_forgotten_and_never_refused() {
    let initiations = Rate::new(1, 1);
    let loaded = Loaded::new(GuardConfig { initiations, ..config() }, false);
    let mut frame = FrameSpec::v4(&message(1, 148, 0)).build();
    for source in 0..3 * weir_common::guard::SOURCES {
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        assert!(loaded.passes(&frame), "source {source}");
    }
}
