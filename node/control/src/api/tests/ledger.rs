use super::*;

#[tokio::test]
async fn credit_opens_a_prepaid_session_once_for_each_reference() {
    let node = serve_node(4).await;
    let made = node.ask("POST", "/v1/sessions", r#"{"name": "bob", "prepaid": true}"#).await;
    assert_eq!(made.json()["session"]["state"], "paused");
    assert_eq!(made.json()["signer"], node.rig.usage.signer());
    let pay = r#"{"reference": "p1", "bytes": 1000, "seconds": 60}"#;
    for _ in 0..2 {
        let paid = node.ask("POST", "/v1/sessions/bob/credit", pay).await.json();
        assert_eq!(paid["session"]["credit_bytes"], 1000);
        assert_eq!(paid["session"]["state"], "open");
    }
    for (path, body, status, code) in [
        ("credit", r#"{"reference": "p1", "bytes": 1}"#, 409, "reference_conflict"),
        ("credit", r#"{"reference": "p2"}"#, 400, "bad_credit"),
        ("credit", r#"{"reference": "", "bytes": 1}"#, 400, "bad_credit"),
        ("credit", r#"{"bytes": 1}"#, 400, "bad_json"),
        ("credit", r#"{"reference": "p2", "bytes": -1}"#, 400, "bad_json"),
        ("credit", "", 400, "bad_json"),
    ] {
        let answer = node.ask("POST", &format!("/v1/sessions/bob/{path}"), body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{body}");
    }
    let paused = node.ask("POST", "/v1/sessions/bob/pause", "").await.json();
    assert_eq!(paused["session"]["state"], "paused");
    let resumed = node.ask("POST", "/v1/sessions/bob/resume", "").await.json();
    assert_eq!(resumed["session"]["state"], "open");
    let closed = node.ask("POST", "/v1/sessions/bob/close", "").await.json();
    assert_eq!(closed["session"]["state"], "closed");
    assert_eq!(node.ask("POST", "/v1/sessions/bob/pause", "").await.code(), "not_found");
    let usage = node.ask("GET", "/v1/usage", "").await.json();
    assert_eq!(usage["records"][0]["end_reason"], "closed");
}

#[tokio::test]
async fn usage_is_read_on_from_a_cursor() {
    let node = serve_node(4).await;
    let slot = node.rig.add(Some("alice")).session.slot;
    for _ in 0..3 {
        node.rig.traffic(slot, 100);
        node.rig.sessions.record().expect("written");
    }
    let first = node.ask("GET", "/v1/usage?limit=2", "").await.json();
    assert_eq!(first["records"].as_array().expect("a list").len(), 2);
    let path = format!("/v1/usage?after={}", first["cursor"]);
    let rest = node.ask("GET", &path, "").await.json();
    assert_eq!(rest["records"][0]["bytes_up"], 300);
    assert_eq!(rest["records"][0]["sequence"], 3);
    let path = format!("/v1/usage?after={}", rest["cursor"]);
    let none = node.ask("GET", &path, "").await.json();
    assert_eq!(
        (none["records"].as_array().map(Vec::len), &none["cursor"]),
        (Some(0), &rest["cursor"])
    );
    for bad in ["after=x", "after=-1", "limit=1.5", "aftre=1"] {
        assert_eq!(node.ask("GET", &format!("/v1/usage?{bad}"), "").await.code(), "bad_query");
    }
}

#[tokio::test]
async fn the_stream_has_old_records_and_then_new_ones() {
    let node = serve_node(4).await;
    let slot = node.rig.add(Some("alice")).session.slot;
    node.rig.traffic(slot, 100);
    node.rig.sessions.record().expect("written");
    let stream =
        tokio::net::UnixStream::connect(node.folder.path().join("weir.sock")).await.expect("there");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get("/v1/usage/stream").header("host", "weir");
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let mut body = sender.send_request(request).await.expect("an answer").into_body();
    let mut next = async || {
        let limit = std::time::Duration::from_secs(10);
        let frame = tokio::time::timeout(limit, body.frame()).await.expect("in time");
        let data = frame.expect("a frame").expect("whole").into_data().expect("data");
        String::from_utf8(data.to_vec()).expect("text")
    };
    let old = next().await;
    assert!(old.contains("event: usage") && old.contains("\"bytes_up\":100"), "{old}");
    node.rig.traffic(slot, 50);
    node.rig.sessions.record().expect("written");
    let new = next().await;
    assert!(new.contains("\"bytes_up\":150") && new.contains("id: 2"), "{new}");
}

/// A node that also serves over TCP, with its token.
pub(super) async fn serve_http(rig: &Rig, folder: &Path) -> (std::net::SocketAddr, String) {
    let path = folder.join("api.token");
    let token = Token::load_or_create(&path).expect("a token");
    let listeners = Listeners::bind(&folder.join("weir.sock"), None, None).await.expect("bound");
    let listeners = listeners.with_http(([127, 0, 0, 1], 0).into(), token).await.expect("bound");
    let address = listeners.http_address().expect("bound");
    let api = api(rig);
    tokio::spawn(async move { listeners.serve(&api, std::future::pending()).await });
    let token = std::fs::read_to_string(path).expect("made");
    (address, token.trim().to_owned())
}

async fn ask_tcp(address: std::net::SocketAddr, token: Option<&str>) -> Answer {
    let stream = tokio::net::TcpStream::connect(address).await.expect("there");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::get("/v1/sessions").header("host", "weir");
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes().to_vec();
    Answer { status, content_type: String::new(), body }
}

#[tokio::test]
async fn over_tcp_only_the_token_opens_the_api() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (address, token) = serve_http(&rig, folder.path()).await;
    let almost = &token[..token.len() - 1];
    for wrong in [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Bearer {almost}")),
        Some(format!("Bearer {token}x")),
        Some(format!("Basic {token}")),
        Some(token.clone()),
    ] {
        let answer = ask_tcp(address, wrong.as_deref()).await;
        assert_eq!(answer.code(), "unauthorised", "{wrong:?}");
    }
    let answer = ask_tcp(address, Some(&format!("Bearer {token}"))).await;
    assert_eq!(answer.status, StatusCode::OK);
    let again = Token::load_or_create(&folder.path().join("api.token")).expect("there");
    assert!(format!("{again:?}").find(&token).is_none());
}

#[test]
fn a_token_that_others_can_read_or_guess_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    Token::load_or_create(&path).expect("made");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
    assert!(matches!(Token::load_or_create(&path), Err(TokenError::Exposed { .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::write(&path, "hunter2\n").expect("written");
    assert!(matches!(Token::load_or_create(&path), Err(TokenError::Short { .. })));
}
