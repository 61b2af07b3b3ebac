use super::{
    Action::{Activate, Close, Doubt, Open},
    *,
};

/// Connected with the first of some candidates, at time 0.
fn connected(candidates: usize) -> ChangeOver {
    let mut change = ChangeOver::new(candidates);
    assert_eq!(change.handle(0, Event::Time), [Open { slot: Slot::A, candidate: 0 }]);
    assert_eq!(change.handle(0, Event::Answered(Slot::A)), [Activate(Slot::A)]);
    change
}

#[test]
fn the_next_tunnel_has_answered_before_the_present_one_goes() {
    let mut change = connected(3);
    let failed = Event::Failed(Slot::A, Cause::NoAnswer);
    assert_eq!(change.handle(1, failed), [Open { slot: Slot::B, candidate: 1 }]);
    assert_eq!(change.active(), Some((Slot::A, 0)), "it is used until then");
    assert_eq!(change.handle(1, failed), [], "it is known");
    assert_eq!(change.handle(2, Event::Time), []);
    assert_eq!(change.handle(2, Event::Answered(Slot::B)), [Activate(Slot::B), Close(Slot::A)]);
    assert_eq!(change.active(), Some((Slot::B, 1)));
    let failed = Event::Failed(Slot::B, Cause::NoTraffic);
    assert_eq!(change.handle(3, failed), [Open { slot: Slot::A, candidate: 2 }]);
}

#[test]
fn nodes_that_do_not_answer_are_tried_once_each_and_then_it_rests() {
    let mut change = ChangeOver::new(2);
    assert_eq!(change.handle(0, Event::Time), [Open { slot: Slot::A, candidate: 0 }]);
    let mut now = CONNECT_TIMEOUT;
    assert_eq!(
        change.handle(now, Event::Time),
        [Close(Slot::A), Open { slot: Slot::A, candidate: 1 }]
    );
    assert_eq!(change.handle(now, Event::CannotOpen(Slot::A)), [Close(Slot::A), Doubt]);
    assert_eq!(change.handle(now + 1, Event::Time), []);
    now += RETRY_DELAY;
    assert_eq!(change.handle(now, Event::Time), [Open { slot: Slot::A, candidate: 0 }]);
    assert!(!change.is_stuck());
}

#[test]
fn if_no_other_node_answers_the_present_one_stays() {
    let mut change = connected(2);
    let failed = Event::Failed(Slot::A, Cause::NoAnswer);
    assert_eq!(change.handle(1, failed), [Open { slot: Slot::B, candidate: 1 }]);
    let late = 1 + CONNECT_TIMEOUT;
    assert_eq!(change.handle(late, Event::Time), [Close(Slot::B), Doubt]);
    assert_eq!(change.active(), Some((Slot::A, 0)));
    assert_eq!(change.handle(late + 1, failed), [], "not again at once");
    let again = late + RETRY_DELAY;
    assert_eq!(change.handle(again, failed), [Open { slot: Slot::B, candidate: 1 }]);
}

#[test]
fn the_only_node_stays_unless_it_cheats() {
    let mut change = connected(1);
    assert_eq!(change.handle(1, Event::Failed(Slot::A, Cause::NoAnswer)), [Doubt]);
    assert_eq!(change.handle(2, Event::Failed(Slot::A, Cause::OutOfMoney)), []);
    assert_eq!(change.active(), Some((Slot::A, 0)));
    assert_eq!(change.handle(3, Event::Failed(Slot::A, Cause::Bill)), [Close(Slot::A)]);
    assert!(change.is_stuck());
    assert_eq!(change.handle(u64::MAX / 2, Event::Time), [], "nothing is tried again");
}

#[test]
fn a_node_that_cheats_is_never_tried_again() {
    for cause in [Cause::Bill, Cause::Receipt] {
        let mut change = connected(2);
        let failed = Event::Failed(Slot::A, cause);
        assert_eq!(change.handle(1, failed), [Open { slot: Slot::B, candidate: 1 }]);
        let answered = Event::Answered(Slot::B);
        assert_eq!(change.handle(1, answered), [Activate(Slot::B), Close(Slot::A)]);
        let failed = Event::Failed(Slot::B, Cause::NoAnswer);
        assert_eq!(change.handle(9, failed), [Doubt], "it is the last");
    }
}

#[test]
fn a_candidate_that_comes_later_is_a_spare_and_is_used() {
    let mut change = connected(1);
    assert_eq!(change.handle(1, Event::Failed(Slot::A, Cause::NoAnswer)), [Doubt]);
    assert_eq!(change.spares(), 0);
    change.add();
    assert_eq!(change.spares(), 1);
    let failed = Event::Failed(Slot::A, Cause::NoAnswer);
    let later = 1 + RETRY_DELAY;
    assert_eq!(change.handle(later, failed), [Open { slot: Slot::B, candidate: 1 }]);
    change.handle(later, Event::Answered(Slot::B));
    assert_eq!(change.spares(), 1, "the one before may come back");
}

#[test]
fn through_another_entry_everything_begins_again() {
    let mut change = ChangeOver::new(1);
    change.handle(0, Event::Time);
    let closed = change.handle(CONNECT_TIMEOUT, Event::Time);
    assert_eq!(closed, [Close(Slot::A), Doubt], "perhaps it is the entry");
    change.begin_again(CONNECT_TIMEOUT);
    let tried = change.handle(CONNECT_TIMEOUT, Event::Time);
    assert_eq!(tried, [Open { slot: Slot::A, candidate: 0 }], "without a rest");
    let now = 2 * CONNECT_TIMEOUT - 1;
    change.begin_again(now);
    assert_eq!(change.handle(now + CONNECT_TIMEOUT - 1, Event::Time), [], "it has its whole time");
    assert_eq!(
        change.handle(now + CONNECT_TIMEOUT - 1, Event::Answered(Slot::A)),
        [Activate(Slot::A)]
    );
}
