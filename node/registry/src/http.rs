//! Everything on the registry's port: the relay, its description, the API, the page, metrics.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Json, Router,
    extract::{
        ConnectInfo, RawQuery, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;

use crate::{
    attestations::{self, AttestationsQuery},
    clock,
    exits::{self, ExitsQuery},
    info,
    listener::{Connections, Origin},
    network::Network,
    page,
    registry::Registry,
    relay::{Client, MAX_MESSAGE},
    socket, source,
};

const BUFFER: usize = 4 * 1024;
const HEADERS: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Web pages of others may read all that is public here (NIP-11 demands it of the description).
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
];

/// The addresses of the listed peers, which change with their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerAddresses(Arc<RwLock<HashSet<IpAddr>>>);

impl PeerAddresses {
    pub(crate) fn set(&self, addresses: HashSet<IpAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn contains(&self, address: &IpAddr) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(address)
    }
}

/// What requests need.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) registry: Arc<Registry>,
    pub(crate) connections: Connections,
    pub(crate) peers: PeerAddresses,
    pub(crate) proxies: Arc<[IpNet]>,
    pub(crate) description: Arc<info::Description>,
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/page.css", get(page::style))
        .route("/v1/exits", get(list))
        .route("/v1/countries", get(countries))
        .route("/v1/attestations", get(attested))
        .route("/metrics", get(metrics))
        .route("/health", get(async || (HEADERS, "ok\n")))
        .fallback(async || {
            error(StatusCode::NOT_FOUND, "not_found", "there is nothing here: see /")
        })
        .with_state(app)
}

/// An error as JSON: a code for programs and a message for people.
fn error(status: StatusCode, code: &'static str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    (status, HEADERS, Json(body)).into_response()
}

impl App {
    fn client(&self, origin: &Origin, headers: &HeaderMap) -> IpAddr {
        let forwarded = headers.get_all("x-forwarded-for");
        let forwarded: Vec<&str> = forwarded.iter().filter_map(|it| it.to_str().ok()).collect();
        source::client(origin.address, &forwarded, &self.proxies)
    }

    /// Whether a client may ask once more, else what it is told.
    fn admit(&self, origin: &Origin, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let network = Network::from(self.client(origin, headers));
        if self.registry.may_ask(network, clock::now()) {
            return Ok(());
        }
        let message = "your network asks too often: wait a few seconds";
        Err(Box::new(error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)))
    }
}

async fn root(
    State(app): State<App>,
    ConnectInfo(origin): ConnectInfo<Origin>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if let Ok(upgrade) = upgrade {
        return relay(&app, origin, &headers, upgrade);
    }
    let accepts = |what: &str| {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        accept.is_some_and(|accept| accept.contains(what))
    };
    if accepts("application/nostr+json") {
        let kind = [(header::CONTENT_TYPE, "application/nostr+json")];
        let text = app.description.document(app.registry.rules()).to_string();
        return (HEADERS, kind, text).into_response();
    }
    if let Err(refused) = app.admit(&origin, &headers) {
        return *refused;
    }
    let now = clock::now().unix;
    page::show(&app.registry, &app.description, query.as_deref().unwrap_or_default(), now)
}

fn relay(app: &App, origin: Origin, headers: &HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let address = app.client(&origin, headers);
    let network = Network::from(address);
    let place = if address == origin.address.to_canonical() {
        None
    } else {
        let Some(place) = app.connections.admit_behind_proxy(network) else {
            app.registry.metrics().connection_refused();
            let message = "your network has too many connections here: close some";
            return error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
        };
        Some(place)
    };
    let client = Client { network, is_peer: app.peers.contains(&address) };
    let registry = Arc::clone(&app.registry);
    upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .on_upgrade(async move |socket| {
            origin.keep();
            socket::serve(socket, client, registry).await;
            drop(place);
        })
}

async fn list(
    State(app): State<App>,
    ConnectInfo(origin): ConnectInfo<Origin>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    if let Err(refused) = app.admit(&origin, &headers) {
        return *refused;
    }
    answer(ExitsQuery::parse(query.as_deref().unwrap_or_default()), |query| {
        let found = exits::select(app.registry.listings(clock::now().unix), &query);
        exits::answer(&found, &query)
    })
}

async fn countries(
    State(app): State<App>,
    ConnectInfo(origin): ConnectInfo<Origin>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = app.admit(&origin, &headers) {
        return *refused;
    }
    let listings = app.registry.listings(clock::now().unix);
    (HEADERS, Json(json!({ "countries": exits::countries(listings.iter()) }))).into_response()
}

async fn attested(
    State(app): State<App>,
    ConnectInfo(origin): ConnectInfo<Origin>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    if let Err(refused) = app.admit(&origin, &headers) {
        return *refused;
    }
    answer(AttestationsQuery::parse(query.as_deref().unwrap_or_default()), |query| {
        attestations::find(&app.registry, &query, clock::now().unix)
    })
}

/// Answers a query with what was found, or says what is wrong with it.
fn answer<Q, A: Serialize>(
    query: Result<Q, impl std::fmt::Display>,
    find: impl FnOnce(Q) -> A,
) -> Response {
    match query {
        Ok(query) => (HEADERS, Json(find(query))).into_response(),
        Err(wrong) => error(StatusCode::BAD_REQUEST, "bad_query", &wrong.to_string()),
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match app.registry.metrics().encode(app.registry.size()) {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
