//! The requests.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Extension, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CACHE_CONTROL,
            CONTENT_TYPE,
        },
    },
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use weir_market::purchase::{
    Answer, Authorization, MAX_BODY, Order, Payment, Reason, Refusal, Sold, X_CASHU, X_VOUCHER,
};

use super::{
    counts::Way,
    shop::{Shop, Source},
};
use crate::connections::Network;

pub(super) fn router(shop: Shop) -> Router {
    Router::new()
        .route("/info", get(info).options(preflight))
        .route("/purchase", post(purchase).options(preflight))
        .route("/health", get(health).options(preflight))
        .fallback(async || {
            let what = "unknown path: see /info, /purchase, /health";
            respond(StatusCode::NOT_FOUND, refused(what))
        })
        .method_not_allowed_fallback(async || {
            let what = "this path does not support that method";
            respond(StatusCode::METHOD_NOT_ALLOWED, refused(what))
        })
        .layer(map_response(allow_all_origins))
        .with_state(shop)
}

fn refused(what: &str) -> String {
    Answer::Refused(Refusal::new(Reason::BadRequest, what)).to_json()
}

fn respond(status: StatusCode, json: String) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, json).into_response()
}

/// Buyers' pages are of any origin; what counts is the payment.
async fn allow_all_origins(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type, Authorization, X-Cashu, X-Weir-Voucher"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn preflight() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn health() -> Response {
    respond(StatusCode::OK, r#"{"ok":true,"service":"weir"}"#.to_owned())
}

async fn info(State(shop): State<Shop>) -> Response {
    respond(StatusCode::OK, serde_json::to_string(&shop.info()).unwrap_or_default())
}

async fn purchase(
    State(shop): State<Shop>,
    Extension(source): Extension<Network>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = Answer::from(buy(&shop, source, &headers, body).await);
    if let Answer::Refused(refusal) = &answer {
        shop.counts.refused(Way::Http, refusal);
    }
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::BAD_REQUEST);
    respond(status, answer.to_json())
}

async fn buy(
    shop: &Shop,
    source: Network,
    headers: &HeaderMap,
    body: Body,
) -> Result<Sold, Refusal> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = Authorization::read(text(AUTHORIZATION))?;
    let token = text(HeaderName::from_static(X_CASHU));
    let voucher = text(HeaderName::from_static(X_VOUCHER));
    let payment = Payment::from_headers(token, voucher)?;
    shop.check(&authorization, &payment)?;
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| {
        let what = format!("the request's body is incomplete, or longer than {MAX_BODY} bytes");
        Refusal::new(Reason::BadRequest, what)
    })?;
    shop.verify(source, authorization).await?;
    let order = Order::read(&body, payment)?;
    shop.sell(Way::Http, Source::Network(source), order).await
}
