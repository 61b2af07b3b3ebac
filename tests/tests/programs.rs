//! Programs of other people's making, through a node that exits past the kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Lab, Namespace, Node, Settings, command,
    lab::{SERVER_V4, SERVERS},
    nats::Authority,
    steps::connected,
    until,
};

/// The server's second address, which STUN's behaviour discovery needs (RFC 5780).
const SECOND_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 7);
/// How many of a program run at once.
const PARALLEL: usize = 50;

/// A server, killed when dropped.
struct Server(Child);

impl Server {
    fn start(namespace: &Namespace, line: &str) -> Result<Self> {
        let (program, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let mut command = namespace.command(program);
        command.args(arguments.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("cannot start {program}"))?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn bypass() -> Settings {
    Settings::default().with("node", "egress", "\"bypass\"")
}

/// The node does exit past the kernel.
fn is_bypass(node: &Node<'_>) -> Result<()> {
    let egress = node.status()?.egress;
    ensure!(egress.mode == "bypass", "{egress:?}");
    Ok(())
}

/// Runs commands at once, and waits for all.
fn at_once(commands: Vec<Command>) -> Result<()> {
    let start = |mut command: Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok((command::shown(&command), command.spawn()?))
    };
    let children = commands.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    for (shown, child) in children {
        let output = child.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{shown}: {}: {told}", output.status);
    }
    Ok(())
}

/// Some bytes that no compression or repetition makes alike.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut content = Vec::with_capacity(bytes);
    while content.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        content.extend(state.to_be_bytes());
    }
    content.truncate(bytes);
    content
}

#[test]
fn stun_finds_the_mapping_and_the_filtering_that_rfc_4787_asks_for() -> Result<()> {
    let lab = Lab::new()?;
    lab.internet.ip(&format!("addr add {SECOND_V4}/32 dev lo"))?;
    let (node, _added, _client) = connected(&lab, bypass())?;
    is_bypass(&node)?;
    let _server = Server::start(
        &lab.internet,
        &format!(
            "turnserver -n --stun-only --no-cli --no-tls --no-dtls --log-file=stdout \
             --pidfile=/dev/null --listening-ip={SERVER_V4} --listening-ip={SECOND_V4}"
        ),
    )?;
    let discover = |what: &str| {
        until("the STUN server tells", Duration::from_secs(30), || {
            let line = format!("turnutils_natdiscovery {what} {SERVER_V4}");
            let told = lab.consumer.run(&line)?;
            ensure!(told.contains("NAT with"), "{told}");
            Ok(told)
        })
    };
    let mapping = discover("-m")?;
    ensure!(mapping.contains("Endpoint Independent Mapping"), "{mapping}");
    let filtering = discover("-f")?;
    ensure!(filtering.contains("Address and Port Dependent Filtering"), "{filtering}");
    Ok(())
}

#[test]
fn ftp_curl_and_quic_fetch_what_is_there_fifty_at_once() -> Result<()> {
    const FILE: usize = 300_000;
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, bypass())?;
    is_bypass(&node)?;
    let served = tempfile::tempdir()?;
    let fetched = tempfile::tempdir()?;
    let file = content(FILE);
    fs::write(served.path().join("file"), &file)?;
    let authority = Authority::new()?;
    for server in SERVERS {
        let (certificate, key) = authority.sign(server)?;
        fs::write(served.path().join("certificate.pem"), certificate)?;
        fs::write(served.path().join("key.pem"), key)?;
        let at = served.path().display();
        let host = match server {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let _servers = [
            format!("/usr/bin/python3 -m pyftpdlib -i {server} -p 2121 -d {at}"),
            format!("/usr/bin/python3 -m http.server -b {server} -d {at} 8080"),
            format!("gtlsserver -q -d {at} {server} 4433 {at}/key.pem {at}/certificate.pem"),
        ]
        .map(|line| Server::start(&lab.internet, &line));
        let to = |number: usize, kind: &str| {
            let directory = fetched.path().join(format!("{kind}{number}"));
            fs::create_dir_all(&directory).map(|()| directory)
        };
        for (kind, url) in [
            ("ftp", format!("ftp://{host}:2121/file")),
            ("http", format!("http://{host}:8080/file")),
            ("quic", format!("https://{host}:4433/file")),
        ] {
            let fetch = |number: usize| -> Result<Command> {
                let directory = to(number, kind)?;
                let target = directory.display();
                Ok(match kind {
                    "quic" => {
                        let mut command = lab.consumer.command("gtlsclient");
                        command.arg("-q").arg(format!("--download={target}"));
                        command.args(["--exit-on-all-streams-close", "--no-quic-dump"]);
                        command.args([&server.to_string(), "4433", &url]);
                        command
                    }
                    _ => {
                        let mut command = lab.consumer.command("curl");
                        command.args(["-sS", "--max-time", "60", "-o"]);
                        command.arg(directory.join("file")).arg(&url);
                        command
                    }
                })
            };
            until("the server answers", Duration::from_secs(20), || {
                let mut command = fetch(0)?;
                command::run(&mut command)?;
                ensure!(fs::read(to(0, kind)?.join("file"))? == file, "{kind}");
                Ok(())
            })?;
            at_once((0..PARALLEL).map(fetch).collect::<Result<_>>()?)?;
            for number in 0..PARALLEL {
                let directory = to(number, kind)?;
                let came = fs::read(directory.join("file"))?;
                ensure!(came == file, "{kind} {number}: {} bytes", came.len());
                fs::remove_dir_all(directory)?;
            }
        }
    }
    Ok(())
}

#[test]
fn traceroute_sees_the_gateway_each_router_and_the_server() -> Result<()> {
    let lab = Lab::new()?;
    let far = lab.another_node(5)?;
    let (node, _added, client) = connected(&lab, bypass())?;
    is_bypass(&node)?;
    for (target, router) in [("45.80.5.2", "45.80.2.1"), ("2a0c:b641:5::2", "2a0c:b641:2::1")] {
        client.route(target)?;
        for how in ["-I", "-U", "-T -p 80"] {
            let line = format!("traceroute.db -n -q 1 -w 3 -m 6 {how} {target}");
            let hops = until("each hop answers", Duration::from_secs(30), || {
                let hops = lab.consumer.run(&line)?;
                ensure!(!hops.contains('*'), "{line}: {hops}");
                Ok(hops)
            })?;
            let hops: Vec<_> = hops.lines().skip(1).collect();
            ensure!(hops.len() == 3, "{line}: {hops:?}");
            ensure!(hops[1].contains(router) && hops[2].contains(target), "{line}: {hops:?}");
        }
    }
    drop(client);
    drop(far);
    Ok(())
}

#[test]
fn pings_of_all_sizes_come_back_in_fragments_or_whole() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, bypass())?;
    is_bypass(&node)?;
    for server in SERVERS {
        for size in [0, 1, 56, 1300, 1392, 1393, 1472, 1473, 2000, 8000, 30_000, 65_000] {
            let line = format!("ping -n -q -c 3 -i 0.2 -W 5 -s {size} {server}");
            until("a ping comes back", Duration::from_secs(20), || {
                let told = lab.consumer.run(&line)?;
                ensure!(told.contains(" 3 received"), "{line}: {told}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Idles for `WEIR_IDLE_SECONDS`. 600 are longer than any timer of the flow table but that of an open
/// TCP connection.
#[test]
fn an_ssh_session_that_idles_goes_on() -> Result<()> {
    const IDLE_SECONDS: u64 = 10;
    let idle = match std::env::var("WEIR_IDLE_SECONDS") {
        Ok(seconds) => seconds.parse().context("WEIR_IDLE_SECONDS is not a number")?,
        Err(_) => IDLE_SECONDS,
    };
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, bypass())?;
    is_bypass(&node)?;
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name).display().to_string();
    for key in ["host", "own"] {
        command::run(Command::new("dropbearkey").args(["-t", "ed25519", "-f", &at(key)]))?;
    }
    let public = command::run(Command::new("dropbearkey").args(["-y", "-f", &at("own")]))?;
    let public = public.lines().find(|line| line.starts_with("ssh-ed25519")).context("no key")?;
    fs::create_dir(directory.path().join(".ssh"))?;
    fs::write(directory.path().join(".ssh/authorized_keys"), public)?;
    // It looks for the client's key in the user's home, which must stay as it is.
    let home = format!("mount --bind {} /root", directory.path().display());
    let serve = format!("exec dropbear -F -E -s -r {} -p {SERVER_V4}:22", at("host"));
    let mut server = lab.internet.command("unshare");
    server.args(["--mount", "sh", "-c", &format!("{home} && {serve}")]);
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Server(server.spawn()?);
    until("the SSH server answers", Duration::from_secs(30), || {
        lab.consumer.run(&format!("dbclient -y -y -i {} root@{SERVER_V4} true", at("own")))
    })?;
    let mut client = lab.consumer.command("dbclient");
    client.args(["-y", "-y", "-i", &at("own"), &format!("root@{SERVER_V4}")]);
    client.arg("echo ready; read line; echo said $line");
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut heard = BufReader::new(client.stdout.take().context("no output")?);
    let mut line = String::new();
    heard.read_line(&mut line)?;
    ensure!(line == "ready\n", "{line}");
    std::thread::sleep(Duration::from_secs(idle));
    client.stdin.take().context("no input")?.write_all(b"hello\n")?;
    line.clear();
    heard.read_line(&mut line)?;
    ensure!(line == "said hello\n", "{line}");
    ensure!(client.wait()?.success());
    Ok(())
}
