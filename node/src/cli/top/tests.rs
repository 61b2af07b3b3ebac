use std::process::{Command, Stdio};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::*;
use weir_control::{
    api::view::{AllSessions, GuardView, SessionView},
    testing::StillNode,
    view::NodeView as _,
};

fn session(number: u32, bytes: u64) -> SessionView {
    SessionView {
        id: format!("{number:016x}"),
        name: number.is_multiple_of(2).then(|| format!("consumer-{number}")),
        slot: number,
        public_key: String::new(),
        address_v4: [10, 66, 0, 2].into(),
        address_v6: [0; 8].map(|_: u16| 0).into(),
        state: if number == 3 { "paused" } else { "open" }.to_owned(),
        created: 0,
        last_handshake: (number > 1).then_some(1),
        bytes_up: bytes,
        packets_up: 1,
        bytes_down: 2 * bytes,
        packets_down: 1,
        handshake_bytes_up: 0,
        handshake_bytes_down: 0,
        seconds: 1,
        credit_bytes: (number == 2).then_some(1 << 40),
        credit_seconds: None,
        rate_up: None,
        rate_down: None,
        paused_for: None,
        guard: GuardView { datagrams: 0, bytes: 0, dropped_datagrams: 0, dropped_bytes: 0 },
    }
}

/// The node at its `tick`th second: worker 1 is busy for half of it, session N has N MB/s.
fn answer(tick: u64, sessions: u32) -> Answer {
    let mut status = StillNode.status();
    status.uptime_seconds = 100.0 + tick as f64;
    status.worker_busy_seconds = vec![0.0, 50.0 + tick as f64 / 2.0];
    status.bytes_up = tick * 1_250_000 * (1 + tick % 3);
    status.bytes_down = tick * 125_000_000;
    status.drops[0].packets = 70 * tick;
    let sessions =
        (1..=sessions).map(|number| session(number, tick * 1_000_000 * u64::from(number)));
    Answer { status, sessions: AllSessions { sessions: sessions.collect(), cursor: None } }
}

fn after(ticks: u64, sessions: u32) -> State {
    let mut state = State::default();
    (0..=ticks).for_each(|tick| state.take(Ok(answer(tick, sessions))));
    state.now = 61;
    state
}

fn picture(state: &mut State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| screen::draw(frame, state)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| format!("{}\n", line(y).trim_end())).collect()
}

fn press(state: &mut State, code: KeyCode) -> Step {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn first(state: &State) -> &str {
    &state.rows[0].session.id
}

#[test]
fn the_picture_is_the_one_that_was_looked_at() {
    let picture = picture(&mut after(5, 3), 110, 24);
    assert_eq!(picture, include_str!("screen.txt"), "now it is\n{picture}");
}

#[test]
fn any_size_of_terminal_will_do() {
    let mut empty = State::default();
    let mut full = after(3, 50);
    for (width, height) in [(1, 1), (2, 3), (10, 5), (20, 11), (60, 12), (80, 24), (300, 100)] {
        picture(&mut empty, width, height);
        let text = picture(&mut full, width, height);
        assert_eq!(text.contains("sessions by rate"), width >= 20 && height > 5, "{text}");
    }
    let narrow = picture(&mut full, 80, 24);
    assert!(narrow.contains(" up ") && narrow.contains("total"), "{narrow}");
    // What does not fit is left out whole: half of a number is another number.
    let phone = picture(&mut full, 40, 24);
    assert!(phone.contains(" 400 Mbit/s  800 Mbit/s") && !phone.contains("total"), "{phone}");
}

#[test]
fn rates_are_of_the_last_second_and_a_restart_begins_anew() {
    let mut state = after(5, 3);
    assert_eq!(state.busy, [0.0, 0.5]);
    assert_eq!(state.down.back(), Some(&125_000_000));
    assert_eq!((state.rows[0].up, state.rows[0].down), (3e6, 6e6));
    assert_eq!(state.dropping[0].1, 70.0);
    state.take(Ok(answer(0, 3)));
    assert_eq!((state.rows[0].up, state.busy[1], state.dropping.len()), (0.0, 0.0, 0));
    assert_eq!(state.down.len(), 5, "nothing is known of the time between");
}

#[test]
fn keys_sort_scroll_hold_and_quit() {
    let mut state = after(5, 50);
    assert_eq!(first(&state), "0000000000000032");
    press(&mut state, KeyCode::Char('r'));
    assert_eq!(first(&state), "0000000000000001");
    press(&mut state, KeyCode::Char('r'));
    for (sort, expected) in [
        ("total", "0000000000000032"),
        ("handshake", "0000000000000032"),
        ("name", "0000000000000001"),
        ("rate", "0000000000000032"),
    ] {
        press(&mut state, KeyCode::Char('s'));
        assert_eq!(state.sort.as_str(), sort);
        // Equal handshakes stay in the order that they had.
        assert_eq!(first(&state), expected, "{sort}");
    }
    press(&mut state, KeyCode::End);
    assert!(picture(&mut state, 80, 24).contains("of 50"));
    assert!(state.top > 30 && state.top < 50, "not beyond the last");
    press(&mut state, KeyCode::Home);
    assert_eq!(state.top, 0);
    press(&mut state, KeyCode::Char(' '));
    state.take(Ok(answer(6, 1)));
    assert_eq!(state.rows.len(), 50, "held");
    assert!(picture(&mut state, 80, 24).contains("display paused"));
    assert_eq!(press(&mut state, KeyCode::Char('x')), Step::Go);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Step::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.key(interrupt), Step::Quit);
}

#[test]
fn trouble_is_said_and_the_last_answer_stays() {
    let mut state = after(2, 3);
    state.take(Err("nothing listens on /run/weir/weir.sock".to_owned()));
    let text = picture(&mut state, 80, 24);
    assert!(text.contains("nothing listens") && text.contains("consumer-2"), "{text}");
    state.take(Ok(answer(3, 3)));
    assert!(!picture(&mut state, 80, 24).contains("nothing listens"));
    let mut stale = answer(4, 3);
    stale.status.ledger_age_seconds = 70.0;
    state.take(Ok(stale));
    assert!(picture(&mut state, 110, 24).contains("ledger not written for 1 min 10 s"));
}

/// Runs itself again in a terminal, which `script` of util-linux makes, and panics there.
#[test]
fn a_panic_puts_the_terminal_back() {
    const INSIDE: &str = "WEIR_TEST_PANICS_ON_SCREEN";
    if std::env::var_os(INSIDE).is_some() {
        on_screen(|_| panic!("on purpose")).expect("a screen");
    }
    let own = std::env::current_exe().expect("a path");
    let name = "cli::top::tests::a_panic_puts_the_terminal_back";
    let line = format!(
        "stty rows 24 cols 80; before=$(stty -g); {} --exact {name} --nocapture; \
         test \"$before\" = \"$(stty -g)\" && echo AS-BEFORE",
        own.display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--command", &line, "/dev/null"]).env(INSIDE, "1");
    let output = script.env("TERM", "xterm").stdin(Stdio::null()).output().expect("script");
    let shown = String::from_utf8_lossy(&output.stdout);
    let (enter, leave) = (shown.find("\x1b[?1049h"), shown.rfind("\x1b[?1049l"));
    assert!(enter.is_some() && leave > enter, "{shown}");
    assert!(shown.rfind("on purpose") > enter, "{shown}");
    assert!(shown.contains("AS-BEFORE"), "{shown}");
}
