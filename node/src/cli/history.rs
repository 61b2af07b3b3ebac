//! What this machine's own connections were like: a file beside the wallet.

use std::path::PathBuf;

use weir_connect::{
    change_over::Cause,
    visit::{Remember, Visit},
};
use weir_ledger::unix_now;
use weir_market::{
    attestation::Reason,
    history::{HistoryFile, Measurement, Measurements},
};

use super::{out::Out, wallet};

fn file(wallet: Option<PathBuf>) -> Option<HistoryFile> {
    // Without a home directory there is no wallet, and nothing to remember.
    let directory = wallet::directory(wallet).ok()?;
    Some(HistoryFile::new(&directory.join("history.json")))
}

/// What is remembered beside this wallet. A file that cannot be used is named, and counts as none.
pub(super) fn load(wallet: Option<PathBuf>, err: &mut Out) -> anyhow::Result<Measurements> {
    let Some(file) = file(wallet) else { return Ok(Measurements::default()) };
    match file.load() {
        Ok(known) => Ok(known),
        Err(error) => {
            err.text(&format!("your own history does not count: {error}\n"))?;
            Ok(Measurements::default())
        }
    }
}

/// Remembers each exit that is left beside this wallet.
pub(super) fn remember(wallet: Option<PathBuf>) -> Option<Remember> {
    let file = file(wallet)?;
    Some(Box::new(move |visit| {
        let now = unix_now();
        if let Some((exit, measurement)) = measured(visit, now) {
            // A connection does not end for this.
            file.record(&exit, measurement, now).ok();
        }
    }))
}

/// What a visit says of an exit of the market.
fn measured(visit: Visit, now: u64) -> Option<(String, Measurement)> {
    let failure = match (visit.failure, visit.connect_ms) {
        (None | Some(Cause::OutOfMoney), _) => None,
        (Some(_), None) => Some(Reason::NoHandshake),
        (Some(Cause::NoAnswer | Cause::NoTraffic), Some(_)) => Some(Reason::PaidNoTraffic),
        (Some(Cause::Bill | Cause::Receipt), Some(_)) => Some(Reason::Overbilled),
    };
    let measurement = Measurement {
        at: now,
        failure,
        connect_ms: visit.connect_ms.map(|it| u32::try_from(it).unwrap_or(u32::MAX)),
        seconds: visit.seconds,
        received: visit.received,
        sent: visit.sent,
    };
    Some((visit.exit?, measurement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_exit_was_left_becomes_a_reason_word() {
        let word = |failure, connect_ms| {
            let exit = Some("aa".to_owned());
            let visit = Visit { exit, connect_ms, seconds: 1, received: 2, sent: 3, failure };
            measured(visit, 7).and_then(|(_, it)| it.failure).map(Reason::as_str)
        };
        assert_eq!(word(None, Some(80)), None);
        assert_eq!(word(Some(Cause::OutOfMoney), Some(80)), None);
        assert_eq!(word(Some(Cause::NoAnswer), None), Some("no-handshake"));
        assert_eq!(word(Some(Cause::NoAnswer), Some(80)), Some("paid-no-traffic"));
        assert_eq!(word(Some(Cause::Bill), Some(80)), Some("overbilled"));
        let stranger =
            Visit { exit: None, connect_ms: None, seconds: 0, received: 0, sent: 0, failure: None };
        assert_eq!(measured(stranger, 7), None, "a file that was not bought in the market");
    }
}
