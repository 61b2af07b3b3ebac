//! Draws the live view on a terminal of any size.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Paragraph},
};
use weir_connect::state::State;

use super::state::View;
use crate::cli::{top::screen as top, units};

const KEYS: &str = " q quit ";
/// The columns of a field's name.
const NAME: usize = 11;

pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let area = frame.area();
    let chart = match area.height {
        24.. => 8,
        14.. => 5,
        _ => 0,
    };
    let [head, charts, fields, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(chart),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, head, view);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(charts);
    top::draw_chart(frame, left, "up", &view.up, top::UP);
    top::draw_chart(frame, right, "down", &view.down, top::DOWN);
    draw_fields(frame, fields, view);
    frame.render_widget(Line::from(KEYS.dim()), keys);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let status = &view.status;
    let (color, about) = match status.state {
        State::Connected => (Color::Green, ""),
        State::Connecting => (Color::Yellow, "nothing leaves until a node answers"),
        State::Closed => (Color::Yellow, "no tunnel, and nothing leaves"),
        State::Off => (Color::DarkGray, "nothing is closed: sudo weir connect --country DE"),
    };
    let badge = Span::from(format!(" {} ", status.state.as_str()));
    let mut parts = vec![badge.style(Style::new().fg(Color::Black).bg(color)), " ".into()];
    match &status.node {
        Some(node) => parts.push(node.clone().bold()),
        None => parts.push(about.into()),
    }
    if let Some(country) = &status.country {
        parts.push(format!("  {country}").into());
    }
    if let Some(since) = status.since {
        let time = units::span(view.now.saturating_sub(since));
        parts.push(format!("  for {time}").into());
    }
    frame.render_widget(Line::from(parts), area);
}

fn draw_fields(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let lines: Vec<Line<'_>> = fields(view)
        .into_iter()
        .map(|(name, text)| {
            let warn = name == "beside it" && view.status.dropped.is_some_and(|it| it > 0);
            let text = if warn { text.yellow() } else { text.into() };
            Line::from(vec![format!("{name:<NAME$}").dim(), text])
        })
        .collect();
    let block = Block::bordered().border_style(Style::new().dim()).title(" connection ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The names and values below the charts.
fn fields(view: &View) -> Vec<(&'static str, String)> {
    let status = &view.status;
    let mut fields = Vec::new();
    if let (Some(endpoint), Some(interface)) = (&status.endpoint, &status.interface) {
        let engine = status.engine.as_deref().unwrap_or("WireGuard");
        fields.push(("endpoint", format!("{endpoint} over {interface} with {engine}")));
        let (up, down) = (units::bytes(status.sent), units::bytes(status.received));
        fields.push(("carried", format!("{up} up, {down} down")));
    }
    if let Some(entry) = &status.entry {
        fields.push(("through", format!("{} at {}", entry.node, entry.endpoint)));
    }
    if let Some(left) = view.left() {
        let billed = status.billed_bytes.map(units::bytes);
        let billed = billed.map_or_else(String::new, |billed| format!("; billed {billed}"));
        fields.push(("left", left + &billed));
    }
    if let Some(money) = &status.money {
        let text = format!("{} of {} {}", money.spent, money.budget, money.unit);
        fields.push(("spent", text));
    }
    if let Some(receipt) = &status.receipt {
        fields.push(("receipt", crate::cli::connect::receipt(receipt, view.now)));
    }
    if let Some(dropped) = status.dropped {
        fields.push(("beside it", format!("{dropped} packets were dropped")));
    }
    if let Some(change) = &status.last_change {
        fields.push(("before", change.clone()));
    }
    fields
}
