//! The requests about the node's limits.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};

use super::{Api, error::ApiError, off_thread, sessions::read, view::LimitsView};
use weir_sessions::limits::{Change, LimitError, Limiter};

pub(super) async fn show(State(api): State<Api>) -> Result<Json<LimitsView>, ApiError> {
    let limiter = limiter(&api)?;
    Ok(Json(off_thread(move || view(&limiter)).await?))
}

pub(super) async fn change(
    State(api): State<Api>,
    body: Body,
) -> Result<Json<LimitsView>, ApiError> {
    let limiter = limiter(&api)?;
    let change: Change = read(body, r#"{"node_rate_down": 200000000, ...}, all optional"#).await?;
    let changed = off_thread(move || {
        limiter.change(&change)?;
        tracing::info!(?change, "the limits were changed");
        Ok::<_, LimitError>(view(&limiter))
    });
    Ok(Json(changed.await??))
}

fn view(limiter: &Limiter) -> LimitsView {
    LimitsView { limits: Change::all(&limiter.settings()), now: limiter.now() }
}

fn limiter(api: &Api) -> Result<Arc<Limiter>, ApiError> {
    api.limiter.clone().ok_or_else(|| ApiError::internal("this node cannot change its limits"))
}

impl From<LimitError> for ApiError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Bad(error) => Self::bad_request("bad_limits", error.to_string()),
            LimitError::Flows(_) => Self::internal(&error.to_string()),
        }
    }
}
