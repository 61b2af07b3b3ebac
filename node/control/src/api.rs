//! The API for the operator and the payment layer: JSON over HTTP/1.1 on a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/sessions` `{"name"?, "public_key"?}` | 201 `{"session", "config"}` |
//! | `GET /v1/sessions` | 200 `{"sessions": [..]}` |
//! | `GET /v1/sessions/{which}` | 200 `{"session"}` |
//! | `DELETE /v1/sessions/{which}` | 200 `{"session"}`, with its final counters |
//! | `POST /v1/sessions/{which}/credit` `{"reference", "bytes"?, "seconds"?}` | 200 `{"session"}` |
//! | `POST /v1/sessions/{which}/pause`, `/resume`, `/close` | 200 `{"session"}` |
//! | `PUT /v1/sessions/{which}/rate` `{"up"?, "down"?}` | 200 `{"session"}` |
//! | `GET /v1/limits` | 200 `{"limits", "now"}` |
//! | `PUT /v1/limits` `{"node_rate_up"?, ..}` | 200 `{"limits", "now"}` |
//! | `GET /v1/usage?after=CURSOR&limit=N` | 200 `{"records", "cursor", "signer"}` |
//! | `GET /v1/usage/stream?after=CURSOR` | 200, server-sent events, a record each |
//! | `GET /v1/policy/test?address=A&port=P&protocol=tcp` | 200 [`weir_policy::Verdict`] |
//! | `GET /v1/flows` | 200 [`crate::flows::FlowsView`] |
//! | `GET /v1/flows/owner?address=A&port=P&time=T` | 200 [`crate::flows::PortOwners`] |
//! | `POST /v1/vouchers` `{"batch", "count", "bytes"?, "seconds"?, "expires"?}` | 201 [`view::MadeVouchers`] |
//! | `GET /v1/vouchers?after=NUMBER` | 200 [`view::AllVouchers`] |
//! | `POST /v1/vouchers/revoke` `{"batch"?, "code"?}` | 200 [`view::Changed`] |
//! | `GET /v1/earnings` | 200 [`view::Earnings`] |
//! | `POST /v1/earnings/withdraw` `{"mint"?}` | 200 [`view::WithdrawalView`] |
//! | `POST /v1/earnings/confirm` `{"withdrawal"}` | 200 [`view::Changed`] |
//! | `GET /v1/market` | 200 [`crate::market::view::MarketView`] |
//! | `POST /v1/market/publish`, `/withdraw` | 200 [`crate::market::view::MarketView`] |
//! | `POST /v1/reload` | 200 [`crate::reload::Outcome`] |
//! | `GET /v1/status` | 200 [`crate::view::Status`] |
//! | `GET /health` | 200 `{"status": "ok"}` |
//! | `GET /metrics` | 200, OpenMetrics or the older text, as `Accept` says |
//! | `GET /` | 200, the status page; only on a TCP port |
//!
//! `{which}` is an identifier, four or more of its first digits, a name, or a public key
//! (percent-encoded). Every error is `{"error": {"code", "message"}}`; see [`ErrorDetail`].

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::IntoResponse,
    routing::{get, post, put},
};
use prometheus_client::registry::Registry;

use crate::{
    flows::SharedFlowView,
    market::SharedMarket,
    metrics::{self, Form},
    reload::SharedReload,
    view::SharedView,
};
use weir_config::Shared;
use weir_ledger::{PortLog, UsageLog};
use weir_policy::SharedJudge;
use weir_sessions::{Sessions, keys::SharedKeyRing, limits::Limiter, wg_quick::PeerTemplate};

pub(crate) mod error;
mod flows;
mod keys;
mod limits;
mod listeners;
mod market;
mod page;
mod policy;
mod prepay;
mod reload;
pub(crate) mod sessions;
pub(crate) mod socket;
mod token;
mod usage;
pub mod view;

use error::ApiError;
pub use error::{ErrorBody, ErrorDetail};
pub use listeners::{ListenError, Listeners};
pub use sessions::MAX_PAGE;
pub(crate) use sessions::{read as read_json, read_up_to as read_text};
pub use socket::{SocketError, group_id};
pub use token::{Token, TokenError};

/// The state that requests are answered from. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    sessions: Arc<Sessions>,
    usage: UsageLog,
    view: SharedView,
    template: Shared<PeerTemplate>,
    reload: Option<SharedReload>,
    keys: Option<SharedKeyRing>,
    limiter: Option<Arc<Limiter>>,
    judge: Option<SharedJudge>,
    flows: Option<SharedFlowView>,
    ports: Option<PortLog>,
    market: Option<SharedMarket>,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("template", &self.template).finish_non_exhaustive()
    }
}

impl Api {
    /// Creates an API for these sessions and usage records. `template` is the configuration that
    /// new consumers get.
    #[must_use]
    pub fn new(
        sessions: Arc<Sessions>,
        usage: UsageLog,
        view: SharedView,
        template: impl Into<Shared<PeerTemplate>>,
        series: impl Into<Shared<metrics::Series>>,
    ) -> Self {
        let registry = metrics::registry(sessions.clone(), view.clone(), series.into());
        let (template, registry) = (template.into(), Arc::new(registry));
        Self {
            sessions,
            usage,
            view,
            template,
            reload: None,
            judge: None,
            keys: None,
            limiter: None,
            flows: None,
            ports: None,
            market: None,
            registry,
        }
    }

    /// The same, with a way to reload the node.
    #[must_use]
    pub fn with_reload(self, reload: SharedReload) -> Self {
        Self { reload: Some(reload), ..self }
    }

    /// The same, with the node's keys.
    #[must_use]
    pub fn with_keys(self, keys: SharedKeyRing) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// The same, with the node's limits.
    #[must_use]
    pub fn with_limits(self, limiter: Arc<Limiter>) -> Self {
        Self { limiter: Some(limiter), ..self }
    }

    /// The same, with the exit policy in force.
    #[must_use]
    pub fn with_judge(self, judge: SharedJudge) -> Self {
        Self { judge: Some(judge), ..self }
    }

    /// The same, with the flows that the node translates, and who held which port.
    #[must_use]
    pub fn with_flows(self, flows: SharedFlowView, ports: PortLog) -> Self {
        Self { flows: Some(flows), ports: Some(ports), ..self }
    }

    /// The same, with the node's listing, if it has one.
    #[must_use]
    pub fn with_market(self, market: Option<SharedMarket>) -> Self {
        Self { market, ..self }
    }

    /// Everything, for the Unix socket.
    pub fn router(&self) -> Router {
        let control = Router::new()
            .route("/v1/sessions", get(sessions::list).post(sessions::add))
            .route("/v1/sessions/{which}", get(sessions::show).delete(sessions::remove))
            .route("/v1/sessions/{which}/credit", post(sessions::extend))
            .route("/v1/sessions/{which}/pause", post(sessions::pause))
            .route("/v1/sessions/{which}/resume", post(sessions::resume))
            .route("/v1/sessions/{which}/close", post(sessions::close))
            .route("/v1/sessions/{which}/rate", put(sessions::set_rate))
            .route("/v1/limits", get(limits::show).put(limits::change))
            .route("/v1/usage", get(usage::page))
            .route("/v1/usage/stream", get(usage::stream))
            .route("/v1/reload", post(reload::reload))
            .route("/v1/keys", get(keys::show))
            .route("/v1/keys/rotate", post(keys::rotate))
            .route("/v1/keys/retire", post(keys::retire))
            .route("/v1/policy/test", get(policy::test))
            .route("/v1/flows", get(flows::show))
            .route("/v1/flows/owner", get(flows::owner))
            .route("/v1/vouchers", get(prepay::batches).post(prepay::make))
            .route("/v1/vouchers/revoke", post(prepay::revoke))
            .route("/v1/earnings", get(prepay::earnings))
            .route("/v1/earnings/withdraw", post(prepay::withdraw))
            .route("/v1/earnings/confirm", post(prepay::confirm))
            .route("/v1/market", get(market::show))
            .route("/v1/market/publish", post(market::publish))
            .route("/v1/market/withdraw", post(market::withdraw))
            .route("/v1/status", get(status));
        finish(control.merge(open_routes()), self)
    }

    /// The page, and everything to those who have the token, for a TCP port.
    pub(crate) fn http_router(&self, token: &Token) -> Router {
        let guard = axum::middleware::from_fn_with_state(token.clone(), token::require);
        // The page knows nothing by itself: it asks with the token.
        self.router().layer(guard).merge(page::router())
    }

    /// What changes nothing and names no consumer, for a TCP port: `/metrics` and `/health`.
    pub(crate) fn metrics_router(&self) -> Router {
        finish(open_routes(), self)
    }
}

fn open_routes() -> Router<Api> {
    Router::new().route("/health", get(health)).route("/metrics", get(scrape))
}

fn finish(router: Router<Api>, api: &Api) -> Router {
    router
        .fallback(async || ApiError::no_such_route())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(api.clone())
}

async fn health() -> impl IntoResponse {
    axum::Json(serde_json::json!({ "status": "ok" }))
}

async fn status(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    let status = off_thread(move || api.view.status()).await?;
    Ok(axum::Json(status))
}

async fn scrape(State(api): State<Api>, headers: HeaderMap) -> Result<impl IntoResponse, ApiError> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accept);
    let text = off_thread(move || metrics::encode(&api.registry, form)).await?;
    let text = text.map_err(|_| ApiError::internal("cannot write the metrics"))?;
    Ok(([(CONTENT_TYPE, form.content_type())], text))
}

/// Runs work that may wait for a disk or a worker on a blocking thread.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::internal("the request was not complete in time"))
}

#[cfg(test)]
pub(crate) mod tests;
