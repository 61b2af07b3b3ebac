//! An exit that is not weir.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use weir_receipt::{Answer, Receipt, Signer};
use weir_testkit::wireguard::WireguardProcess;
use weir_wireguard::keys::{PrivateKey, print_public};

use crate::{Lab, Namespace, client::wireguard_go, command, lab::NODE_V4};

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
