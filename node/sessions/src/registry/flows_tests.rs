//! What is in the kernel of a session goes before its slot is another's.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    rig::{Call, Rig},
    *,
};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

#[test]
fn flows_go_between_the_sessions_of_a_slot() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 1);
    assert_eq!(rig.peers.take_all(), [Call::ForgetAllBut(Vec::new())]);
    let alice = rig.add(Some("alice")).session;
    rig.sessions.remove("alice").expect("removed");
    let bob = rig.add(Some("bob")).session;
    assert_eq!(
        rig.peers.take_all(),
        [
            Call::Add(alice.slot, alice.public_key),
            Call::Remove(alice.slot),
            Call::Forget(vec![FIRST]),
            Call::Add(bob.slot, bob.public_key),
        ]
    );
    drop(rig);
    // The next run knows only that nobody else may have any.
    let rig = Rig::start(folder.path(), 2);
    let first = rig.peers.take_all().into_iter().next();
    assert_eq!(first, Some(Call::ForgetAllBut(vec![FIRST])));
}

#[test]
fn a_slot_whose_flows_the_kernel_keeps_is_given_to_nobody_until_they_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 1);
    rig.add(Some("alice"));
    rig.peers.keeps_flows.store(true, Relaxed);
    rig.sessions.remove("alice").expect("the session itself has ended");
    for _ in 0..2 {
        let error = rig.sessions.add(NewSession::default()).expect_err("no slot is clean");
        assert!(matches!(error, SessionError::Full(1)), "{error}");
    }
    rig.peers.keeps_flows.store(false, Relaxed);
    rig.peers.take_all();
    rig.sessions.checkpoint().expect("written");
    assert_eq!(rig.peers.take_all(), [Call::Forget(vec![FIRST])]);
    rig.add(Some("bob"));
}
