//! Requests to the node's API that come over the fleet's connection.

use std::{sync::Arc, time::Duration};

use async_nats::{Message, Subscriber};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode},
};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};
use tower::ServiceExt as _;
use tracing::warn;

use super::Link;

/// The maximum number of requests at once. The others wait at the server.
const MAX_REQUESTS: usize = 16;
/// The maximum size of an answer in bytes. A server accepts messages of 1 MiB by default.
const MAX_ANSWER: usize = 900 * 1024;
/// The time that the API may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The delay before the next attempt, after the server has refused the subscription.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// A request from the fleet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetRequest {
    method: String,
    path: String,
    #[serde(default)]
    body: Option<Value>,
}

/// The reply to it.
#[derive(Debug, Serialize)]
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn error(status: StatusCode, code: &str, message: &str) -> Self {
        let body = json!({ "error": { "code": code, "message": message } });
        Self { status: status.as_u16(), body }
    }
}

/// Answers requests for as long as it is polled.
pub async fn serve(link: Link, api: Router) {
    let subject = format!("{}.api", link.subject);
    loop {
        match link.client.subscribe(subject.clone()).await {
            Ok(requests) => answer_all(&link, requests, &api).await,
            Err(error) => warn!(%error, subject, "cannot take commands from the fleet"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn answer_all(link: &Link, mut requests: Subscriber, api: &Router) {
    let permits = Arc::new(Semaphore::new(MAX_REQUESTS));
    while let Some(message) = requests.next().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (link, api) = (link.clone(), api.clone());
        tokio::spawn(async move {
            let Message { reply, payload, .. } = message;
            // A client without a reply subject would never learn the result.
            if let Some(reply) = reply {
                let answer = answer(api, &payload).await;
                let answer = serde_json::to_vec(&answer).unwrap_or_default();
                if let Err(error) = link.client.publish(reply, answer.into()).await {
                    warn!(%error, "cannot send an answer to the fleet");
                }
            }
            drop(permit);
        });
    }
}

/// Answers with the API's own routes.
async fn answer(api: Router, payload: &[u8]) -> Answer {
    let requested: FleetRequest = match serde_json::from_slice(payload) {
        Ok(requested) => requested,
        Err(error) => {
            let message = format!(
                "{error}; expected {{\"method\": \"GET\", \"path\": \"/v1/sessions\", \"body\": {{...}}}}, the body optional"
            );
            return Answer::error(StatusCode::BAD_REQUEST, "bad_json", &message);
        }
    };
    if requested.path.starts_with("/v1/usage/stream") {
        let message = "usage records are in the fleet's stream already";
        return Answer::error(StatusCode::BAD_REQUEST, "bad_path", message);
    }
    let body = requested.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let request = Method::from_bytes(requested.method.as_bytes())
        .map_err(|error| error.to_string())
        .and_then(|method| {
            let request = Request::builder().method(method).uri(requested.path).body(body);
            request.map_err(|error| error.to_string())
        });
    let request = match request {
        Ok(request) => request,
        Err(error) => return Answer::error(StatusCode::BAD_REQUEST, "bad_path", &error),
    };
    match timeout(ANSWER_TIMEOUT, finish(api, request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let message = "the node did not answer in time: check whether the command took effect";
            Answer::error(StatusCode::GATEWAY_TIMEOUT, "internal", message)
        }
    }
}

async fn finish(api: Router, request: Request<Body>) -> Answer {
    let Ok(response) = api.oneshot(request).await;
    let status = response.status().as_u16();
    let Ok(bytes) = to_bytes(response.into_body(), MAX_ANSWER).await else {
        let message = "the answer is too large for one message: ask for less at once with \
            ?limit=1000, then continue with after=CURSOR";
        return Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", message);
    };
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) }
}

#[cfg(test)]
mod tests;
