use std::path::Path;

use axum::http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
};

use super::*;
use crate::{
    connections::{Limits, Trust},
    metrics::Series,
    testing::StillNode,
};
use weir_sessions::registry::rig::{Rig, node_key};

/// A served node in a folder of its own.
struct Served {
    rig: Rig,
    folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

async fn serve_node(max: u32) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), max);
    let template = PeerTemplate {
        node_key: node_key(),
        endpoint: "192.0.2.1:51820".to_owned(),
        dns: vec![[9, 9, 9, 9].into()],
        mtu: 1420,
        keepalive: 0,
        free_bytes: 0,
    };
    let series = Series { per_session: true, max_sessions: 100 };
    let api =
        Api::new(rig.sessions.clone(), rig.usage.clone(), Arc::new(StillNode), template, series)
            .with_limits(rig.limiter())
            .with_flows(Arc::new(StillNode), rig.ledger.port_log());
    let socket = folder.path().join("weir.sock");
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let listeners = Listeners::bind(&socket, None, None).await.expect("bound");
        let stop = async move { drop(stopped.await) };
        listeners.serve(&api, stop).await.expect("served");
    });
    // The socket is there after the task was polled once.
    while !folder.path().join("weir.sock").exists() {
        tokio::task::yield_now().await;
    }
    Served { rig, folder, _stop: stop }
}

struct Answer {
    status: StatusCode,
    content_type: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error has a code").to_owned()
    }
}

async fn ask(folder: &Path, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
    let stream = tokio::net::UnixStream::connect(folder.join("weir.sock")).await.expect("there");
    ask_on(stream, method, path, body).await
}

async fn ask_on<S>(stream: S, method: &str, path: &str, body: impl Into<Bytes>) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    // A server that has seen enough of a body closes while we still write.
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::builder().method(method).uri(path).header("host", "weir");
    let request = request.body(Full::new(body.into())).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let content_type = response.headers().get(CONTENT_TYPE).expect("a type");
    let content_type = content_type.to_str().expect("text").to_owned();
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes().to_vec();
    Answer { status, content_type, body }
}

impl Served {
    async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        ask(self.folder.path(), method, path, body).await
    }
}

#[tokio::test]
async fn a_session_is_made_listed_shown_and_removed() {
    let node = serve_node(4).await;
    let made = node.ask("POST", "/v1/sessions", r#"{"name": "alice"}"#).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json();
    let config = made["config"].as_str().expect("a configuration");
    assert!(config.contains("PrivateKey = ") && config.contains("Endpoint = 192.0.2.1:51820"));
    let session = &made["session"];
    assert_eq!(session["address_v4"], "10.66.0.2");
    assert_eq!(session["last_handshake"], serde_json::Value::Null);
    let key = session["public_key"].as_str().expect("a key").to_owned();
    let id = session["id"].as_str().expect("an identifier").to_owned();
    node.rig.traffic(weir_common::Slot(0), 148);

    let list = node.ask("GET", "/v1/sessions", "").await;
    assert_eq!(list.json()["sessions"][0]["bytes_up"], 148);
    let escaped = key.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    for which in ["alice", &id, &id[..6], &escaped] {
        let shown = node.ask("GET", &format!("/v1/sessions/{which}"), "").await;
        assert_eq!(shown.status, StatusCode::OK, "{which}");
        assert_eq!(shown.json()["session"]["guard"]["bytes"], 148);
    }
    let gone = node.ask("DELETE", "/v1/sessions/alice", "").await;
    assert_eq!(
        (gone.status, gone.json()["session"]["bytes_up"].as_u64()),
        (StatusCode::OK, Some(148))
    );
    assert_eq!(node.ask("GET", "/v1/sessions/alice", "").await.code(), "not_found");
}

#[tokio::test]
async fn a_preshared_key_is_in_the_configuration_and_in_no_other_answer() {
    let node = serve_node(4).await;
    let own = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    let mut keys = Vec::new();
    for wanted in [own, "generate", "generate"] {
        let body = format!(r#"{{"preshared_key": "{wanted}"}}"#);
        let made = node.ask("POST", "/v1/sessions", body).await.json();
        let config = made["config"].as_str().expect("a configuration");
        let key = config.lines().find_map(|line| line.strip_prefix("PresharedKey = "));
        let key = key.expect("a pre-shared key").to_owned();
        assert!(!made["session"].to_string().contains(&key));
        keys.push(key);
    }
    assert_eq!(keys[0], own);
    assert!(keys[1] != keys[2] && keys[1].len() == 44);
    let list = node.ask("GET", "/v1/sessions", "").await.json().to_string();
    assert!(keys.iter().all(|key| !list.contains(key)));
    let plain = node.ask("POST", "/v1/sessions", "{}").await.json();
    assert!(!plain["config"].to_string().contains("PresharedKey"));
}

#[tokio::test]
async fn the_private_half_of_a_pair_is_in_the_configuration_and_nowhere_else() {
    let node = serve_node(4).await;
    let made = node.ask("POST", "/v1/sessions", "").await.json();
    let config = made["config"].as_str().expect("a configuration");
    let private = config.lines().find_map(|line| line.strip_prefix("PrivateKey = "));
    let private = private.expect("a private key");
    for path in ["/v1/sessions", "/v1/status", "/metrics"] {
        let answer = node.ask("GET", path, "").await;
        assert!(!String::from_utf8_lossy(&answer.body).contains(private), "{path}");
    }
    for file in std::fs::read_dir(node.folder.path()).expect("readable").flatten() {
        if file.file_type().expect("a type").is_file() {
            let bytes = std::fs::read(file.path()).expect("readable");
            let found = bytes.windows(private.len()).any(|window| window == private.as_bytes());
            assert!(!found, "{:?}", file.path());
        }
    }
    let own = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    let theirs = weir_wireguard::keys::PrivateKey::random().public();
    let body = format!(r#"{{"public_key": "{theirs:?}"}}"#);
    let made = node.ask("POST", "/v1/sessions", body).await.json();
    let config = made["config"].as_str().expect("a configuration");
    assert!(config.contains("# Put your own private key here") && !config.contains(own));
}

#[tokio::test]
async fn every_bad_request_has_its_own_answer() {
    let node = serve_node(1).await;
    let own = format!(r#"{{"public_key": "{:?}"}}"#, node_key());
    let zero_preshared = format!(r#"{{"preshared_key": "{}="}}"#, "A".repeat(43));
    let zero = format!(r#"{{"public_key": "{}="}}"#, "A".repeat(43));
    let huge = format!(r#"{{"name": "{}"}}"#, "x".repeat(20_000));
    let deep = "[".repeat(10_000);
    let invalid_utf8: &[u8] = b"{\"name\": \"\xff\"}";
    let posts: &[(&[u8], u16, &str)] = &[
        (b"{", 400, "bad_json"),
        (b"[]", 400, "bad_json"),
        (b"null", 400, "bad_json"),
        (b"{} {}", 400, "bad_json"),
        (b"\0", 400, "bad_json"),
        (invalid_utf8, 400, "bad_json"),
        (deep.as_bytes(), 400, "bad_json"),
        (br#"{"nmae": "x"}"#, 400, "bad_json"),
        (br#"{"name": 5}"#, 400, "bad_json"),
        (br#"{"name": "a", "name": "b"}"#, 400, "bad_json"),
        (br#"{"name": ""}"#, 400, "bad_name"),
        (br#"{"name": "a\nPostUp = rm"}"#, 400, "bad_name"),
        (br#"{"name": "../x"}"#, 400, "bad_name"),
        (br#"{"public_key": ""}"#, 400, "bad_key"),
        (br#"{"public_key": "not a key"}"#, 400, "bad_key"),
        (br#"{"preshared_key": "x"}"#, 400, "bad_key"),
        (zero_preshared.as_bytes(), 400, "bad_key"),
        (zero.as_bytes(), 400, "bad_key"),
        (own.as_bytes(), 400, "bad_key"),
        (huge.as_bytes(), 413, "body_too_large"),
    ];
    for (body, status, code) in posts {
        let answer = node.ask("POST", "/v1/sessions", body.to_vec()).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (*status, *code), "{shown}");
        assert!(answer.json()["error"]["message"].as_str().is_some_and(|text| text.len() > 10));
    }
    for (method, path, status, code) in [
        ("GET", "/", 404, "no_such_route"),
        ("GET", "/v1/sessions/", 404, "no_such_route"),
        ("GET", "/v1/sessions/a/b", 404, "no_such_route"),
        ("GET", "/v1/sessions/%ff", 400, "bad_path"),
        ("GET", "/v1/sessions/%00", 404, "not_found"),
        ("GET", "/v1/sessions/0000", 404, "not_found"),
        ("DELETE", "/v1/sessions/nobody", 404, "not_found"),
        ("PATCH", "/v1/sessions", 405, "method_not_allowed"),
        ("POST", "/v1/status", 405, "method_not_allowed"),
    ] {
        let answer = node.ask(method, path, "").await;
        let got = (answer.status.as_u16(), answer.code());
        assert_eq!(got, (status, code.to_owned()), "{method} {path}");
    }
    assert_eq!(node.ask("POST", "/v1/sessions", r#"{"name": "a"}"#).await.status, 201);
    assert_eq!(node.ask("POST", "/v1/sessions", r#"{"name": "a"}"#).await.code(), "name_taken");
    assert_eq!(node.ask("POST", "/v1/sessions", "{}").await.code(), "full");
    assert_eq!(node.rig.sessions.len(), 1, "no bad request made a session");
}

#[tokio::test]
async fn rubbish_on_the_socket_does_not_end_the_server() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let node = serve_node(1).await;
    for rubbish in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", &[0; 4096], b"POST /v1/sessions"]
    {
        let path = node.folder.path().join("weir.sock");
        let mut stream = tokio::net::UnixStream::connect(path).await.expect("there");
        // The server may hang up at any point of this.
        drop(stream.write_all(rubbish).await);
        drop(stream.shutdown().await);
        drop(stream.read_to_end(&mut Vec::new()).await);
    }
    assert_eq!(node.ask("GET", "/health", "").await.json()["status"], "ok");
}

#[tokio::test]
async fn status_and_metrics_describe_the_node() {
    let node = serve_node(4).await;
    node.rig.add(Some("alice"));
    let status = node.ask("GET", "/v1/status", "").await;
    let status: crate::view::Status = serde_json::from_slice(&status.body).expect("a status");
    assert_eq!(status, crate::view::NodeView::status(&StillNode));
    let scrape = node.ask("GET", "/metrics", "").await;
    assert_eq!(scrape.content_type, "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(scrape.body).expect("text");
    assert!(text.contains("\n# TYPE weir_handshakes_total counter\n"), "{text}");
    assert!(text.contains("\nweir_sessions{state=\"open\"} 1\n"), "{text}");
}

pub(crate) fn api(rig: &Rig) -> Api {
    let template = PeerTemplate {
        node_key: node_key(),
        endpoint: String::new(),
        dns: Vec::new(),
        mtu: 1420,
        keepalive: 0,
        free_bytes: 0,
    };
    Api::new(
        rig.sessions.clone(),
        rig.usage.clone(),
        Arc::new(StillNode),
        template,
        Series::default(),
    )
}

#[tokio::test]
async fn the_tcp_port_has_metrics_and_no_sessions() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let any_port = Some(([127, 0, 0, 1], 0).into());
    let socket = folder.path().join("weir.sock");
    let listeners = Listeners::bind(&socket, None, any_port).await.expect("bound");
    let address = listeners.metrics_address().expect("bound");
    let taken = Listeners::bind(&folder.path().join("2.sock"), None, Some(address)).await;
    let error = taken.expect_err("the port is taken").to_string();
    assert!(error.contains("api.metrics"), "{error}");

    let api = api(&rig);
    tokio::spawn(async move { listeners.serve(&api, std::future::pending()).await });
    let get = async |path: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.expect("there");
        ask_on(stream, "GET", path, "").await
    };
    assert_eq!(get("/metrics").await.status, StatusCode::OK);
    for path in ["/v1/sessions", "/v1/status"] {
        assert_eq!(get(path).await.code(), "no_such_route");
    }
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_request_does_not_hold_up_the_stop() {
    use tokio::io::AsyncWriteExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let socket = folder.path().join("weir.sock");
    let listeners = Listeners::bind(&socket, None, None).await.expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let api = api(&rig);
    let served =
        tokio::spawn(
            async move { listeners.serve(&api, async move { drop(stopped.await) }).await },
        );
    let mut slow = tokio::net::UnixStream::connect(&socket).await.expect("there");
    slow.write_all(b"GET /health HTTP/1.1\r\n").await.expect("written");
    assert_eq!(ask(folder.path(), "GET", "/health", "").await.status, StatusCode::OK);
    stop.send(()).expect("awaited");
    let limit = std::time::Duration::from_secs(10);
    let done = tokio::time::timeout(limit, served).await.expect("stops").expect("no panic");
    done.expect("served");
    assert!(!socket.exists());
}

const LIMITS: Limits = Limits {
    total: 2,
    per_source: 2,
    lifetime: std::time::Duration::from_millis(200),
    idle: std::time::Duration::from_millis(200),
};

#[tokio::test]
async fn silent_connections_give_their_places_to_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (listener, _file) = socket::bind(&folder.path().join("weir.sock"), None).expect("bound");
    let router = api(&rig).router();
    let listener = listeners::Known::new(listener, LIMITS);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let connect = || tokio::net::UnixStream::connect(folder.path().join("weir.sock"));
    let _silent = (connect().await, connect().await, connect().await);
    let limit = std::time::Duration::from_secs(10);
    let asked = tokio::time::timeout(limit, ask(folder.path(), "GET", "/health", "")).await;
    assert_eq!(asked.expect("a place comes free").status, StatusCode::OK);
}

/// One request on a connection that is kept, and the status of its answer; `None` once it is over.
async fn status_of(stream: &mut tokio::net::TcpStream, path: &str, token: &str) -> Option<u16> {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let whole = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        (body.len() >= length.parse().ok()?).then(|| head[9..12].parse().expect("a status"))
    };
    loop {
        if let Some(status) = whole(&answer) {
            return Some(status);
        }
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn with_the_token_a_connection_lives_on_and_without_it_ends_whatever_it_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let path = folder.path().join("token");
    let token = Token::load_or_create(&path).expect("made");
    let text = std::fs::read_to_string(path).expect("there");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let second = std::time::Duration::from_secs(1);
    let limits = Limits { lifetime: 3 * second, idle: 3600 * second, ..LIMITS };
    let listener = listeners::Strangers::new(listener, limits);
    let router = api(&rig).http_router(&token).into_make_service_with_connect_info::<Trust>();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let connect = || tokio::net::TcpStream::connect(address);
    let mut known = connect().await.expect("there");
    assert_eq!(status_of(&mut known, "/v1/status", text.trim()).await, Some(200));
    let mut stranger = connect().await.expect("there");
    let mut refused = 0;
    while let Some(status) = status_of(&mut stranger, "/v1/status", "a guess").await {
        assert_eq!(status, 401);
        refused += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(refused > 0, "it was never answered");
    // The stranger's lifetime began after this one's.
    assert_eq!(status_of(&mut known, "/v1/status", text.trim()).await, Some(200));
}

mod flows;
mod ledger;
mod openapi;

#[test]
fn prometheus_gets_open_metrics_and_others_the_older_text() {
    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
    assert!(Form::OpenMetrics.content_type().starts_with("application/openmetrics-text"));
    for other in ["", "*/*", "text/plain"] {
        assert_eq!(Form::accepted(other), Form::Plain, "{other}");
    }
}
/// A node that takes the first reload, and finds a mistake at the second.
#[derive(Default)]
struct Once(std::sync::atomic::AtomicBool);

impl crate::reload::Reload for Once {
    fn reload(&self) -> Result<crate::reload::Outcome, crate::reload::ReloadError> {
        if self.0.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return Err(crate::reload::ReloadError::Part("list:7: not a network".into()));
        }
        let applied = vec!["tunnel.dns".to_owned()];
        Ok(crate::reload::Outcome { applied, ..Default::default() })
    }
}

#[tokio::test]
async fn a_reload_says_what_it_did_and_a_mistake_is_the_askers() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let ask = async |api: &Api| {
        let answer = reload::reload(State(api.clone())).await.into_response();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("a body");
        (status, serde_json::from_slice::<serde_json::Value>(&body).expect("JSON"))
    };
    let reloads = api(&rig).with_reload(Arc::new(Once::default()));
    let (status, body) = ask(&reloads).await;
    assert_eq!((status.as_u16(), &body["applied"][0]), (200, &"tunnel.dns".into()), "{body}");
    let (status, body) = ask(&reloads).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &"bad_config".into()), "{body}");
    assert!(
        body["error"]["message"].as_str().is_some_and(|text| text.contains("list:7")),
        "{body}"
    );
    assert_eq!(ask(&api(&rig)).await.0.as_u16(), 500, "there is nothing to reload");
}
