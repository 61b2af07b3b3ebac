use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use tokio::sync::oneshot;

use super::*;
use weir_control::{
    api::{Api, Listeners},
    metrics::Series,
    testing::StillNode,
};
use weir_sessions::{
    registry::rig::{Rig, node_key},
    wg_quick::PeerTemplate,
};

/// The text that was written to a stream.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
    }
}

/// A stream whose reader has closed it.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Ran {
    success: bool,
    code: String,
    out: String,
    err: String,
}

fn weir_on(terminal: bool, args: &[&str]) -> Ran {
    let (out, err) = (Page::default(), Page::default());
    let args = std::iter::once("weir").chain(args.iter().copied()).map(OsString::from);
    let (mut to, mut to_err) = (Out::new(out.clone(), terminal), Out::new(err.clone(), false));
    let code = run(args, None, &mut to, &mut to_err);
    let success = code == ExitCode::SUCCESS;
    Ran { success, code: format!("{code:?}"), out: out.text(), err: err.text() }
}

fn weir(args: &[&str]) -> Ran {
    weir_on(false, args)
}

/// A node that a thread serves until this is dropped.
struct Served {
    rig: Rig,
    socket: String,
    _folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

fn served() -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 100);
    let template = PeerTemplate {
        node_key: node_key(),
        endpoint: "192.0.2.1:51820".to_owned(),
        dns: vec![[9, 9, 9, 9].into()],
        mtu: 1420,
        keepalive: 0,
        free_bytes: 0,
    };
    let api = Api::new(
        rig.sessions.clone(),
        rig.usage.clone(),
        Arc::new(StillNode),
        template,
        Series::default(),
    )
    .with_limits(rig.limiter())
    .with_flows(Arc::new(StillNode), rig.ledger.port_log());
    let path = folder.path().join("weir.sock");
    let socket = path.to_str().expect("text").to_owned();
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let listeners = Listeners::bind(&path, None, None).await.expect("bound");
            ready.send(()).expect("awaited");
            let stop = async move { drop(stopped.await) };
            listeners.serve(&api, stop).await.expect("served");
        });
    });
    is_ready.recv().expect("bound");
    Served { rig, socket, _folder: folder, _stop: stop }
}

impl Served {
    fn weir(&self, args: &[&str]) -> Ran {
        weir(&[&["--socket", &self.socket], args].concat())
    }
}

#[test]
fn sessions_are_added_listed_shown_and_removed() {
    let node = served();
    assert!(node.weir(&["session", "list"]).out.starts_with("no sessions yet"));
    let added = node.weir(&["session", "add", "--name", "alice"]);
    assert!(added.success, "{}", added.err);
    assert!(added.out.contains("PrivateKey = "), "{}", added.out);
    assert!(!added.out.contains('\u{2588}'), "no QR code into a file");
    let id = node.rig.sessions.list()[0].session.id.to_string();
    let list = node.weir(&["session", "list"]).out;
    assert!(list.lines().any(|line| line.starts_with(&id) && line.contains("alice")), "{list}");
    let json = node.weir(&["session", "list", "--json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["sessions"][0]["id"], id.as_str());
    let key = json["sessions"][0]["public_key"].as_str().expect("a key").to_owned();
    for which in ["alice", &id[..5], &key] {
        let shown = node.weir(&["session", "show", which]);
        assert!(shown.out.contains(&id), "{which}: {}", shown.err);
    }
    let removed = node.weir(&["session", "remove", "alice"]);
    assert!(removed.success && removed.out.starts_with("removed"), "{}", removed.err);
    let again = node.weir(&["session", "remove", "alice"]);
    assert!(!again.success && again.err.contains("no session \"alice\""), "{}", again.err);
}

#[test]
fn a_session_gets_the_preshared_key_that_is_named_or_a_new_one() {
    let node = served();
    let own = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    for (arguments, is_own) in
        [(&["--psk", own][..], true), (&["--psk", "generate"], false), (&["--psk"], false)]
    {
        let added = node.weir(&[&["session", "add"], arguments].concat());
        assert!(added.out.contains("PresharedKey = "), "{}", added.err);
        assert_eq!(added.out.contains(own), is_own);
    }
    let wrong = node.weir(&["session", "add", "--psk", "short"]);
    assert!(!wrong.success && wrong.err.contains("44 characters"), "{}", wrong.err);
}

#[test]
fn on_a_terminal_the_qr_code_follows_the_configuration() {
    let node = served();
    let args = ["--socket", &node.socket, "session", "add"];
    let shown = weir_on(true, &args);
    assert!(shown.out.starts_with("# weir session") && shown.out.contains('\u{2588}'));
    let key = format!("{:?}", weir_wireguard::keys::PrivateKey::random().public());
    let own_key = weir_on(true, &[&args[..], &["--public-key", &key]].concat());
    assert!(own_key.out.contains("# Put your own private key here"), "{}", own_key.err);
    assert!(!own_key.out.contains('\u{2588}'), "an app could not use it");
}

#[test]
fn a_node_that_does_not_run_is_named_with_the_way_to_start_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weir.sock");
    let socket = path.to_str().expect("text");
    for args in [&["session", "list"][..], &["session", "show", "x"], &["status"]] {
        let missing = weir(&[&["--socket", socket], args].concat());
        assert!(!missing.success && missing.err.contains("weir run"), "{}", missing.err);
        assert!(missing.err.contains(socket), "{}", missing.err);
    }
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let dead = weir(&["--socket", socket, "status"]);
    assert!(
        dead.err.contains("nothing listens on") && dead.err.contains("weir run"),
        "{}",
        dead.err
    );
}

#[test]
fn the_socket_comes_from_the_flag_the_environment_or_the_configuration() {
    let node = served();
    let (out, err) = (Page::default(), Page::default());
    let (mut to, mut to_err) = (Out::new(out, false), Out::new(err.clone(), false));
    let args = ["weir", "status"].map(OsString::from);
    let code = run(args, Some(OsString::from(&node.socket)), &mut to, &mut to_err);
    assert_eq!(code, ExitCode::SUCCESS, "{}", err.text());
    let config = node.socket.replace(".sock", ".toml");
    std::fs::write(&config, format!("[api]\nsocket = {:?}\n", node.socket)).expect("written");
    let from_config = weir(&["--config", &config, "status"]);
    assert!(from_config.out.contains("XDP native"), "{}", from_config.err);
    std::fs::write(&config, "[api]\nsocket = \"/nonexistent/weir.sock\"\n").expect("written");
    let missing = weir(&["--config", &config, "status"]);
    assert!(missing.err.contains("/nonexistent/weir.sock"), "{}", missing.err);
}

#[test]
fn status_is_one_screen_or_json() {
    let node = served();
    assert!(node.weir(&["status"]).out.contains("packets per batch"));
    let json = node.weir(&["status", "--json"]).out;
    let status: weir_control::view::Status = serde_json::from_str(&json).expect("a status");
    assert_eq!(status, weir_control::view::NodeView::status(&StillNode));
}

#[test]
fn configurations_are_printed_and_checked() {
    assert_eq!(weir(&["config", "default"]).out, config::default_text());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weir.toml");
    let file = path.to_str().expect("text");
    // No machine has this interface, so no uplink's MTU counts.
    std::fs::write(&path, "[node]\nuplink = \"weir-none\"\n").expect("written");
    let good = weir(&["config", "check", file]);
    assert!(good.out.ends_with("no mistakes\n"), "{}", good.err);
    std::fs::write(&path, "[node]\nlisten_prot = 1\ncoers = []\n").expect("written");
    let bad = weir(&["config", "check", file]);
    assert!(
        !bad.success && bad.err.starts_with(&format!("{file}:2:1: node.listen_prot: ")),
        "{}",
        bad.err
    );
    assert!(bad.err.ends_with("has 2 mistakes\n"), "{}", bad.err);
    let missing = weir(&["config", "check", "/nonexistent/file"]);
    assert!(missing.err.contains("cannot read the configuration /nonexistent/file"));
}

#[test]
fn exit_status_tells_wrong_usage_from_failure() {
    let two = format!("{:?}", ExitCode::from(2));
    for args in [&[][..], &["fly"], &["session"], &["session", "show"], &["status", "--what"]] {
        let wrong = weir(args);
        assert_eq!(wrong.code, two, "{args:?}");
        assert!(wrong.err.contains("Usage"), "{args:?}: {}", wrong.err);
    }
    for args in [&["--help"][..], &["session", "add", "--help"], &["--version"]] {
        assert!(weir(args).success, "{args:?}");
    }
    assert!(weir(&["session", "add", "--help"]).out.contains("Examples:"));
    assert_eq!(
        weir(&["--socket", "/nonexistent", "status"]).code,
        format!("{:?}", ExitCode::FAILURE)
    );
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let mut err = Out::new(Page::default(), false);
    let args = ["weir", "config", "default"].map(OsString::from);
    let code = run(args, None, &mut Out::new(Gone, false), &mut err);
    assert_eq!(code, ExitCode::SUCCESS);
}

#[test]
fn credit_is_given_and_the_ledger_checked_and_exported() {
    let node = served();
    assert!(node.weir(&["session", "add", "--name", "alice", "--prepaid"]).success);
    let credit = ["session", "credit", "alice", "--gib", "2", "--reference", "p1"];
    for _ in 0..2 {
        let said = node.weir(&credit);
        assert!(said.out.contains("2.00 GiB left"), "{}{}", said.out, said.err);
    }
    assert!(node.weir(&["session", "pause", "alice"]).out.contains("paused"));
    assert!(node.weir(&["session", "resume", "alice"]).out.contains("open"));
    node.rig.traffic(weir_common::Slot(0), 7);
    assert!(node.weir(&["session", "close", "alice"]).out.contains("closed"));
    let ledger = node._folder.path().join("ledger.db");
    let ledger = ledger.to_str().expect("text");
    let checked = weir(&["ledger", "check", ledger]);
    assert!(checked.out.contains("1 sessions, 1 usage records, no problems"), "{}", checked.err);
    let exported = weir(&["ledger", "export", ledger]).out;
    assert!(exported.contains("\"bytes_up\":7") && exported.ends_with("}\n"), "{exported}");
    assert_eq!(weir(&["ledger", "export", ledger, "--after", "1"]).out, "");
    let missing = weir(&["ledger", "check", "/nonexistent/ledger.db"]);
    assert!(!missing.success && missing.err.contains("/nonexistent/ledger.db"), "{}", missing.err);
}

#[test]
fn the_link_to_the_page_has_the_token_and_an_address_of_this_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("weir.toml");
    let token_file = folder.path().join("token");
    let text = format!("[api]\nhttp = \"0.0.0.0:9588\"\ntoken_file = {token_file:?}\n");
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("text");
    let ran = weir(&["--config", config, "page"]);
    assert!(ran.err.contains("cannot read the token"), "{}", ran.err);
    std::fs::write(&token_file, "abc_123-x\n").expect("written");
    let ran = weir(&["--config", config, "page"]);
    assert_eq!(ran.out, "http://127.0.0.1:9588/#token=abc_123-x\n");
}

#[test]
fn without_a_terminal_top_says_what_to_use_instead() {
    let ran = weir(&["--socket", "/nonexistent", "top"]);
    assert!(ran.err.contains("weir top needs a terminal: use weir status"), "{}", ran.err);
    let ran = weir(&["--json", "top"]);
    assert!(ran.err.contains("weir status --json"), "{}", ran.err);
}

#[test]
fn flows_are_shown_and_an_abuse_notice_is_answered_from_the_ledger_file() {
    let node = served();
    let shown = node.weir(&["flows"]);
    assert!(shown.out.contains("flows   43 of 262144"), "{}{}", shown.out, shown.err);
    let json: serde_json::Value =
        serde_json::from_str(&node.weir(&["flows", "--json"]).out).expect("JSON");
    assert_eq!(json["nat"]["ports_used"], 96);

    let session = node.rig.add(Some("alice")).session.id;
    let ports = weir_ledger::Ports { address: [198, 51, 100, 7].into(), first: 4704, length: 32 };
    let taken = weir_ledger::BlockEvent::Taken { session, ports, at: 1_700_000_000 };
    node.rig.ledger.lock().write_blocks(&[taken]).expect("written");
    // Of a file that no node has open, or one has.
    let file = node.socket.replace("weir.sock", "ledger.db");
    let owner = |time: &str| weir(&["flows", "owner", "198.51.100.7:4711", time, "--file", &file]);
    let found = owner("2023-11-14T23:13:21+01:00");
    assert!(found.success, "{}", found.err);
    assert_eq!(
        found.out,
        format!("session {session} held ports 4704-4735 from 2023-11-14 22:13:20 UTC to now\n")
    );
    let before = owner("2023-11-14T22:13:19Z");
    assert!(
        !before.success && before.err.contains("Check the time and its zone"),
        "{}",
        before.err
    );
    let zone = owner("2023-11-14T22:13:19");
    assert!(!zone.success && zone.err.contains("with its time zone"), "{}", zone.err);
}
