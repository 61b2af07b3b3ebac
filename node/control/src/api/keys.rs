//! The requests about the node's own keys.

use axum::{Json, extract::State, http::StatusCode};

use super::{Api, error::ApiError, off_thread};
use weir_sessions::keys::{KeyChangeError, KeyRing, NodeKeys};
use weir_wireguard::keys::KeyFileError;

pub(super) async fn show(State(api): State<Api>) -> Result<Json<NodeKeys>, ApiError> {
    change(api, |ring| Ok(ring.keys())).await
}

pub(super) async fn rotate(State(api): State<Api>) -> Result<Json<NodeKeys>, ApiError> {
    change(api, |ring| ring.rotate()).await
}

pub(super) async fn retire(State(api): State<Api>) -> Result<Json<NodeKeys>, ApiError> {
    change(api, |ring| ring.retire()).await
}

async fn change(
    api: Api,
    what: fn(&dyn KeyRing) -> Result<NodeKeys, KeyChangeError>,
) -> Result<Json<NodeKeys>, ApiError> {
    let Some(ring) = api.keys else {
        return Err(ApiError::internal("this node cannot change its keys"));
    };
    Ok(Json(off_thread(move || what(ring.as_ref())).await??))
}

impl From<KeyChangeError> for ApiError {
    fn from(error: KeyChangeError) -> Self {
        let message = error.to_string();
        match error {
            KeyChangeError::Files(KeyFileError::TwoKeys { .. }) => {
                Self::with_status(StatusCode::CONFLICT, "two_keys", message)
            }
            KeyChangeError::Files(KeyFileError::OneKey) => {
                Self::with_status(StatusCode::CONFLICT, "one_key", message)
            }
            KeyChangeError::Files(_) | KeyChangeError::Guard(_) => Self::internal(&message),
        }
    }
}
