//! `weir voucher`.

use std::fmt::Write as _;

use super::{out::Out, units};
use weir_control::{
    api::view::{AllVouchers, Changed, MadeVouchers, RevokeRequest, VoucherRequest},
    client::Client,
};
use weir_ledger::{SessionId, unix_now};

/// The vouchers of one request.
const AT_ONCE: u32 = 1000;

/// What `weir voucher make` is to make.
pub(super) struct Make {
    pub(super) count: u32,
    pub(super) bytes: u64,
    pub(super) seconds: u64,
    pub(super) batch: Option<String>,
    pub(super) expires_days: Option<u32>,
    pub(super) csv: bool,
}

pub(super) fn make(client: &Client, make: Make, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let batch = make.batch.unwrap_or_else(|| SessionId::random().to_string());
    let expires = make.expires_days.map(|days| unix_now() + u64::from(days) * 86_400);
    let (bytes, seconds) = (make.bytes, make.seconds);
    let mut left = make.count;
    let mut all = MadeVouchers { batch: batch.clone(), codes: Vec::new() };
    if make.csv {
        out.text("code,batch,bytes,seconds\n")?;
    }
    while left > 0 {
        let count = left.min(AT_ONCE);
        let request = VoucherRequest { batch: batch.clone(), count, bytes, seconds, expires };
        let made: MadeVouchers = client.post("/v1/vouchers", &request)?;
        left -= count;
        if json {
            all.codes.extend(made.codes);
            continue;
        }
        // As they come: those that are printed exist.
        for code in made.codes {
            match make.csv {
                true => out.text(&format!("{code},{},{bytes},{seconds}\n", quoted(&batch)))?,
                false => out.text(&format!("{code}\n"))?,
            }
        }
    }
    if json {
        return out.json(&all);
    }
    Ok(())
}

/// A name as a field of CSV.
fn quoted(name: &str) -> String {
    match name.contains([',', '"']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

pub(super) fn list(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let mut all = AllVouchers { batches: Vec::new(), cursor: None };
    let mut after = 0;
    loop {
        let page: AllVouchers = client.get(&format!("/v1/vouchers?after={after}"))?;
        all.batches.extend(page.batches);
        match page.cursor {
            Some(cursor) => after = cursor,
            None => break,
        }
    }
    if json {
        return out.json(&all);
    }
    let mut text = String::from("BATCH             EACH         VOUCHERS  USED  STATE\n");
    for batch in &all.batches {
        let each = match (batch.bytes, batch.seconds) {
            (bytes, 0) => units::bytes(bytes),
            (0, seconds) => format!("{seconds} s"),
            (bytes, seconds) => format!("{}, {seconds} s", units::bytes(bytes)),
        };
        let state = match (batch.revoked, batch.expires) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at < unix_now() => "expired",
            _ => "valid",
        };
        writeln!(
            text,
            "{:16}  {each:11}  {:8}  {:4}  {state}",
            batch.batch, batch.vouchers, batch.used
        )?;
    }
    out.text(&text)?;
    Ok(())
}

pub(super) fn revoke(
    client: &Client,
    request: &RevokeRequest,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let done: Changed = client.post("/v1/vouchers/revoke", request)?;
    if json {
        return out.json(&done);
    }
    out.text(match done.changed {
        true => "revoked\n",
        false => "nothing to revoke: no such voucher or batch, or it was used or revoked before\n",
    })?;
    Ok(())
}
