//! `weir connect --status --watch`: the connection, live. A screen on a terminal, and else a line a
//! second.

use std::{
    fmt::Write as _,
    io::IsTerminal as _,
    sync::mpsc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use weir_connect::state::Status;

use self::state::View;
use crate::cli::{out::Out, top, units};

mod screen;
mod state;
#[cfg(test)]
pub(super) mod tests;

/// Between two looks at the connection.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval between two checks for key presses.
const KEY_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shows what `look` gives, with the time in seconds since 1970, until it is told to end.
pub(super) fn run(
    look: impl Fn() -> (Status, u64),
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    if json || !out.is_terminal() || !std::io::stdin().is_terminal() {
        return print(&look, json, out);
    }
    let told = top::told_to_end()?;
    top::on_screen(|terminal| watch(terminal, &look, &told))
}

/// Prints a line a second, until the reader or a signal ends it.
fn print(look: &impl Fn() -> (Status, u64), json: bool, out: &mut Out) -> anyhow::Result<()> {
    let mut view = View::default();
    loop {
        let (status, now) = look();
        let text = match json {
            true => serde_json::to_string(&status)?,
            false => {
                view.take(status, now);
                line(&view)
            }
        };
        out.text(&format!("{text}\n"))?;
        out.flush()?;
        sleep(LOOK_INTERVAL);
    }
}

fn watch(
    terminal: &mut DefaultTerminal,
    look: &impl Fn() -> (Status, u64),
    told: &mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let mut view = View::default();
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            let (status, now) = look();
            view.take(status, now);
            next = Instant::now() + LOOK_INTERVAL;
        }
        terminal.draw(|frame| screen::draw(frame, &view)).context("cannot draw")?;
        if event::poll(KEY_POLL_INTERVAL).context("cannot read the keys")?
            && let Event::Key(key) = event::read().context("cannot read the keys")?
            && key.kind == KeyEventKind::Press
            && is_quit(key)
        {
            return Ok(());
        }
        if told.try_recv().is_ok() {
            return Ok(());
        }
    }
}

fn is_quit(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || control && key.code == KeyCode::Char('c')
}

/// All of it on one line.
fn line(view: &View) -> String {
    let status = &view.status;
    let mut text = status.state.as_str().to_owned();
    // Writing to a string cannot fail.
    if let Some(node) = &status.node {
        write!(text, "  {node}").ok();
    }
    if let Some(country) = &status.country {
        write!(text, "  {country}").ok();
    }
    if let Some((up, down)) = view.rates() {
        write!(text, "  up {}  down {}", units::rate(up), units::rate(down)).ok();
    }
    if let Some(left) = view.left() {
        write!(text, "  left {left}").ok();
    }
    if let Some(money) = &status.money {
        write!(text, "  spent {} of {} {}", money.spent, money.budget, money.unit).ok();
    }
    if let Some(dropped) = status.dropped {
        write!(text, "  dropped {dropped}").ok();
    }
    text
}
