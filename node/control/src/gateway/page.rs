//! The page inside the tunnel: what is left, the price, and a form for a voucher or a token. It has no script, and
//! looks like the node's own page.

use axum::{
    Form, Router,
    extract::{ConnectInfo, DefaultBodyLimit, State, rejection::FormRejection},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use weir_page::{STYLE, escape};

use super::{
    listener::Caller,
    prepay::{
        MAX_BODY, Prepay,
        view::{Given, Left},
    },
};
use crate::api::error::ApiError;

/// Only what this node sends; the form goes to this node alone; never within another page.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];
const FRAME: &str = include_str!("page/index.html");

/// What the form sends.
#[derive(Debug, Deserialize)]
struct Sent {
    payment: String,
}

/// The page's requests. They are to come through a [`super::listener::SessionListener`].
pub(super) fn router(prepay: &Prepay) -> Router {
    Router::new()
        .route("/", get(show).post(give))
        .route(
            "/page.css",
            get(async || (HEADERS, [(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)),
        )
        .fallback(async || (StatusCode::NOT_FOUND, "there is nothing here: see /\n"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(prepay.clone())
}

async fn show(State(prepay): State<Prepay>, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    if let Err(error) = prepay.admit(caller) {
        return error.into_response();
    }
    page(&prepay, caller, StatusCode::OK, "")
}

async fn give(
    State(prepay): State<Prepay>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    sent: Result<Form<Sent>, FormRejection>,
) -> Response {
    if let Err(error) = prepay.admit(caller) {
        return error.into_response();
    }
    let taken = match sent {
        Ok(Form(sent)) => prepay.give(caller, &sent.payment).await,
        Err(_) => Err(ApiError::bad_request("bad_form", "the form was not complete, or too long")),
    };
    match taken {
        Ok(given) => page(&prepay, caller, StatusCode::OK, &thanks(&given)),
        Err(error) => {
            let text = format!(
                "<p class=\"banner\" role=\"alert\">Not taken: {}.</p>",
                escape(error.message())
            );
            page(&prepay, caller, error.status(), &text)
        }
    }
}

fn thanks(given: &Given) -> String {
    let text = match given.status.as_str() {
        "before" => "This session has used it before: nothing has changed.".to_owned(),
        "pending" => {
            "The mint is asked to exchange the token. It is added after that: reload this \
                      page in a minute."
                .to_owned()
        }
        _ => {
            let bytes = (given.bytes > 0).then(|| amount(given.bytes));
            let time = (given.seconds > 0).then(|| duration(given.seconds));
            let added: Vec<_> = bytes.into_iter().chain(time).collect();
            format!("Added: {}.", added.join(" and "))
        }
    };
    format!("<p class=\"banner good\" role=\"status\">{}</p>", escape(&text))
}

fn page(prepay: &Prepay, caller: Caller, status: StatusCode, message: &str) -> Response {
    let left = match prepay.left(caller.0) {
        Ok(left) => left,
        Err(error) => return error.into_response(),
    };
    let html = render(prepay, &left, message);
    (status, HEADERS, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

fn render(prepay: &Prepay, left: &Left, message: &str) -> String {
    let (badge, state) = match (left.state.as_str(), left.paused_for.as_deref()) {
        ("open", _) => ("good", "open"),
        (_, Some("credit")) => ("bad", "paused: nothing left"),
        (_, Some("quota")) => ("warn", "paused: the node's quota is used up"),
        (_, Some("schedule")) => ("warn", "paused by the node's schedule"),
        (_, Some(_)) => ("warn", "paused by the operator"),
        _ => ("warn", "paused"),
    };
    let bytes = left.bytes.map_or_else(|| "no limit".to_owned(), amount);
    let time = left.seconds.map(|seconds| tile(&duration(seconds), "time left"));
    let price = prepay.cashu().map(|cashu| {
        let (price, unit) = cashu.price();
        tile(&format!("{price} {}", escape(unit)), "for a GiB")
    });
    let tiles =
        [Some(tile(&bytes, "left")), time, Some(tile(&amount(left.used_bytes), "used")), price];
    let what = match (prepay.takes_vouchers(), prepay.cashu().is_some()) {
        (true, true) => "Voucher or Cashu token",
        (true, false) => "Voucher",
        _ => "Cashu token",
    };
    let wallet = prepay.cashu().map(|cashu| {
        let mints: Vec<_> = cashu.mints().map(escape).collect();
        format!(
            "<section class=\"card\"><h2>For wallets</h2><p>Tokens of {}, locked to this node's key (P2PK):</p>\
             <p class=\"mono wrap\">{}</p><p>Payment request:</p><p class=\"mono wrap\">{}</p></section>",
            mints.join(", "),
            escape(&cashu.lock()),
            escape(&cashu.request())
        )
    });
    FRAME
        .replace("{badge}", badge)
        .replace("{state}", state)
        .replace("{tiles}", &tiles.into_iter().flatten().collect::<String>())
        .replace("{what}", what)
        .replace("{wallet}", &wallet.unwrap_or_default())
        // Last, so that nothing of it is replaced.
        .replace("{message}", message)
}

fn tile(value: &str, name: &str) -> String {
    format!("<div class=\"card tile\"><b>{value}</b><span>{name}</span></div>")
}

fn amount(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.2} {}", units[unit]),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
