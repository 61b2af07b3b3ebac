//! The request to read the configuration again.

use axum::{Json, extract::State};

use super::{Api, error::ApiError, off_thread};
use crate::reload::{Outcome, ReloadError};

pub(super) async fn reload(State(api): State<Api>) -> Result<Json<Outcome>, ApiError> {
    let Some(reload) = api.reload else {
        return Err(ApiError::internal("this node cannot reload its configuration"));
    };
    let outcome = off_thread(move || reload.reload()).await?;
    Ok(Json(outcome?))
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        match &error {
            ReloadError::Half(_) => Self::internal(&error.to_string()),
            _ => Self::bad_request("bad_config", error.to_string()),
        }
    }
}
