//! The state of `weir top`: the last answers, and the rates between them.

use std::{
    collections::{HashMap, VecDeque},
    time::SystemTime,
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use weir_accounts::Drops;
use weir_control::{
    api::view::{AllSessions, SessionView},
    view::Status,
};

/// The number of rates that are kept, more than any terminal has columns.
const HISTORY: usize = 512;

/// The node's answers to one round of requests.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) sessions: AllSessions,
}

/// Whether to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Go,
    Quit,
}

/// The column by which sessions are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Rate,
    Total,
    Handshake,
    Name,
}

impl Sort {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Total => "total",
            Self::Handshake => "handshake",
            Self::Name => "name",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Total,
            Self::Total => Self::Handshake,
            Self::Handshake => Self::Name,
            Self::Name => Self::Rate,
        }
    }
}

/// A session with its rates, in bytes per second.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) session: SessionView,
    pub(super) up: f64,
    pub(super) down: f64,
}

/// Everything that is on the screen.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) last: Option<Answer>,
    /// Why there is no newer answer.
    pub(super) error: Option<String>,
    /// Bytes per second from and to consumers, the latest last.
    pub(super) up: VecDeque<u64>,
    pub(super) down: VecDeque<u64>,
    /// The busy fraction of each worker, 0 to 1.
    pub(super) busy: Vec<f64>,
    /// Drops that grew, with packets per second; most first.
    pub(super) dropping: Vec<(Drops, f64)>,
    pub(super) rows: Vec<Row>,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) held: bool,
    /// The first session on the screen.
    pub(super) top: usize,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl State {
    /// Takes the node's answer, or the error.
    pub(super) fn take(&mut self, answer: Result<Answer, String>) {
        if self.held {
            return;
        }
        self.now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        match answer {
            Ok(answer) => {
                self.error = None;
                self.compare(answer);
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn compare(&mut self, answer: Answer) {
        let now = &answer.status;
        // A restarted node counts from zero, so there is nothing to compare with.
        let before =
            self.last.take().filter(|last| last.status.uptime_seconds < now.uptime_seconds);
        let then = before.as_ref().map(|last| &last.status);
        let seconds = then.map_or(f64::INFINITY, |then| now.uptime_seconds - then.uptime_seconds);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        if let Some(then) = then {
            push(&mut self.up, rate(now.bytes_up, then.bytes_up));
            push(&mut self.down, rate(now.bytes_down, then.bytes_down));
        }
        self.busy = now
            .worker_busy_seconds
            .iter()
            .enumerate()
            .map(|(worker, spent)| {
                let before = then.and_then(|then| then.worker_busy_seconds.get(worker));
                ((spent - before.unwrap_or(spent)) / seconds).clamp(0.0, 1.0)
            })
            .collect();
        let grown = now.drops.iter().filter(|drops| drops.packets > 0).map(|drops| {
            let same = |old: &&Drops| old.stage == drops.stage && old.reason == drops.reason;
            let old = then.and_then(|then| then.drops.iter().find(same));
            (drops.clone(), rate(drops.packets, old.map_or(drops.packets, |old| old.packets)))
        });
        self.dropping = grown.collect();
        self.dropping.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.packets.cmp(&a.0.packets)));

        let known: HashMap<&str, &SessionView> = before
            .iter()
            .flat_map(|last| &last.sessions.sessions)
            .map(|session| (session.id.as_str(), session))
            .collect();
        let row = |session: &SessionView| {
            let old = known.get(session.id.as_str());
            let rate =
                |now: u64, of: fn(&SessionView) -> u64| rate(now, old.map_or(now, |old| of(old)));
            let up = rate(session.bytes_up, |old| old.bytes_up);
            let down = rate(session.bytes_down, |old| old.bytes_down);
            Row { session: session.clone(), up, down }
        };
        self.rows = answer.sessions.sessions.iter().map(row).collect();
        self.arrange();
        self.last = Some(answer);
    }

    /// Puts the sessions into their order. Equal ones stay in theirs, the oldest first.
    fn arrange(&mut self) {
        let name = |row: &Row| row.session.name.clone().unwrap_or_else(|| row.session.id.clone());
        let total = |row: &Row| row.session.bytes_up.saturating_add(row.session.bytes_down);
        match self.sort {
            Sort::Rate => self.rows.sort_by(|a, b| (b.up + b.down).total_cmp(&(a.up + a.down))),
            Sort::Total => self.rows.sort_by_key(|row| std::cmp::Reverse(total(row))),
            Sort::Handshake => {
                self.rows.sort_by_key(|row| std::cmp::Reverse(row.session.last_handshake));
            }
            Sort::Name => self.rows.sort_by_key(name),
        }
        if self.reverse {
            self.rows.reverse();
        }
    }

    /// Handles a key press.
    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Step::Quit,
            KeyCode::Char('c') if control => return Step::Quit,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char(' ') => self.held = !self.held,
            KeyCode::Down | KeyCode::Char('j') => self.top = self.top.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top = self.top.saturating_add(20),
            KeyCode::PageUp => self.top = self.top.saturating_sub(20),
            KeyCode::Home => self.top = 0,
            KeyCode::End => self.top = self.rows.len(),
            _ => return Step::Go,
        }
        self.arrange();
        Step::Go
    }
}

fn push(history: &mut VecDeque<u64>, rate: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(rate as u64);
}
