//! The requests about vouchers, and about what the node has earned.

use axum::{
    Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::IntoResponse,
};
use rand_core::{OsRng, RngCore as _};
use serde::Deserialize;
use weir_ledger::{
    LedgerError,
    ecash::{MintTotals, Withdrawal},
    unix_now,
    vouchers::{Code, MAX_ADDED, VoucherBatch, VoucherTerms},
};

use super::{
    Api,
    error::ApiError,
    off_thread, read_json,
    view::{
        AllVouchers, Changed, ConfirmRequest, Earnings, MadeVouchers, MintEarnings, RevokeRequest,
        VoucherBatchView, VoucherRequest, WithdrawRequest, WithdrawalView,
    },
};

/// The batches of one page.
const PAGE: u32 = 1000;
/// The longest name of a batch, in bytes.
const MAX_NAME: usize = 64;
/// The proofs of one withdrawal: its token fits into one message to a wallet.
const MAX_PROOFS: u32 = 100;

pub(super) async fn make(
    State(api): State<Api>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let expected = r#"{"batch": "...", "count": 1, "bytes": 0, "seconds": 0, "expires": null}"#;
    let request: VoucherRequest = read_json(body, expected).await?;
    let bad = |what: &str| ApiError::bad_request("bad_voucher", what);
    if !(1..=MAX_ADDED as u32).contains(&request.count) {
        return Err(bad("count: write 1 to 1000, and ask again for more"));
    }
    if !(1..=MAX_NAME).contains(&request.batch.len()) || request.batch.chars().any(char::is_control)
    {
        return Err(bad("batch: write a name of 1 to 64 bytes"));
    }
    if request.bytes == 0 && request.seconds == 0 {
        return Err(bad("a voucher is for something: give bytes, seconds, or both"));
    }
    let terms = VoucherTerms {
        batch: request.batch,
        bytes: request.bytes,
        seconds: request.seconds,
        expires: request.expires,
    };
    let codes: Vec<_> = (0..request.count)
        .map(|_| {
            let mut bits = [0; 16];
            OsRng.fill_bytes(&mut bits);
            Code::new(bits)
        })
        .collect();
    let made = MadeVouchers {
        batch: terms.batch.clone(),
        codes: codes.iter().map(Code::to_string).collect(),
    };
    let hashes: Vec<_> = codes.iter().map(Code::hash).collect();
    let added =
        off_thread(move || api.sessions.ledger().lock().add_vouchers(&terms, &hashes, unix_now()));
    if !added.await?? {
        let what = "the batch exists with other terms, or is revoked: choose another name";
        return Err(ApiError::new(StatusCode::CONFLICT, "bad_voucher", what));
    }
    tracing::info!(batch = made.batch, vouchers = made.codes.len(), "vouchers were made");
    Ok((StatusCode::CREATED, Json(made)))
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    after: Option<u64>,
}

pub(super) async fn batches(
    State(api): State<Api>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Query(query) =
        query.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let after = query.after.unwrap_or(0);
    let page = off_thread(move || api.sessions.ledger().lock().voucher_batches(after, PAGE));
    let page = page.await??;
    let full = page.len() == PAGE as usize;
    let cursor = page.last().filter(|_| full).map(|batch| batch.number);
    Ok(Json(AllVouchers { batches: page.into_iter().map(Into::into).collect(), cursor }))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let expected = r#"{"batch": "..."} or {"code": "..."}"#;
    let request: RevokeRequest = read_json(body, expected).await?;
    let now = unix_now();
    let changed = match (request.batch, request.code) {
        (Some(batch), None) => {
            off_thread(move || api.sessions.ledger().lock().revoke_voucher_batch(&batch, now))
                .await??
        }
        (None, Some(code)) => {
            let code = Code::parse(&code)
                .ok_or_else(|| ApiError::bad_request("bad_voucher", "this is no voucher's code"))?;
            off_thread(move || api.sessions.ledger().lock().revoke_voucher(&code, now)).await??
        }
        _ => return Err(ApiError::bad_request("bad_voucher", format!("expected {expected}"))),
    };
    Ok(Json(Changed { changed }))
}

pub(super) async fn earnings(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    let read = off_thread(move || {
        let shared = api.sessions.ledger();
        let ledger = shared.lock();
        let mut used = 0u64;
        let mut after = 0;
        loop {
            let page = ledger.voucher_batches(after, PAGE)?;
            used += page.iter().map(|batch| batch.used).sum::<u64>();
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = last.number,
                _ => break,
            }
        }
        let list = |withdrawal: Withdrawal| WithdrawalView { token: None, ..withdrawal.into() };
        Ok::<_, LedgerError>(Earnings {
            promised_wei: shared.earned().to_string(),
            vouchers_used: used,
            mints: ledger.mint_totals()?.into_iter().map(Into::into).collect(),
            unconfirmed: ledger.withdrawals()?.into_iter().map(list).collect(),
        })
    });
    Ok(Json(read.await??))
}

pub(super) async fn withdraw(
    State(api): State<Api>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let request: WithdrawRequest =
        read_json(body, r#"{"mint": "https://..."} or {"again": 1}"#).await?;
    let withdrawn = off_thread(move || {
        let shared = api.sessions.ledger();
        if let Some(number) = request.again {
            let open = shared.lock().withdrawals()?;
            let found = open.into_iter().find(|withdrawal| withdrawal.number == number);
            return found.map(Into::into).ok_or_else(|| {
                let what = "there is no such withdrawal, or it was confirmed";
                ApiError::new(StatusCode::CONFLICT, "nothing_to_withdraw", what)
            });
        }
        let taken = take_out(&mut shared.lock(), request.mint.as_deref());
        shared.note_mints()?;
        taken
    });
    let withdrawal = withdrawn.await??;
    tracing::info!(withdrawal = withdrawal.withdrawal, "ecash was withdrawn");
    Ok(Json(withdrawal))
}

fn take_out(
    ledger: &mut weir_ledger::Ledger,
    mint: Option<&str>,
) -> Result<WithdrawalView, ApiError> {
    let nothing = |what: &str| ApiError::new(StatusCode::CONFLICT, "nothing_to_withdraw", what);
    let has = |mint: &MintTotals| mint.redeemed > mint.withdrawn;
    let mints: Vec<_> = ledger.mint_totals()?.into_iter().filter(has).collect();
    let wanted = mint.and_then(weir_ecash::mint_url);
    let found = match (mint, &mints[..]) {
        (Some(_), all) => all.iter().find(|mint| Some(&mint.url) == wanted.as_ref()),
        (None, [one]) => Some(one),
        (None, []) => None,
        (None, _) => {
            return Err(ApiError::bad_request("bad_query", "there are several mints: name one"));
        }
    };
    let Some(mint) = found else {
        return Err(nothing("there is no ecash of that mint that could be withdrawn"));
    };
    let purse = ledger.purse(&mint.url, MAX_PROOFS)?;
    let proofs = purse.iter().map(|(_, _, proof)| proof.as_str());
    let token = weir_ecash::wallet_token(&mint.url, &mint.unit, proofs)
        .map_err(|error| ApiError::internal(&format!("the proofs cannot be read: {error}")))?;
    let amount = purse.iter().fold(0u64, |sum, (_, amount, _)| sum.saturating_add(*amount));
    let numbers: Vec<_> = purse.iter().map(|(number, ..)| *number).collect();
    Ok(ledger.withdraw(&mint.url, &numbers, amount, &token)?.into())
}

pub(super) async fn confirm(
    State(api): State<Api>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let request: ConfirmRequest = read_json(body, r#"{"withdrawal": 1}"#).await?;
    let done =
        off_thread(move || api.sessions.ledger().lock().confirm_withdrawal(request.withdrawal));
    Ok(Json(Changed { changed: done.await?? }))
}

impl From<VoucherBatch> for VoucherBatchView {
    fn from(batch: VoucherBatch) -> Self {
        let VoucherBatch { terms, made, vouchers, used, revoked, .. } = batch;
        let VoucherTerms { batch, bytes, seconds, expires } = terms;
        Self { batch, bytes, seconds, made, expires, vouchers, used, revoked }
    }
}

impl From<MintTotals> for MintEarnings {
    fn from(totals: MintTotals) -> Self {
        let MintTotals { url: mint, unit, received, unredeemed, redeemed, fees, lost, withdrawn } =
            totals;
        Self { mint, unit, received, unredeemed, redeemed, fees, lost, withdrawn }
    }
}

impl From<Withdrawal> for WithdrawalView {
    fn from(withdrawal: Withdrawal) -> Self {
        let Withdrawal { number, mint, amount, token, made } = withdrawal;
        Self { withdrawal: number, mint, amount, made, token: Some(token) }
    }
}
