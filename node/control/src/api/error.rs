//! Errors as JSON.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use weir_ledger::LedgerError;
use weir_sessions::SessionError;

/// The body of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// A code for programs and a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// `bad_json`, `body_too_large`, `bad_name`, `bad_key`, `bad_path`, `name_taken`,
    /// `key_taken`, `full`, `not_found`, `ambiguous`, `no_such_route`, `method_not_allowed`,
    /// `bad_credit`, `bad_voucher`, `nothing_to_withdraw`, `bad_limits`, `quota`, `reference_conflict`, `bad_query`, `bad_config`,
    /// `unauthorised`, `ledger` or `internal`.
    pub code: String,
    /// The problem, the reason and the fix.
    pub message: String,
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is no fault of the client's.
    pub(crate) fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }

    pub(super) fn with_status(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, code, message }
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        let message = format!("the request's body is larger than {limit} bytes");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: "body_too_large", message }
    }

    pub(super) fn no_such_route() -> Self {
        let message =
            "unknown path: see /v1/sessions, /v1/limits, /v1/usage, /v1/flows, /v1/status, \
             /v1/vouchers, /v1/earnings, /v1/market, /v1/reload, /v1/keys, /metrics, /health"
                .to_owned();
        Self { status: StatusCode::NOT_FOUND, code: "no_such_route", message }
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "this path does not support that method".to_owned();
        Self { status: StatusCode::METHOD_NOT_ALLOWED, code: "method_not_allowed", message }
    }

    pub(super) fn unauthorised() -> Self {
        let message = "the token is missing or wrong: send Authorization: Bearer TOKEN (the token \
            is in the file named by api.token_file)";
        let (status, message) = (StatusCode::UNAUTHORIZED, message.to_owned());
        Self { status, code: "unauthorised", message }
    }

    pub(crate) fn internal(message: &str) -> Self {
        let (status, message) = (StatusCode::INTERNAL_SERVER_ERROR, message.to_owned());
        Self { status, code: "internal", message }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let (status, code) = match &error {
            SessionError::Name(_) => (StatusCode::BAD_REQUEST, "bad_name"),
            SessionError::Key(_) => (StatusCode::BAD_REQUEST, "bad_key"),
            SessionError::NameTaken(_) => (StatusCode::CONFLICT, "name_taken"),
            SessionError::KeyTaken(_) => (StatusCode::CONFLICT, "key_taken"),
            SessionError::Full(_) | SessionError::AtMost(_) => (StatusCode::CONFLICT, "full"),
            SessionError::Quota => (StatusCode::CONFLICT, "quota"),
            SessionError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            SessionError::Ambiguous(_) => (StatusCode::CONFLICT, "ambiguous"),
            SessionError::Reference | SessionError::NoCredit => {
                (StatusCode::BAD_REQUEST, "bad_credit")
            }
            SessionError::Contradicts(_) => (StatusCode::CONFLICT, "reference_conflict"),
            SessionError::Flows(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            SessionError::NoRoom { .. } | SessionError::Ledger(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "ledger")
            }
        };
        if status.is_server_error() {
            tracing::error!(%error, "a request failed");
        }
        Self { status, code, message: error.to_string() }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        SessionError::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorDetail { code: self.code.to_owned(), message: self.message };
        (self.status, Json(ErrorBody { error })).into_response()
    }
}
