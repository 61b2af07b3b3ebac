//! Payments in advance inside the tunnel, by voucher and by ecash.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/pay/voucher` `{"code"}` | 200 [`view::Given`] |
//! | `POST /v1/pay/ecash` `{"token"}`, or with the token in the header `X-Cashu` | 200 [`view::Given`] |
//! | `GET /v1/session` | 200 [`view::Left`] |
//! | `GET /v1/session/receipt` | 200 [`weir_receipt::Answer`] |
//! | `GET /v1/pay/ecash` | 402, with a payment request in the header `X-Cashu` (NUT-24) |
//!
//! Each error is `{"error": {"code", "message"}}`, and means that nothing was credited.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderName, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use weir_config::Config;
use weir_ledger::{
    SessionId,
    vouchers::{Code, VoucherUse},
};
use weir_receipt::Answer;
use weir_sessions::{SessionError, registry::Sessions};

use super::{
    allowance::Allowance,
    listener::Caller,
    pay::{BURST, MAX_REFUSED, PER_SECOND, REFUSED_EVERY, refusal},
};
use crate::{
    api::{error::ApiError, off_thread, read_text},
    ecash::{Accepted, Cashu, NotAccepted},
};

#[cfg(test)]
mod tests;
pub mod view;

use view::{Given, Left};

/// The header of a token and of a payment request (NUT-24).
const X_CASHU: HeaderName = HeaderName::from_static("x-cashu");
/// The largest body of a request: a token in JSON.
pub(super) const MAX_BODY: usize = 48 * 1024;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Prepay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sessions: Arc<Sessions>,
    cashu: Option<Arc<Cashu>>,
    vouchers: bool,
    allowance: Allowance,
    refused: Allowance,
}

/// What a consumer gives.
enum Payment {
    Voucher(String),
    Token(String),
}

impl Prepay {
    pub(super) fn new(
        config: &Config,
        sessions: &Arc<Sessions>,
        cashu: Option<&Arc<Cashu>>,
    ) -> Self {
        Self(Arc::new(Inner {
            sessions: Arc::clone(sessions),
            cashu: cashu.cloned(),
            vouchers: config.voucher.enabled,
            allowance: Allowance::new(PER_SECOND, BURST),
            refused: Allowance::every(REFUSED_EVERY, MAX_REFUSED),
        }))
    }

    /// Its requests. They are to come through a [`super::listener::SessionListener`].
    pub(super) fn routes(&self) -> Router {
        let mut routes = Router::new()
            .route("/v1/session", get(session))
            .route("/v1/session/receipt", get(receipt));
        if self.0.vouchers {
            routes = routes.route("/v1/pay/voucher", post(voucher));
        }
        if self.0.cashu.is_some() {
            routes = routes.route("/v1/pay/ecash", get(ask_or_ecash).post(ecash));
        }
        routes.with_state(self.clone())
    }

    pub(super) fn cashu(&self) -> Option<&Cashu> {
        self.0.cashu.as_deref()
    }

    pub(super) fn takes_vouchers(&self) -> bool {
        self.0.vouchers
    }

    pub(super) fn admit(&self, caller: Caller) -> Result<(), ApiError> {
        self.0.allowance.take(caller.0).then_some(()).ok_or_else(refusal::too_often)
    }

    /// What a session has left.
    pub(super) fn left(&self, session: SessionId) -> Result<Left, ApiError> {
        let snapshot = self.0.sessions.get(&session.to_string()).map_err(session_error)?;
        Ok(Left::new(&snapshot))
    }

    /// Takes a voucher or a token, whichever the text is.
    pub(super) async fn give(&self, caller: Caller, text: &str) -> Result<Given, ApiError> {
        let text = text.trim();
        let is_token = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("cashu"));
        let payment = match is_token && self.0.cashu.is_some() || !self.0.vouchers {
            true => Payment::Token(text.to_owned()),
            false => Payment::Voucher(text.to_owned()),
        };
        self.take(caller, payment).await
    }

    async fn take(&self, caller: Caller, payment: Payment) -> Result<Given, ApiError> {
        // Taken before anything is looked at, and given back if the payment is good: a token costs some signatures,
        // and a code a look into the locked ledger.
        if !self.0.refused.take(caller.0) {
            return Err(refusal::too_many_refused(REFUSED_EVERY));
        }
        let taken = match payment {
            Payment::Voucher(code) => self.take_voucher(caller.0, &code).await,
            Payment::Token(token) => self.take_token(caller.0, &token).await,
        };
        if taken.as_ref().map_or_else(ApiError::is_ours, |_| true) {
            self.0.refused.give_back(&caller.0);
        }
        taken
    }

    async fn take_voucher(&self, session: SessionId, code: &str) -> Result<Given, ApiError> {
        let refused = |code, text: &str| ApiError::new(StatusCode::PAYMENT_REQUIRED, code, text);
        let unknown = || refused("unknown_voucher", "there is no such voucher: check the code");
        let code = Code::parse(code).ok_or_else(unknown)?;
        let sessions = Arc::clone(&self.0.sessions);
        let used = off_thread(move || sessions.use_voucher(session, &code)).await?;
        let (bytes, seconds, status) = match used.map_err(session_error)? {
            VoucherUse::Credited { bytes, seconds, .. } => (bytes, seconds, "credited"),
            VoucherUse::Before => (0, 0, "before"),
            VoucherUse::Unknown => return Err(unknown()),
            VoucherUse::Used => {
                return Err(refused("voucher_used", "this voucher was used by another session"));
            }
            VoucherUse::Revoked => {
                return Err(refused("voucher_revoked", "this voucher was revoked by its seller"));
            }
            VoucherUse::Expired => {
                return Err(refused("voucher_expired", "this voucher's time is over"));
            }
            VoucherUse::NoSession => return Err(refusal::session_over()),
        };
        let left = self.left(session)?;
        Ok(Given { method: "voucher".into(), status: status.into(), bytes, seconds, left })
    }

    async fn take_token(&self, session: SessionId, token: &str) -> Result<Given, ApiError> {
        let cashu = self.0.cashu.as_ref().ok_or_else(refusal::no_such_route)?;
        let (accepted, bytes) = cashu.accept(session, token).await.map_err(not_accepted)?;
        let (status, bytes) = match accepted {
            Accepted::Credited => ("credited", bytes),
            Accepted::Before => ("before", 0),
            Accepted::Pending => ("pending", bytes),
        };
        let left = self.left(session)?;
        Ok(Given { method: "ecash".into(), status: status.into(), bytes, seconds: 0, left })
    }

    /// 402 with what is to be paid.
    fn payment_required(&self) -> Response {
        let text = "pay with a Cashu token: {\"token\": \"cashuB...\"}, or in the header X-Cashu; \
                    the payment request is in that header of this answer";
        let error = ApiError::new(StatusCode::PAYMENT_REQUIRED, "payment_required", text);
        let request = self.0.cashu.as_ref().map(|cashu| cashu.request());
        ([(X_CASHU, request.unwrap_or_default())], error).into_response()
    }
}

fn session_error(error: SessionError) -> ApiError {
    match error {
        SessionError::NotFound(_) => refusal::session_over(),
        SessionError::Ledger(error) => {
            tracing::error!(%error, "cannot take a payment");
            let text = "the node cannot write its ledger: nothing was credited; try again later";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ledger", text)
        }
        error => error.into(),
    }
}

fn not_accepted(error: NotAccepted) -> ApiError {
    let (status, code) = match &error {
        NotAccepted::Refused(refusal) => (StatusCode::PAYMENT_REQUIRED, refusal.word()),
        NotAccepted::Spent => (StatusCode::PAYMENT_REQUIRED, "spent"),
        NotAccepted::MintUnreachable => (StatusCode::SERVICE_UNAVAILABLE, "mint_unreachable"),
        NotAccepted::Session(_) => {
            return match error {
                NotAccepted::Session(error) => session_error(error),
                other => ApiError::internal(&other.to_string()),
            };
        }
        NotAccepted::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    ApiError::new(status, code, error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VoucherRequest {
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    token: Option<String>,
}

async fn session(
    State(service): State<Prepay>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Result<Json<Left>, ApiError> {
    service.admit(caller)?;
    Ok(Json(service.left(caller.0)?))
}

/// The session's last usage record. It is read from the ledger once, and then kept until there is a
/// newer one.
async fn receipt(
    State(service): State<Prepay>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Result<Json<Answer>, ApiError> {
    service.admit(caller)?;
    let sessions = Arc::clone(&service.0.sessions);
    let receipt = match sessions.known_receipt(caller.0) {
        Some(known) => known,
        None => {
            let read = off_thread(move || sessions.receipt(caller.0)).await?;
            read.map_err(session_error)?
        }
    };
    let signer = service.0.sessions.signer().to_owned();
    Ok(Json(Answer { signer, receipt: receipt.as_deref().cloned() }))
}

async fn voucher(
    State(service): State<Prepay>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Body,
) -> Result<Json<Given>, ApiError> {
    service.admit(caller)?;
    let request: VoucherRequest = read_text(body, MAX_BODY, r#"{"code": "..."}"#).await?;
    Ok(Json(service.take(caller, Payment::Voucher(request.code)).await?))
}

/// A client that got 402 may repeat its request with the header alone.
async fn ask_or_ecash(
    state: State<Prepay>,
    caller: ConnectInfo<Caller>,
    headers: HeaderMap,
) -> Response {
    ecash(state, caller, headers, Body::empty()).await
}

async fn ecash(
    State(service): State<Prepay>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let taken = async {
        service.admit(caller)?;
        let token = match headers.get(X_CASHU).and_then(|value| value.to_str().ok()) {
            Some(token) => Some(token.to_owned()),
            None => {
                let expected = r#"{"token": "cashuB..."}"#;
                read_text::<TokenRequest>(body, MAX_BODY, expected).await?.token
            }
        };
        match token {
            Some(token) => service.take(caller, Payment::Token(token)).await.map(Some),
            None => Ok(None),
        }
    };
    match taken.await {
        Ok(Some(given)) => Json(given).into_response(),
        Ok(None) => service.payment_required(),
        Err(error) => error.into_response(),
    }
}
