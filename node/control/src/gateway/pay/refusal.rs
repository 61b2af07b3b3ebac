//! The answers to payments that are refused.

use std::time::Duration;

use axum::http::StatusCode;

use super::approve::NotApproved;
use crate::api::error::ApiError;
use weir_promise::{Refusal, wire::WireError};
use weir_sessions::{SessionError, registry::pay::PayError};

/// The code of each reason.
fn word(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::PromiseChain { .. } => "promise_chain",
        Refusal::MessageChain { .. } => "message_chain",
        Refusal::Channel { .. } => "channel",
        Refusal::Provider { .. } => "provider",
        Refusal::Hermes { .. } => "hermes",
        Refusal::Agreement { .. } => "agreement",
        Refusal::Hashlock => "hashlock",
        Refusal::Fee { .. } => "fee",
        Refusal::TooLittle { .. } => "too_little",
        Refusal::TooMuch { .. } => "too_much",
        Refusal::Replayed { .. } => "replayed",
        Refusal::Amount { .. } => "amount",
        Refusal::PromiseSignature(_) => "promise_signature",
        Refusal::MessageSignature(_) => "message_signature",
        Refusal::PromiseSigner { .. } => "promise_signer",
        Refusal::MessageSigner { .. } => "message_signer",
    }
}

impl From<PayError> for ApiError {
    fn from(error: PayError) -> Self {
        let (status, code) = match &error {
            // The session ended meanwhile. Do not explain how sessions are named.
            PayError::Session(SessionError::NotFound(_)) => return session_over(),
            PayError::Session(SessionError::Ledger(error)) => {
                tracing::error!(%error, "cannot accept a payment");
                let (status, text) = (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the node cannot write its ledger: nothing was credited; try again later",
                );
                return Self::new(status, "ledger", text);
            }
            PayError::Session(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            PayError::TooCheap(_) => (StatusCode::PAYMENT_REQUIRED, "too_cheap"),
            PayError::Refused(refusal) => (StatusCode::PAYMENT_REQUIRED, word(refusal)),
            PayError::Agreed => (StatusCode::CONFLICT, "agreed"),
            PayError::NoAgreement => (StatusCode::CONFLICT, "no_agreement"),
            PayError::NoInvoice => (StatusCode::CONFLICT, "no_invoice"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<NotApproved> for ApiError {
    fn from(error: NotApproved) -> Self {
        let (status, code) = match error {
            NotApproved::Refused => (StatusCode::PAYMENT_REQUIRED, "not_approved"),
            NotApproved::NoAnswer => (StatusCode::SERVICE_UNAVAILABLE, "approval_unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        Self::bad_request("bad_field", error.to_string())
    }
}

pub(in super::super) fn session_over() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_session", "this session has ended")
}

/// A consumer makes too many requests.
pub(in super::super) fn too_often() -> ApiError {
    let text = "too many requests: ask again in a second";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_often", text)
}

/// A consumer has had too many payments refused.
pub(in super::super) fn too_many_refused(every: Duration) -> ApiError {
    let seconds = every.as_secs();
    let text = format!(
        "too many payments of this session were refused: this one was not examined; correct the \
         error and pay again in {seconds} s"
    );
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_refused", text)
}

/// A session that never pays as it goes.
pub(super) fn free() -> ApiError {
    let text = "this session has no limit and pays nothing: there is nothing to agree on";
    ApiError::new(StatusCode::CONFLICT, "free", text)
}

/// Another path.
pub(in super::super) fn no_such_route() -> ApiError {
    let text = "no such path: see /v1/pay, /v1/pay/agreement, /v1/pay/ecash and /v1/pay/voucher";
    ApiError::new(StatusCode::NOT_FOUND, "no_such_route", text)
}
