//! `weir connect` in the consumer's namespace, what tries to leave beside it, and a capture that
//! sees whether anything does.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tempfile::TempDir;
use weir_receipt::{Answer, Receipt, Signer};
use weir_testkit::wireguard::WireguardProcess;
use weir_wireguard::keys::{PrivateKey, print_public};

use crate::{
    Lab, Namespace,
    client::wireguard_go,
    command,
    lab::{CONSUMER_LINK, NODE_V4, SERVERS},
    node::binary,
    process, sweep, until,
};

/// What the consumer's resolver is before anything is connected.
pub const RESOLV_CONF: &str = "nameserver 192.0.2.53\n";
/// The time in which anything that a test waits for happens.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two packets of each kind of noise.
const PACE: Duration = Duration::from_millis(5);

/// A consumer's machine, with a resolver's file of its own.
pub struct Machine<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
    child: Option<Child>,
}

impl<'a> Machine<'a> {
    /// The machine of a lab's consumer.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&sweep::directory()).tempdir()?;
        let machine = Self { namespace: &lab.consumer, directory, child: None };
        fs::write(machine.resolv_conf(), RESOLV_CONF)?;
        fs::create_dir(machine.kept())?;
        Ok(machine)
    }

    /// Its resolver's file.
    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// What is `/var/lib/weir-connect` there.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.directory.path().join("kept")
    }

    /// Writes a configuration of a node. Returns its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn conf(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// `weir` on it, with its own `/etc/resolv.conf` and `/var/lib`. The process is the command's own.
    ///
    /// # Errors
    /// If weir is not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command("unshare");
        let script = r#"resolv=$0; kept=$1; shift
            mount --bind "$resolv" /etc/resolv.conf && mount -t tmpfs tmpfs /var/lib &&
            mkdir /var/lib/weir-connect && mount --bind "$kept" /var/lib/weir-connect && exec "$@""#;
        command.args(["--mount", "sh", "-c", script]).arg(self.resolv_conf()).arg(self.kept());
        command.arg(binary()?).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `weir` to its end.
    ///
    /// # Errors
    /// If it fails.
    pub fn weir(&self, arguments: &[&str]) -> Result<String> {
        command::run(&mut self.command(arguments)?)
    }

    /// Starts `weir connect`, and waits until it has closed the machine.
    ///
    /// # Errors
    /// If it ends.
    pub fn start(&mut self, arguments: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "it is connected already");
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.command(&[&["connect"], arguments].concat())?;
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        until("weir closes the machine", LIMIT, || {
            self.check_running()?;
            self.namespace.run("nft list table inet weir_connect").map(drop)
        })
    }

    /// Starts `weir connect`, and waits until it is connected.
    ///
    /// # Errors
    /// If it ends, or is not connected in time.
    pub fn connect(&mut self, arguments: &[&str]) -> Result<()> {
        self.start(arguments)?;
        self.wait_connected("")
    }

    /// Waits until it is connected with a node of this name; with any, if that is empty.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_connected(&mut self, node: &str) -> Result<()> {
        let done = until("a connection", LIMIT, || {
            self.check_running()?;
            let status = self.status()?;
            let name = status["node"].as_str().unwrap_or_default();
            ensure!(status["state"] == "connected" && name.contains(node), "{status}");
            Ok(())
        });
        done.with_context(|| format!("weir connect wrote:\n{}", self.log()))
    }

    /// `weir connect --status --json`.
    ///
    /// # Errors
    /// If it fails.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.weir(&["connect", "--status", "--json"])?)?)
    }

    /// Sends the connection a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.child.as_ref().context("it is not connected")?, signal)
    }

    /// Sends the connection a signal that ends it, and waits for the end.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        let mut child = self.child.take().context("it is not connected")?;
        process::signal(&child, signal)?;
        process::wait(&mut child, LIMIT)?;
        Ok(())
    }

    /// `weir disconnect`.
    ///
    /// # Errors
    /// If it fails, or the connection does not end.
    pub fn disconnect(&mut self) -> Result<String> {
        let said = self.weir(&["disconnect"])?;
        if let Some(mut child) = self.child.take() {
            process::wait(&mut child, LIMIT)?;
        }
        Ok(said)
    }

    /// Everything that a connection may change: rules, routes, interfaces, tables, the resolver.
    /// Addresses that the kernel makes up by itself are left out.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn everything(&self) -> Result<String> {
        let mut all = fs::read_to_string(self.resolv_conf())?;
        for line in [
            "ip -4 rule",
            "ip -6 rule",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "ip -o link",
            "nft list ruleset",
        ] {
            let said = self.namespace.run(line)?;
            let kept = said.lines().filter(|line| !line.contains("fe80:"));
            all.extend(kept.map(|line| format!("{line}\n")));
        }
        Ok(all)
    }

    /// Everything that `weir connect` wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// That a ping to an address is answered, sooner or later.
    ///
    /// # Errors
    /// If it is not.
    pub fn reaches(&self, address: IpAddr) -> Result<()> {
        until("an answer through the tunnel", LIMIT, || {
            self.namespace.run(&format!("ping -n -q -c 1 -W 1 {address}")).map(drop)
        })
        .with_context(|| format!("weir connect wrote:\n{}", self.log()))
    }

    fn check_running(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("weir connect ended: {status}\n{}", self.log());
        }
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("connect.log")
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
        self.weir(&["disconnect"]).ok();
    }
}

/// Counts what leaves the consumer's outer interface, at the other end of the cable. ARP, neighbour
/// discovery and DHCP never go further than that.
pub struct Capture {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// Datagrams to the nodes' endpoints.
    tunnel: AtomicU64,
    /// Everything else, as text.
    beside: Mutex<Vec<String>>,
}

impl Capture {
    /// Starts it. Datagrams to `endpoints` belong there.
    ///
    /// # Errors
    /// Without root.
    pub fn start(lab: &Lab, endpoints: Vec<SocketAddr>) -> Result<Self> {
        let text = lab.consumer.ip(&format!("-o link show {CONSUMER_LINK}"))?;
        let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        let mac: Vec<u8> = mac
            .context("no MAC address")?
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()?;
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket =
            lab.internet.enter(|| Ok(Socket::new(Domain::PACKET, Type::RAW, Some(all))?))?;
        socket.set_recv_buffer_size(16 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || watch(&socket, &mac, &endpoints, &seen, &stop)
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Datagrams to the nodes so far.
    #[must_use]
    pub fn tunnel(&self) -> u64 {
        self.seen.tunnel.load(Relaxed)
    }

    /// What left beside the tunnel since the last call.
    ///
    /// # Panics
    /// If the capture has.
    #[must_use]
    pub fn beside(&self) -> Vec<String> {
        // What is under way has arrived by then.
        thread::sleep(Duration::from_millis(100));
        std::mem::take(&mut *self.seen.beside.lock().expect("the capture runs"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn watch(
    mut socket: &Socket,
    mac: &[u8],
    endpoints: &[SocketAddr],
    seen: &Seen,
    stop: &AtomicBool,
) {
    let mut frame = [0; 65536];
    while !stop.load(Relaxed) {
        let len = match socket.read(&mut frame) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => {
                let text = format!("the capture failed: {error}");
                seen.beside.lock().expect("nobody panics with it").push(text);
                return;
            }
        };
        let frame = &frame[..len];
        if frame.get(6..12) != Some(mac) {
            continue;
        }
        match judge(frame, endpoints) {
            Judgement::Tunnel => drop(seen.tunnel.fetch_add(1, Relaxed)),
            Judgement::Local => {}
            Judgement::Beside(text) => {
                seen.beside.lock().expect("nobody panics with it").push(text);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Tunnel,
    Local,
    Beside(String),
}

fn judge(frame: &[u8], endpoints: &[SocketAddr]) -> Judgement {
    let beside = || Judgement::Beside(format!("{:02x?}", &frame[..frame.len().min(64)]));
    let port = |at: usize| frame.get(at..at + 2).map(|x| u16::from_be_bytes([x[0], x[1]]));
    let (to, protocol, payload) = match frame.get(12..14) {
        Some([8, 6]) => return Judgement::Local,
        Some([8, 0]) if frame.len() >= 34 => {
            let to: [u8; 4] = frame[30..34].try_into().expect("four bytes");
            (IpAddr::from(to), frame[23], 14 + usize::from(frame[14] & 0xf) * 4)
        }
        Some([0x86, 0xdd]) if frame.len() >= 54 => {
            let to: [u8; 16] = frame[38..54].try_into().expect("sixteen bytes");
            // Hop-by-hop options stand before a report of multicast groups.
            let (next, at) = match frame[20] {
                0 => (*frame.get(54).unwrap_or(&0), 62),
                next => (next, 54),
            };
            (IpAddr::from(to), next, at)
        }
        _ => return beside(),
    };
    match protocol {
        17 => match (port(payload), port(payload + 2)) {
            (_, Some(port)) if endpoints.contains(&SocketAddr::new(to, port)) => Judgement::Tunnel,
            (Some(68), Some(67)) | (Some(546), Some(547)) => Judgement::Local,
            _ => beside(),
        },
        58 if matches!(frame.get(payload), Some(133 | 135 | 136 | 143)) => Judgement::Local,
        _ => beside(),
    }
}

/// Everything that tries to leave: both families, names, and sockets that are bound to the outer
/// interface, which no route holds back. It ends when this is dropped.
pub struct Noise {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Noise {
    /// Starts it in the consumer's namespace.
    ///
    /// # Errors
    /// If a socket cannot be made.
    pub fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for to in SERVERS {
            for device in [None, Some(CONSUMER_LINK)] {
                let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
                let socket = lab.consumer.enter(|| Ok(UdpSocket::bind(any)?))?;
                SockRef::from(&socket).bind_device(device.map(str::as_bytes))?;
                let stop = Arc::clone(&stop);
                threads.push(thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        for port in [9, 53, 853, 443] {
                            socket.send_to(b"noise", (to, port)).ok();
                        }
                        thread::sleep(PACE);
                    }
                }));
            }
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// The per mille of what was carried that an honest node bills.
const HONEST: u64 = 1000;

/// What a foreign exit says about the session's use: a receipt of what it has carried, changed before
/// it is signed, and after that.
#[derive(Clone, Copy, Debug)]
pub struct Receipts {
    /// Before it is signed.
    pub before: fn(&mut Receipt),
    /// After that.
    pub after: fn(&mut Receipt),
}

impl Receipts {
    /// As they should be.
    pub const HONEST: Self = Self { before: |_| (), after: |_| () };
}

/// An exit that is not weir: wireguard-go, and a gateway that says what the test wants it to.
pub struct ForeignExit {
    wireguard: WireguardProcess,
    says: Arc<Says>,
    conf: String,
}

/// What its gateway says.
struct Says {
    /// The share that it bills of what it carried, in per mille.
    per_mille: AtomicU64,
    /// How often it was asked.
    answers: AtomicU64,
    receipts: Mutex<Option<Receipts>>,
    signer: Signer,
    consumer: String,
}

impl Says {
    /// The answer to a request.
    fn answer(&self, request: &str, carried: u64) -> (&'static str, String) {
        let is_receipt = request.starts_with("GET /v1/session/receipt ");
        let receipts = *self.receipts.lock().expect("nobody panics with it");
        let Some(receipts) = receipts.filter(|_| is_receipt) else {
            let used = carried / 1000 * self.per_mille.load(Relaxed);
            let body =
                format!(r#"{{"state":"open","used_bytes":{used},"bytes":null,"seconds":null}}"#);
            return if is_receipt { ("404 Not Found", "{}".into()) } else { ("200 OK", body) };
        };
        let mut receipt = Receipt {
            version: 1,
            session: "00f0".into(),
            consumer: None,
            public_key: self.consumer.clone(),
            sequence: 1 + carried,
            bytes_up: carried / 1000 * HONEST,
            packets_up: carried / 100,
            bytes_down: 0,
            packets_down: 0,
            seconds: carried / 100,
            start: 1,
            last_activity: 1 + carried,
            end_reason: None,
            signer: String::new(),
            signature: String::new(),
        };
        (receipts.before)(&mut receipt);
        let mut receipt = self.signer.sign(receipt);
        (receipts.after)(&mut receipt);
        let answer = Answer { signer: self.signer.public().into(), receipt: Some(receipt) };
        ("200 OK", serde_json::to_string(&answer).unwrap_or_default())
    }
}

impl ForeignExit {
    /// Starts it in a node's namespace, at the lab's address of the node.
    ///
    /// # Errors
    /// If one of the commands fails.
    pub fn start(lab: &Lab) -> Result<Self> {
        let key = || {
            let private = command::run(&mut command::words("wg genkey"))?.trim().to_owned();
            let parsed = PrivateKey::parse(&private).context("wg makes keys")?;
            anyhow::Ok((private, print_public(&parsed.public())))
        };
        let ((own, own_public), (consumer, consumer_public)) = (key()?, key()?);
        let wireguard = wireguard_go(&lab.node)?;
        wireguard.configure(
            &lab.node,
            &format!(
                "[Interface]\nPrivateKey = {own}\nListenPort = 51820\n[Peer]\n\
                 PublicKey = {consumer_public}\nAllowedIPs = 10.66.0.2/32\n"
            ),
        )?;
        let interface = wireguard.interface().to_owned();
        lab.node.ip(&format!("addr add 10.66.0.1/24 dev {interface}"))?;
        lab.node.ip(&format!("link set {interface} mtu 1420 up"))?;
        lab.node.sysctl("net.ipv4.ip_forward", "1")?;
        lab.internet.ip(&format!("route add 10.66.0.0/24 via {NODE_V4}"))?;
        let says = Arc::new(Says {
            per_mille: AtomicU64::new(HONEST),
            answers: AtomicU64::new(0),
            receipts: Mutex::new(None),
            signer: Signer::from_seed(&[7; 32]),
            consumer: consumer_public,
        });
        let listener = lab.node.enter(|| Ok(TcpListener::bind("10.66.0.1:8077")?))?;
        let node = Namespace::open(Path::new(&lab.node.path()))?;
        thread::spawn({
            let says = Arc::clone(&says);
            move || {
                for stream in listener.incoming().flatten() {
                    let carried = carried(&node, &interface).unwrap_or_default();
                    if answer(stream, &says, carried).is_ok() {
                        says.answers.fetch_add(1, Relaxed);
                    }
                }
            }
        });
        let conf = format!(
            "[Interface]\nPrivateKey = {consumer}\nAddress = 10.66.0.2/32\nDNS = 10.66.0.1\n\
             [Peer]\nPublicKey = {own_public}\nAllowedIPs = 0.0.0.0/0\n\
             Endpoint = {NODE_V4}:51820\n"
        );
        Ok(Self { wireguard, says, conf })
    }

    /// The consumer's configuration.
    #[must_use]
    pub fn conf(&self) -> &str {
        &self.conf
    }

    /// Has it bill this share of what it carried, in per mille.
    pub fn bill(&self, per_mille: u64) {
        self.says.per_mille.store(per_mille, Relaxed);
    }

    /// Has it give usage receipts, from now on these.
    ///
    /// # Panics
    /// If its thread has.
    pub fn receipts(&self, receipts: Receipts) {
        *self.says.receipts.lock().expect("its thread runs") = Some(receipts);
    }

    /// The key that signs its receipts.
    #[must_use]
    pub fn signer(&self) -> &str {
        self.says.signer.public()
    }

    /// How often it was asked.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.says.answers.load(Relaxed)
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        self.wireguard.interface()
    }
}

/// What a WireGuard interface has carried, in both directions.
fn carried(namespace: &Namespace, interface: &str) -> Result<u64> {
    let text = namespace.run(&format!("wg show {interface} transfer"))?;
    let numbers = text.split_whitespace().skip(1).map(str::parse::<u64>);
    Ok(numbers.collect::<Result<Vec<_>, _>>()?.iter().sum())
}

/// Answers one request.
fn answer(mut stream: TcpStream, says: &Says, carried: u64) -> Result<()> {
    let mut request = [0; 4096];
    let length = stream.read(&mut request)?;
    ensure!(length > 0, "no request");
    let (status, body) = says.answer(&String::from_utf8_lossy(&request[..length]), carried);
    let length = body.len();
    let head = "Connection: close\r\nContent-Type: application/json\r\n";
    write!(stream, "HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\n\r\n{body}")?;
    Ok(())
}

/// The endpoint of a configuration.
///
/// # Errors
/// If it has none.
pub fn endpoint(conf: &str) -> Result<SocketAddr> {
    let line = conf.lines().find_map(|line| line.strip_prefix("Endpoint = "));
    Ok(line.context("no Endpoint")?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(to: [u8; 4], from_port: u16, to_port: u16) -> Vec<u8> {
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[8, 0]);
        (frame[14], frame[23]) = (0x45, 17);
        frame[30..34].copy_from_slice(&to);
        frame[34..36].copy_from_slice(&from_port.to_be_bytes());
        frame[36..38].copy_from_slice(&to_port.to_be_bytes());
        frame
    }

    #[test]
    fn only_datagrams_to_the_node_and_what_stays_on_the_link_belong() {
        let node = [SocketAddr::from(([45, 80, 2, 2], 51820))];
        assert_eq!(judge(&udp([45, 80, 2, 2], 5, 51820), &node), Judgement::Tunnel);
        assert_eq!(judge(&udp([255; 4], 68, 67), &node), Judgement::Local);
        for frame in [udp([45, 80, 2, 2], 5, 53), udp([45, 80, 2, 3], 5, 51820)] {
            assert!(matches!(judge(&frame, &node), Judgement::Beside(_)));
        }
        assert!(matches!(judge(&[0; 20], &node), Judgement::Beside(_)));
    }
}
