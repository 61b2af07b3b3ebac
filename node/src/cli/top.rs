//! `weir top`: the running node, live, in a terminal.

use std::{
    io::IsTerminal as _,
    sync::mpsc::{self, TryRecvError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::signal::unix::{SignalKind, signal};

use self::state::{Answer, State, Step};
use super::out::Out;
use weir_control::client::Client;

pub(super) mod screen;
mod state;

/// The interval between two requests to the node.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// The interval between two checks for key presses.
const KEY_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time in which a view ends by itself once it is told to.
const END_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(client: Client, json: bool, out: &Out) -> anyhow::Result<()> {
    if json {
        bail!("weir top cannot print JSON: use weir status --json, or weir session list --json");
    }
    if !out.is_terminal() || !std::io::stdin().is_terminal() {
        bail!("weir top needs a terminal: use weir status, or weir session list");
    }
    // Report an error at the start as text, before the screen is set up.
    let first = look(&client)?;
    let (looks, answers) = mpsc::sync_channel(1);
    // In a thread of its own, so that keys work while the node does not answer.
    thread::spawn(move || {
        loop {
            thread::sleep(REFRESH_INTERVAL);
            let answer = look(&client).map_err(|error| format!("{error:#}"));
            if looks.send(answer).is_err() {
                return;
            }
        }
    });
    let told = told_to_end()?;
    on_screen(|terminal| watch(terminal, first, &answers, &told))
}

/// Runs `action`, then restores the terminal, even if `action` panics.
pub(super) fn on_screen(
    action: impl FnOnce(&mut DefaultTerminal) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("cannot set up the terminal")?;
    let done = action(&mut terminal);
    ratatui::try_restore().context("cannot restore the terminal. Fix: run reset")?;
    done
}

/// Handles SIGTERM and similar signals, which would otherwise leave the terminal in raw mode. The
/// process ends soon after one, even if its terminal is gone.
pub(super) fn told_to_end() -> anyhow::Result<mpsc::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("cannot wait for signals")?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(entered);
    let (tell, told) = mpsc::sync_channel(1);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        tell.send(()).ok();
        // Where the terminal is gone, what reads the keys never returns, and takes a whole core.
        thread::sleep(END_TIMEOUT);
        ratatui::try_restore().ok();
        std::process::exit(0);
    });
    Ok(told)
}

fn look(client: &Client) -> anyhow::Result<Answer> {
    Ok(Answer { status: client.get("/v1/status")?, sessions: super::session::all(client)? })
}

fn watch(
    terminal: &mut DefaultTerminal,
    first: Answer,
    answers: &mpsc::Receiver<Result<Answer, String>>,
    told: &mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let mut state = State::default();
    state.take(Ok(first));
    loop {
        terminal.draw(|frame| screen::draw(frame, &mut state)).context("cannot draw")?;
        if event::poll(KEY_POLL_INTERVAL).context("cannot read the keys")?
            && let Event::Key(key) = event::read().context("cannot read the keys")?
            && key.kind == KeyEventKind::Press
            && state.key(key) == Step::Quit
        {
            return Ok(());
        }
        if told.try_recv().is_ok() {
            return Ok(());
        }
        loop {
            match answers.try_recv() {
                Ok(answer) => state.take(answer),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    bail!("the thread that polls the node has ended")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
