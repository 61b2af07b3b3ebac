//! Draws `weir top` on a terminal of any size.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row as Cells, Sparkline, Table},
};

use super::state::{Row, State};
use crate::cli::units;

pub(in crate::cli) const UP: Color = Color::Cyan;
pub(in crate::cli) const DOWN: Color = Color::Magenta;
const KEYS: &str = " q quit  s sort  r reverse  ↑↓ scroll  space pause ";
/// Ledgers that are older than this are shown as failing, in seconds.
const STALE: f64 = 10.0;

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let area = frame.area();
    let rows = |height: u16| if area.height >= height { height } else { 0 };
    let chart = if area.height >= 30 { 8 } else { 5 };
    let workers = state.busy.len().clamp(1, 6) as u16 + 2;
    let middle = if rows(20) > 0 { workers.max(5) } else { 0 };
    let [head, charts, middle, sessions, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if rows(12) > 0 { chart } else { 0 }),
        Constraint::Length(middle),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, head, state);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(charts);
    draw_chart(frame, left, "up", &state.up, UP);
    draw_chart(frame, right, "down", &state.down, DOWN);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(middle);
    draw_workers(frame, left, state);
    draw_drops(frame, right, state);
    draw_sessions(frame, sessions, state);
    let hold = if state.held { " display paused ".black().on_yellow() } else { Span::raw("") };
    frame.render_widget(Line::from(vec![KEYS.dim(), hold]), keys);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, state: &State) {
    if let Some(error) = &state.error {
        frame.render_widget(Line::from(format!(" {error} ")).white().on_red(), area);
        return;
    }
    let Some(last) = &state.last else { return };
    let status = &last.status;
    let up = units::span(status.uptime_seconds.max(0.0) as u64);
    let mut parts = vec![
        format!(" weir {} ", status.version).bold(),
        format!(" up {up}  {} of {} sessions", status.sessions, status.max_sessions).into(),
    ];
    parts.push(match status.xdp_mode.as_str() {
        "off" => "  no XDP guard".yellow(),
        mode => format!("  XDP {mode}").into(),
    });
    if status.ledger_age_seconds > STALE {
        let age = units::span(status.ledger_age_seconds as u64);
        parts.push(format!("  ledger not written for {age}").white().on_red());
    }
    if status.unpaid_bytes > 0 {
        parts.push(format!("  unpaid {}", units::bytes(status.unpaid_bytes)).yellow());
    }
    frame.render_widget(Line::from(parts), area);
}

pub(in crate::cli) fn draw_chart(
    frame: &mut Frame<'_>,
    area: Rect,
    name: &str,
    history: &std::collections::VecDeque<u64>,
    color: Color,
) {
    let now = history.back().map_or("-".to_owned(), |rate| units::rate(*rate as f64));
    let width = usize::from(area.width.saturating_sub(2));
    let shown: Vec<u64> =
        history.iter().skip(history.len().saturating_sub(width)).copied().collect();
    let peak = shown.iter().copied().max().unwrap_or_default();
    let title =
        Line::from(vec![format!(" {name} ").into(), Span::from(now).fg(color).bold(), " ".into()]);
    let peak = Line::from(format!(" peak {} ", units::rate(peak as f64))).dim().right_aligned();
    let block = Block::bordered().border_style(Style::new().dim()).title(title).title_bottom(peak);
    // The latest value is at the right edge.
    let padded =
        std::iter::repeat_n(0, width.saturating_sub(shown.len())).chain(shown.iter().copied());
    let chart = Sparkline::default().data(padded.collect::<Vec<_>>()).style(Style::new().fg(color));
    frame.render_widget(chart.block(block), area);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let width = usize::from(area.width.saturating_sub(19));
    let cores = state.last.as_ref().map(|last| last.status.worker_cores.as_slice());
    let lines: Vec<Line<'_>> = state
        .busy
        .iter()
        .enumerate()
        .map(|(worker, busy)| {
            let core = cores.and_then(|cores| cores.get(worker)).copied().unwrap_or_default();
            let filled = (busy * width as f64).round() as usize;
            let color = if *busy > 0.9 { Color::Red } else { Color::Green };
            Line::from(vec![
                format!("core {core:<4}{:>5.1} % ", busy * 100.0).into(),
                Span::from("█".repeat(filled.min(width))).fg(color),
                "·".repeat(width.saturating_sub(filled)).dim(),
            ])
        })
        .collect();
    let block = Block::bordered().border_style(Style::new().dim()).title(" workers, busy ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_drops(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let block =
        Block::bordered().border_style(Style::new().dim()).title(" drops per second, total ");
    let mut lines: Vec<Line<'_>> = Vec::new();
    let name = usize::from(area.width.saturating_sub(24));
    for (drops, rate) in &state.dropping {
        let text = format!(
            "{:<name$.name$}{rate:>9.0}{:>13}",
            format!("{} {}", drops.stage, drops.reason),
            drops.packets
        );
        lines.push(if *rate > 0.0 { Line::from(text).yellow() } else { Line::from(text).dim() });
    }
    if lines.is_empty() {
        lines.push(Line::from("none").dim());
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_sessions(frame: &mut Frame<'_>, area: Rect, state: &mut State) {
    let room = usize::from(area.height.saturating_sub(3));
    state.top = state.top.min(state.rows.len().saturating_sub(room));
    let shown = state.rows.iter().skip(state.top).take(room);
    let wide = area.width >= 100;
    let head = ["session", "state", "up", "down", "total up", "total down", "left", "handshake"];
    // A truncated rate would read as a different rate.
    let narrow = area.width < 56;
    let widths: Vec<_> = match (wide, narrow) {
        (true, _) => vec![7, 11, 11, 10, 10, 10, 13],
        (_, true) => vec![11, 11],
        _ => vec![7, 11, 11, 10],
    };
    let widths = widths.into_iter().map(Constraint::Length);
    let widths = std::iter::once(Constraint::Min(10)).chain(widths);
    let cells = shown.map(|row| {
        let cells = cells(row, wide, state.now).into_iter().enumerate();
        Cells::new(cells.filter(|(at, _)| !narrow || [0, 2, 3].contains(at)).map(|(_, cell)| cell))
    });
    let order = if state.reverse { ", reversed" } else { "" };
    let title = format!(" sessions by {}{order} ", state.sort.as_str());
    let range = match state.rows.len() {
        0 => " none yet: weir session add ".to_owned(),
        count => format!(" {} to {} of {count} ", state.top + 1, (state.top + room).min(count)),
    };
    let block = Block::bordered()
        .border_style(Style::new().dim())
        .title(title)
        .title_bottom(Line::from(range).dim().right_aligned());
    let head = match (wide, narrow) {
        (true, _) => head.to_vec(),
        (_, true) => vec!["session", "up", "down"],
        _ => vec!["session", "state", "up", "down", "total"],
    };
    let head = head.into_iter().map(|text| {
        let line = Line::from(text).bold();
        let is_word = ["session", "state"].contains(&text);
        Cell::new(if is_word { line } else { line.right_aligned() })
    });
    let table = Table::new(cells, widths).header(Cells::new(head)).block(block);
    frame.render_widget(table, area);
}

fn cells(row: &Row, wide: bool, now: u64) -> Vec<Cell<'static>> {
    let session = &row.session;
    let right = |text: String| Cell::new(Line::from(text).right_aligned());
    let rate = |rate: f64, color: Color| {
        let line = Line::from(if rate > 0.0 { units::rate(rate) } else { "-".to_owned() });
        Cell::new(line.right_aligned().fg(if rate > 0.0 { color } else { Color::DarkGray }))
    };
    let state = match session.state.as_str() {
        "open" => Span::from("open").green(),
        other => Span::from(other.to_owned()).yellow(),
    };
    let name = session.name.clone().unwrap_or_else(|| session.id.clone());
    let mut cells = vec![Cell::new(name), Cell::new(state), rate(row.up, UP), rate(row.down, DOWN)];
    let total = session.bytes_up.saturating_add(session.bytes_down);
    if !wide {
        cells.push(right(units::bytes(total)));
        return cells;
    }
    let left = session.credit_bytes.map(|credit| units::bytes(credit.saturating_sub(total)));
    let ago = session.last_handshake.map(|moment| units::span(now.saturating_sub(moment)));
    cells.push(right(units::bytes(session.bytes_up)));
    cells.push(right(units::bytes(session.bytes_down)));
    cells.push(right(left.unwrap_or_else(|| "-".to_owned())));
    cells.push(right(ago.unwrap_or_else(|| "never".to_owned())));
    cells
}
