use ratatui::{Terminal, backend::TestBackend};
use weir_connect::{
    receipt::{Origin, Pinned, Receipt, Verified},
    state::{Money, State},
};

use super::*;

pub(in crate::cli::connect) fn receipt() -> Verified {
    let receipt = Receipt {
        version: 1,
        session: "5f0c1d2e3a4b5c6d".into(),
        consumer: None,
        public_key: String::new(),
        sequence: 7,
        bytes_up: 1 << 30,
        packets_up: 1,
        bytes_down: 1 << 29,
        packets_down: 1,
        seconds: 600,
        start: 1,
        last_activity: 1,
        end_reason: None,
        signer: String::new(),
        signature: String::new(),
    };
    let pinned = Pinned { signer: "key".into(), origin: Origin::Configuration };
    Verified { node: "exit.conf".into(), pinned, receipt, at: 1050 }
}

/// A connection at its `tick`th second: 1 MB/s up, and N MB in the Nth second down.
fn status(tick: u64) -> Status {
    Status {
        state: State::Connected,
        node: Some("exit.conf".into()),
        country: Some("DE".into()),
        entry: None,
        endpoint: Some("45.80.2.2:51820".into()),
        interface: Some("weir-a".into()),
        engine: Some("the kernel's WireGuard".into()),
        since: Some(1000),
        received: tick * (tick + 1) / 2 * 1_000_000,
        sent: tick * 1_000_000,
        counted_ms: Some((1000 + tick) * 1000),
        left_bytes: Some(8 << 30),
        left_seconds: None,
        billed_bytes: Some(3 << 29),
        dropped: Some(214),
        last_change: Some("first.conf: it does not answer".into()),
        money: Some(Money { unit: "sat".into(), spent: 140, budget: 500 }),
        receipt: Some(receipt()),
    }
}

fn after(ticks: u64) -> View {
    let mut view = View::default();
    (0..=ticks).for_each(|tick| view.take(status(tick), 1000 + tick));
    view
}

fn picture(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| screen::draw(frame, view)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| format!("{}\n", line(y).trim_end())).collect()
}

#[test]
fn the_screen_has_the_node_the_rates_the_money_and_what_was_dropped() {
    let picture = picture(&after(60), 90, 20);
    let lines: Vec<_> = picture.lines().collect();
    assert!(lines[0].contains("connected  exit.conf  DE  for 1 min 0 s"), "{picture}");
    for part in [
        " up 8.00 Mbit/s ",
        " down 480 Mbit/s ",
        "endpoint   45.80.2.2:51820 over weir-a with the kernel's WireGuard",
        "left       8.00 GiB; billed 1.50 GiB",
        "spent      140 of 500 sat",
        "receipt    number 7 of exit.conf: 1.50 GiB in 10 min 0 s, verified 10 s ago",
        "beside it  214 packets were dropped",
        "before     first.conf: it does not answer",
        " q quit",
    ] {
        assert!(picture.contains(part), "{part:?} is not in\n{picture}");
    }
}

#[test]
fn any_size_of_terminal_and_any_state_will_do() {
    let views = [View::default(), after(3)];
    for (width, height) in [(1, 1), (2, 3), (20, 8), (80, 24), (300, 100)] {
        for view in &views {
            picture(view, width, height);
        }
    }
    let off = picture(&View::default(), 80, 24);
    assert!(off.contains(" off ") && off.contains("nothing is closed"), "{off}");
    for (state, said) in [(State::Closed, "nothing leaves"), (State::Connecting, "until a node")] {
        let mut view = View::default();
        view.take(Status { state, ..Status::default() }, 1);
        let text = picture(&view, 80, 24);
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn rates_are_between_counts_and_another_tunnel_begins_anew() {
    let mut view = after(5);
    assert_eq!(view.rates(), Some((1e6, 5e6)));
    // The same counts again: nothing is known for a moment, and then nothing is carried.
    view.take(status(5), 1006);
    assert_eq!(view.rates(), Some((1e6, 5e6)));
    view.take(status(5), 1009);
    assert_eq!(view.rates(), Some((0.0, 0.0)));
    let other = Status { node: Some("second.conf".into()), since: Some(1010), ..status(0) };
    view.take(other, 1010);
    assert_eq!(view.rates(), None);
}

#[test]
fn without_a_terminal_it_is_a_line() {
    let text = line(&after(5));
    let expected = "connected  exit.conf  DE  up 8.00 Mbit/s  down 40.0 Mbit/s  left 8.00 GiB  \
                    spent 140 of 500 sat  dropped 214";
    assert_eq!(text, expected);
    assert_eq!(line(&View::default()), "off");
    let mut view = View::default();
    let timed = Status { left_bytes: None, left_seconds: Some(60), ..status(1) };
    view.take(timed, 1001);
    assert!(line(&view).contains("left 1 min 0 s"), "{}", line(&view));
}

#[test]
fn q_escape_and_control_c_quit() {
    let press = |code, modifiers| is_quit(KeyEvent::new(code, modifiers));
    assert!(press(KeyCode::Char('q'), KeyModifiers::NONE));
    assert!(press(KeyCode::Esc, KeyModifiers::NONE));
    assert!(press(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(!press(KeyCode::Char('c'), KeyModifiers::NONE));
}
