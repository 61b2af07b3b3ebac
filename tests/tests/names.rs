//! Names that the node itself connects to are looked up anew when the machine's files for that were
//! replaced, also within the sandbox.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    fs::CWD,
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
};
use weir_tests::{
    Client, Lab, Node, Settings, command,
    lab::{SERVER_V4, SERVERS},
    until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Gives this thread, and what it starts, a copy of /etc in the place of /etc, and a bpffs where
/// systemd has one.
fn enter_own_mounts(etc: &Path) -> Result<()> {
    #[expect(deprecated, reason = "the namespace is left by the thread's end only")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).context("run this as root")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None)?;
    command::run(command::words("cp -a /etc/.").arg(etc))?;
    Ok(mount_bind(etc, "/etc")?)
}

/// As dhclient, NetworkManager and resolvconf do.
fn replace(file: &str, text: &str) -> Result<()> {
    let new = format!("{file}.new");
    fs::write(&new, text)?;
    Ok(rustix::fs::renameat(CWD, &new, CWD, file)?)
}

/// Answers each question for an IPv4 address with the server's, and others with nothing.
fn serve_names(lab: &Lab) -> Result<()> {
    let socket = lab.internet.enter(|| Ok(UdpSocket::bind((SERVER_V4, 53))?))?;
    thread::spawn(move || -> Result<()> {
        let mut buffer = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut buffer)?;
            let name = buffer[12..len].iter().position(|byte| *byte == 0).context("no name")?;
            // The name's end, type and class.
            let end = 12 + name + 5;
            let is_a = buffer[end - 4..end - 2] == [0, 1];
            let mut answer = buffer[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, is_a.into(), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(SERVER_V4.octets());
            }
            socket.send_to(&answer, from)?;
        }
    });
    Ok(())
}

/// A webhook that takes everything. Gives the number of requests.
fn serve_webhook(lab: &Lab) -> Result<Arc<AtomicUsize>> {
    let listener = lab.internet.enter(|| Ok(TcpListener::bind((SERVER_V4, 8080))?))?;
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    thread::spawn(move || -> Result<()> {
        for stream in listener.incoming() {
            let mut stream = stream?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse()?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length])?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    Ok(requests)
}

/// The process that looks names up for a node has nothing but that.
fn is_confined(node: u32) -> Result<()> {
    let children = fs::read_to_string(format!("/proc/{node}/task/{node}/children"))?;
    let child = children.split_whitespace().next().context("the node has no child")?;
    let status = fs::read_to_string(format!("/proc/{child}/status"))?;
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "Groups:\t ",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        ensure!(status.lines().any(|is| is == line), "no {line:?} in\n{status}");
    }
    Ok(())
}

#[test]
fn usage_records_arrive_after_the_list_of_name_servers_was_replaced() -> Result<()> {
    let etc = tempfile::tempdir()?;
    enter_own_mounts(etc.path())?;
    let lab = Lab::new()?;
    serve_names(&lab)?;
    let requests = serve_webhook(&lab)?;
    // A link would be replaced with what it leads to.
    fs::remove_file("/etc/resolv.conf").ok();
    fs::write("/etc/resolv.conf", format!("nameserver {SERVER_V4}\n"))?;
    let secret = tempfile::NamedTempFile::new()?;
    fs::write(secret.path(), "a secret")?;
    let settings = Settings::default()
        .with("node", "sandbox", "\"required\"")
        .with("ledger", "record_seconds", "1")
        .with("ledger", "webhook", "\"http://hook.weir-test.net:8080/\"")
        .with("ledger", "webhook_secret_file", &format!("{:?}", secret.path()));
    let mut node = Node::start(&lab.node, settings)?;
    let client = Client::connect(&lab.consumer, &node.session_add("alice")?.config)?;
    client.wait_connected(SERVERS[0])?;
    is_confined(node.pid()?)?;
    let more_arrive = |when: &str| {
        let before = requests.load(Ordering::Relaxed);
        until(&format!("records arrive {when}"), LIMIT, || {
            client.ping(SERVERS[0], 1)?;
            // One may have been on its way.
            let now = requests.load(Ordering::Relaxed);
            ensure!(now >= before + 3, "{now} requests, {before} before\n{}", node.log());
            Ok(())
        })
    };
    more_arrive("at first")?;
    for _ in 0..2 {
        replace("/etc/resolv.conf", &format!("# another lease\nnameserver {SERVER_V4}\n"))?;
        replace("/etc/nsswitch.conf", "hosts: files dns\n")?;
        replace("/etc/hosts", "127.0.0.1 localhost\n")?;
        more_arrive("after a rename")?;
    }
    drop(client);
    node.stop()
}
