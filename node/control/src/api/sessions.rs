//! The requests about sessions.

use axum::{
    Json,
    body::{Body, Bytes, to_bytes},
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::IntoResponse,
};

use super::{
    Api,
    error::ApiError,
    off_thread,
    view::{
        AllSessions, CreditRequest, MadeSession, OneSession, RateRequest, SessionRequest,
        SessionView,
    },
};
use serde::{Deserialize, de::DeserializeOwned};

use weir_ledger::{OwnRates, SessionId};
use weir_sessions::{
    SessionError,
    registry::{Extension, NewSession},
    wg_quick,
};
use weir_wireguard::keys::{self, PresharedKey};
use zeroize::Zeroizing;

/// The maximum size of a request in bytes. No valid request is larger.
const MAX_BODY: usize = 16 * 1024;

/// The highest rate of a session in bits per second: what JSON readers hold exactly.
const MAX_RATE: u64 = 1 << 53;

/// In the place of a pre-shared key: the node makes one.
const GENERATE: &str = "generate";

type Which = Result<Path<String>, PathRejection>;

pub(super) async fn add(State(api): State<Api>, body: Body) -> Result<impl IntoResponse, ApiError> {
    let expected = r#"{"name": "...", "public_key": "...", "preshared_key": "generate", "prepaid": true}, all optional"#;
    let request: SessionRequest = read(body, expected).await?;
    let public_key = request.public_key.as_deref().map(keys::parse_public).transpose();
    let public_key = public_key.map_err(SessionError::from)?;
    let preshared_key = match request.preshared_key.map(Zeroizing::new) {
        None => None,
        Some(word) if *word == GENERATE => Some(PresharedKey::random()),
        Some(key) => Some(PresharedKey::parse(&key).map_err(SessionError::from)?),
    };
    let (name, prepaid) = (request.name, request.prepaid);
    let free_bytes = api.template.get().free_bytes;
    let new = NewSession { name, public_key, preshared_key, prepaid, free_bytes };
    let made = off_thread(move || {
        let added = api.sessions.add(new)?;
        let (private, preshared) = (added.private_key.as_ref(), added.preshared_key.as_ref());
        let (template, signer) = (api.template.get(), api.sessions.signer());
        let config = wg_quick::config(&template, &added.snapshot, signer, private, preshared);
        let session = SessionView::from(&added.snapshot);
        let (config, signer) = (config.as_str().to_owned(), signer.to_owned());
        Ok::<_, SessionError>(MadeSession { session, config, signer })
    });
    let made = made.await??;
    tracing::info!(session = made.session.id, slot = made.session.slot, "session added");
    Ok((StatusCode::CREATED, Json(made)))
}

/// The maximum number of sessions in a page. Their JSON fits into one message of the fleet.
pub const MAX_PAGE: u32 = 1000;

/// The query of a page.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    after: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let bad = |what: String| {
        let what = format!("{what}; expected ?after=SESSION&limit=1 to {MAX_PAGE}");
        ApiError::bad_request("bad_query", what)
    };
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    if (&query.after, query.limit) == (&None, None) {
        let all = off_thread(move || api.sessions.list().iter().map(SessionView::from).collect());
        return Ok(Json(AllSessions { sessions: all.await?, cursor: None }));
    }
    let after = query.after.filter(|after| !after.is_empty());
    let after = after.map(|after| after.parse::<SessionId>()).transpose();
    let after = after.map_err(|error| bad(error.to_string()))?;
    let limit = query.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE) as usize;
    let page = off_thread(move || {
        // One more shows whether there is another page.
        let mut page = api.sessions.page(after, limit + 1);
        let goes_on = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| goes_on).map(|last| last.session.id.to_string());
        AllSessions { sessions: page.iter().map(SessionView::from).collect(), cursor: last }
    });
    Ok(Json(page.await?))
}

pub(super) async fn show(
    State(api): State<Api>,
    which: Which,
) -> Result<impl IntoResponse, ApiError> {
    let which = selector(which)?;
    let snapshot = api.sessions.get(&which)?;
    Ok(Json(OneSession { session: SessionView::from(&snapshot) }))
}

pub(super) async fn remove(
    State(api): State<Api>,
    which: Which,
) -> Result<impl IntoResponse, ApiError> {
    let which = selector(which)?;
    let last = off_thread(move || api.sessions.remove(&which)).await??;
    let session = SessionView::from(&last);
    tracing::info!(session = session.id, slot = session.slot, "session removed");
    Ok(Json(OneSession { session }))
}

fn selector(which: Which) -> Result<String, ApiError> {
    let Path(which) = which.map_err(|e| ApiError::bad_request("bad_path", e.body_text()))?;
    Ok(which)
}

pub(super) async fn extend(
    State(api): State<Api>,
    which: Which,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let which = selector(which)?;
    let expected = r#"{"reference": "...", "bytes": 0, "seconds": 0}"#;
    let request: CreditRequest = read(body, expected).await?;
    let CreditRequest { reference, bytes, seconds } = request;
    let extension = Extension { reference, bytes, seconds };
    let extended = off_thread(move || api.sessions.extend(&which, &extension)).await??;
    Ok(Json(OneSession { session: SessionView::from(&extended) }))
}

pub(super) async fn pause(
    State(api): State<Api>,
    which: Which,
) -> Result<impl IntoResponse, ApiError> {
    let which = selector(which)?;
    let paused = off_thread(move || api.sessions.pause(&which)).await??;
    tracing::info!(session = %paused.session.id, "session paused");
    Ok(Json(OneSession { session: SessionView::from(&paused) }))
}

pub(super) async fn resume(
    State(api): State<Api>,
    which: Which,
) -> Result<impl IntoResponse, ApiError> {
    let which = selector(which)?;
    let resumed = off_thread(move || api.sessions.resume(&which)).await??;
    tracing::info!(session = %resumed.session.id, "session resumed");
    Ok(Json(OneSession { session: SessionView::from(&resumed) }))
}

pub(super) async fn close(
    State(api): State<Api>,
    which: Which,
) -> Result<impl IntoResponse, ApiError> {
    let which = selector(which)?;
    let last = off_thread(move || api.sessions.end(&which, "closed")).await??;
    tracing::info!(session = %last.session.id, "session closed");
    Ok(Json(OneSession { session: SessionView::from(&last) }))
}

pub(super) async fn set_rate(
    State(api): State<Api>,
    which: Which,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let which = selector(which)?;
    let expected = r#"{"up": 50000000, "down": 0} in bits per second, 0 for no limit"#;
    let request: RateRequest = read(body, expected).await?;
    if let Some(rate) =
        [request.up, request.down].into_iter().flatten().find(|rate| *rate > MAX_RATE)
    {
        let message =
            format!("a rate of {rate} bit/s: write {MAX_RATE} or less, or 0 for no limit");
        return Err(ApiError::bad_request("bad_limits", message));
    }
    let rates = OwnRates { up: request.up, down: request.down };
    let limited = off_thread(move || api.sessions.set_rates(&which, rates)).await??;
    tracing::info!(session = %limited.session.id, ?rates, "the session's rate was set");
    Ok(Json(OneSession { session: SessionView::from(&limited) }))
}

/// Reads a request; an empty body is an empty object.
pub(crate) async fn read<T: DeserializeOwned>(body: Body, expected: &str) -> Result<T, ApiError> {
    read_up_to(body, MAX_BODY, expected).await
}

/// The same of a request that may have `max` bytes.
pub(crate) async fn read_up_to<T: DeserializeOwned>(
    body: Body,
    max: usize,
    expected: &str,
) -> Result<T, ApiError> {
    let bytes = to_bytes(body, max).await.map_err(|error| {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                return ApiError::body_too_large(max);
            }
            cause = error.source();
        }
        ApiError::bad_request("bad_json", "the request's body is incomplete")
    })?;
    let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
    let bad =
        |what: &str| ApiError::bad_request("bad_json", format!("{what}; expected {expected}"));
    // serde would read an array as the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("the request's body is not a JSON object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))
}
