//! `weir session`.

use std::fmt::Write as _;

use super::{out::Out, qr, units};
use weir_config::amounts::BitRate;
use weir_control::api::{
    MAX_PAGE,
    view::{
        AllSessions, CreditRequest, MadeSession, OneSession, RateRequest, SessionRequest,
        SessionView,
    },
};
use weir_control::client::{Client, escape};
use weir_ledger::unix_now;

pub(super) fn add(
    client: &Client,
    request: &SessionRequest,
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    let has_key = request.public_key.is_some();
    let made: MadeSession = client.post("/v1/sessions", request)?;
    if json {
        return out.json(&made);
    }
    out.text(&made.config)?;
    if has_key || !out.is_terminal() {
        return Ok(());
    }
    if let Some(code) = qr::render(&made.config) {
        out.text("\n")?;
        out.text(&code)?;
    }
    err.text("Keep this configuration: its private key is stored nowhere else.\n")?;
    Ok(())
}

pub(super) fn list(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let all = all(client)?;
    if json {
        return out.json(&all);
    }
    out.text(&table(&all.sessions, unix_now()))?;
    Ok(())
}

/// Fetches all sessions page by page, the oldest first.
pub(super) fn all(client: &Client) -> anyhow::Result<AllSessions> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/sessions?limit={MAX_PAGE}&after={after}");
        let page: AllSessions = client.get(&path)?;
        all.extend(page.sessions);
        match page.cursor {
            Some(cursor) => after = cursor,
            None => break,
        }
    }
    all.sort_by_key(|session| (session.created, session.slot));
    Ok(AllSessions { sessions: all, cursor: None })
}

pub(super) fn show(client: &Client, which: &str, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let one: OneSession = client.get(&format!("/v1/sessions/{}", escape(which)))?;
    if json {
        return out.json(&one);
    }
    out.text(&details(&one.session, unix_now()))?;
    Ok(())
}

pub(super) fn remove(
    client: &Client,
    which: &str,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let one: OneSession = client.delete(&format!("/v1/sessions/{}", escape(which)))?;
    if json {
        return out.json(&one);
    }
    out.text(&format!("removed; final counters:\n{}", details(&one.session, unix_now())))?;
    Ok(())
}

pub(super) fn credit(
    client: &Client,
    which: &str,
    request: &CreditRequest,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let path = format!("/v1/sessions/{}/credit", escape(which));
    let one: OneSession = client.post(&path, request)?;
    print(&one, json, out)
}

pub(super) fn rate(
    client: &Client,
    which: &str,
    request: &RateRequest,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let path = format!("/v1/sessions/{}/rate", escape(which));
    let one: OneSession = client.put(&path, request)?;
    print(&one, json, out)
}

/// Pauses, resumes or closes a session.
pub(super) fn tell(
    client: &Client,
    which: &str,
    what: &str,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let path = format!("/v1/sessions/{}/{what}", escape(which));
    let one: OneSession = client.post(&path, &serde_json::json!({}))?;
    print(&one, json, out)
}

fn print(one: &OneSession, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(one);
    }
    out.text(&details(&one.session, unix_now()))?;
    Ok(())
}

/// All sessions, one per line.
fn table(sessions: &[SessionView], now: u64) -> String {
    if sessions.is_empty() {
        return "no sessions yet; add one with: weir session add\n".to_owned();
    }
    let head = ["ID", "NAME", "STATE", "ADDRESS", "UP", "DOWN", "HANDSHAKE"].map(str::to_owned);
    let rows = sessions.iter().map(|session| {
        [
            session.id.clone(),
            session.name.clone().unwrap_or_else(|| "-".to_owned()),
            session.state.clone(),
            session.address_v4.to_string(),
            units::bytes(session.bytes_up),
            units::bytes(session.bytes_down),
            handshake(session, now),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..7).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = match column {
                4 | 5 => format!("{cell:>width$}  "),
                _ => format!("{cell:<width$}  "),
            };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One session, one property per line.
fn details(session: &SessionView, now: u64) -> String {
    let exact = |bytes: u64| format!("{} ({bytes} bytes)", units::bytes(bytes));
    let traffic = |bytes: u64, packets: u64| format!("{} in {packets} packets", exact(bytes));
    let guard = &session.guard;
    let created = format!("{}, {}", units::utc(session.created), units::ago(session.created, now));
    let lines = [
        ("session", session.id.clone()),
        ("name", session.name.clone().unwrap_or_else(|| "-".to_owned())),
        ("state", state(session)),
        ("slot", session.slot.to_string()),
        ("public key", session.public_key.clone()),
        ("addresses", format!("{}, {}", session.address_v4, session.address_v6)),
        ("created", created),
        ("open for", units::span(session.seconds)),
        ("credit", credit_left(session)),
        ("rate", format!("up {}, down {}", own(session.rate_up), own(session.rate_down))),
        ("last handshake", handshake(session, now)),
        ("up", traffic(session.bytes_up, session.packets_up)),
        ("down", traffic(session.bytes_down, session.packets_down)),
        ("handshakes up", exact(session.handshake_bytes_up)),
        ("handshakes down", exact(session.handshake_bytes_down)),
        ("guard saw", format!("{} in {} datagrams", exact(guard.bytes), guard.datagrams)),
        (
            "guard dropped",
            format!("{} in {} datagrams", exact(guard.dropped_bytes), guard.dropped_datagrams),
        ),
    ];
    lines.iter().fold(String::new(), |mut text, (what, value)| {
        // Writing to a string cannot fail.
        writeln!(text, "{what:<16}{value}").ok();
        text
    })
}

fn state(session: &SessionView) -> String {
    match &session.paused_for {
        Some(reason) => format!("{} ({reason})", session.state),
        None => session.state.clone(),
    }
}

/// The session's own rate, in words.
fn own(rate: Option<u64>) -> String {
    rate.map_or("node default".to_owned(), |bits| BitRate::new(bits).to_string())
}

/// The remaining credit, in words.
fn credit_left(session: &SessionView) -> String {
    let used = session.bytes_up.saturating_add(session.bytes_down);
    let left = |credit: u64| format!("{} left", units::bytes(credit.saturating_sub(used)));
    let bytes = session.credit_bytes.map(left);
    let time = session
        .credit_seconds
        .map(|credit| format!("{} left", units::span(credit.saturating_sub(session.seconds))));
    let parts: Vec<_> = bytes.into_iter().chain(time).collect();
    if parts.is_empty() { "no limit".to_owned() } else { parts.join(", ") }
}

fn handshake(session: &SessionView, now: u64) -> String {
    session.last_handshake.map_or_else(|| "never".to_owned(), |at| units::ago(at, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_control::api::view::GuardView;

    fn session() -> SessionView {
        SessionView {
            id: "5f0c1d2e3a4b5c6d".to_owned(),
            name: Some("alice".to_owned()),
            slot: 7,
            public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned(),
            address_v4: [10, 66, 0, 9].into(),
            address_v6: "fd00:66::9".parse().expect("an address"),
            state: "open".to_owned(),
            created: 1_700_000_000,
            last_handshake: Some(1_700_000_100),
            bytes_up: 1536,
            packets_up: 2,
            bytes_down: 5 << 30,
            packets_down: 4_000_000,
            handshake_bytes_up: 148,
            handshake_bytes_down: 92,
            seconds: 0,
            credit_bytes: None,
            credit_seconds: None,
            rate_up: None,
            rate_down: Some(20_000_000),
            paused_for: None,
            guard: GuardView {
                datagrams: 3,
                bytes: 1684,
                dropped_datagrams: 1,
                dropped_bytes: 148,
            },
        }
    }

    #[test]
    fn the_list_is_a_plain_aligned_table() {
        let mut nameless = SessionView { name: None, last_handshake: None, ..session() };
        nameless.bytes_down = 0;
        let expected = "\
ID                NAME   STATE  ADDRESS          UP      DOWN  HANDSHAKE
5f0c1d2e3a4b5c6d  alice  open   10.66.0.9  1.50 KiB  5.00 GiB  1 min 0 s ago
5f0c1d2e3a4b5c6d  -      open   10.66.0.9  1.50 KiB       0 B  never
";
        assert_eq!(table(&[session(), nameless], 1_700_000_160), expected);
        assert!(table(&[], 0).contains("weir session add"));
    }

    #[test]
    fn the_details_have_exact_numbers_beside_readable_ones() {
        let text = details(&session(), 1_700_000_160);
        for line in [
            "session         5f0c1d2e3a4b5c6d",
            "addresses       10.66.0.9, fd00:66::9",
            "created         2023-11-14 22:13:20 UTC, 2 min 40 s ago",
            "last handshake  1 min 0 s ago",
            "up              1.50 KiB (1536 bytes) in 2 packets",
            "down            5.00 GiB (5368709120 bytes) in 4000000 packets",
            "guard saw       1.64 KiB (1684 bytes) in 3 datagrams",
            "rate            up node default, down 20 Mbit/s",
            "guard dropped   148 B (148 bytes) in 1 datagrams",
        ] {
            assert!(text.lines().any(|is| is == line), "{line:?} is not in\n{text}");
        }
    }
}
