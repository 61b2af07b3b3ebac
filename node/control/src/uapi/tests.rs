use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use weir_accounts::Endpoint;
use weir_sessions::registry::rig::{Rig, node_key};

fn device(rig: &Rig, endpoints: bool) -> Device {
    let template = PeerTemplate {
        node_key: node_key(),
        endpoint: "45.80.2.2:51820".into(),
        dns: Vec::new(),
        mtu: 1420,
        keepalive: 0,
        free_bytes: 0,
    };
    let (sessions, template) = (rig.sessions.clone(), Shared::from(template));
    Device { sessions, template, listen_port: 51820, endpoints }
}

/// What a client gets that writes this and then no more.
async fn answer(rig: &Rig, written: &[u8]) -> String {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let served = tokio::spawn(converse(theirs, device(rig, true), IO_TIMEOUT));
    ours.write_all(written).await.expect("written");
    ours.shutdown().await.expect("half closed");
    let mut answer = String::new();
    ours.read_to_string(&mut answer).await.expect("an answer");
    served.await.expect("no panic").expect("no error");
    answer
}

#[tokio::test]
async fn a_session_is_a_peer() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let session = rig.add(Some("alice")).session;
    rig.traffic(session.slot, 1000);
    let account = rig.accounts.get(session.slot).expect("a slot");
    account.metered.handshake_bytes_up.store(148, Relaxed);
    account.metered.last_handshake.store(1_700_000_000, Relaxed);
    let remote = "[2001:db8::7]:4242".parse().expect("an address");
    Endpoint { remote, local: None }.save(&account.worker);
    let key = alloy_primitives::hex::encode(session.public_key.0);
    let own = alloy_primitives::hex::encode(node_key().0);
    let expected = format!(
        "own_public_key={own}\nlisten_port=51820\npublic_key={key}\nprotocol_version=1\n\
         endpoint=[2001:db8::7]:4242\nlast_handshake_time_sec=1700000000\n\
         last_handshake_time_nsec=1\nrx_bytes=1148\ntx_bytes=0\n\
         persistent_keepalive_interval=0\nallowed_ip=10.66.0.2/32\n\
         allowed_ip=fd00:66::2/128\nerrno=0\n\n"
    );
    assert_eq!(text::describe(&device(&rig, true)), expected);
    let hidden = text::describe(&device(&rig, false));
    assert_eq!(hidden, expected.replace("endpoint=[2001:db8::7]:4242\n", ""));
    assert_eq!(answer(&rig, b"get=1\n\nget=1\n\n").await, expected.repeat(2));
}

#[tokio::test]
async fn nothing_can_be_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    rig.add(None);
    let set = b"set=1\nreplace_peers=true\nlisten_port=1\n\n";
    assert_eq!(answer(&rig, set).await, NOT_PERMITTED);
    assert_eq!(rig.sessions.len(), 1);
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    assert_eq!(answer(&rig, b"").await, "");
    let long = [b"set=1\n".as_slice(), &vec![b'x'; MAX_LINE as usize + 1]].concat();
    let endless =
        b"set=1\n".iter().chain(b"a\n".repeat(MAX_LINES).iter()).copied().collect::<Vec<_>>();
    for bad in [
        b"get=1".as_slice(),
        b"get=1\n",
        b"get=1\nx=1\n\n",
        b"get=2\n\n",
        b"\n",
        b"\n\n\n",
        b"get=1\0\n\n",
        b"\xff\xfe\n\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"set=1\n",
        &long,
        &endless,
    ] {
        let shown = String::from_utf8_lossy(&bad[..bad.len().min(20)]).into_owned();
        assert_eq!(answer(&rig, bad).await, INVALID, "{shown:?}");
    }
}

#[tokio::test]
async fn a_silent_client_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let served = tokio::spawn(converse(theirs, device(&rig, true), Duration::from_millis(100)));
    ours.write_all(b"get").await.expect("written");
    let error = served.await.expect("no panic").expect_err("given up");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_socket_goes_with_the_node_and_a_dead_ones_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = path(&folder.path().join("wireguard"), "weir0");
    assert!(path.ends_with("wireguard/weir0.sock"));
    std::fs::create_dir(path.parent().expect("a parent")).expect("made");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a dead node leaves its socket");
    let uapi = Uapi::bind(&path).expect("replaced");
    assert!(matches!(Uapi::bind(&path), Err(SocketError::InUse(_))));
    drop(uapi);
    assert!(!path.exists());
}
