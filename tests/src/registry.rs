//! `weir registry run` on the loopback interface or in a namespace, and a Nostr client's socket to it.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nostr::{
    event::Event,
    filter::Filter,
    message::{ClientMessage, RelayMessage, SubscriptionId},
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{
    Message, WebSocket, client, client::IntoClientRequest as _, http::HeaderValue,
};

use crate::{Namespace, node::binary, process, until};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const IO_TIMEOUT: Duration = Duration::from_secs(30);

/// A registry with a configuration and a snapshot of its own. It believes what clients on loopback
/// say about their addresses, so that a test has clients in many networks.
#[derive(Debug)]
pub struct Registry<'a> {
    namespace: Option<&'a Namespace>,
    directory: TempDir,
    address: SocketAddrV4,
    child: Option<Child>,
}

impl<'a> Registry<'a> {
    /// Starts a registry with these settings beside its own, and waits until it answers.
    ///
    /// # Errors
    /// If it ends or does not answer; the error has what it wrote.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let mut registry = Self::prepare()?;
        registry.configure(settings)?;
        registry.run()?;
        Ok(registry)
    }

    /// Chooses a port, but starts nothing.
    ///
    /// # Errors
    /// If there is none.
    pub fn prepare() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        Ok(Self { namespace: None, directory, address, child: None })
    }

    /// The same at this address of a namespace.
    ///
    /// # Errors
    /// If there is no place for its files.
    pub fn prepare_in(namespace: &'a Namespace, address: Ipv4Addr) -> Result<Self> {
        let address = SocketAddrV4::new(address, 7447);
        let directory = tempfile::tempdir()?;
        Ok(Self { namespace: Some(namespace), directory, address, child: None })
    }

    fn connect(&self) -> Result<TcpStream> {
        let connect = || Ok(TcpStream::connect_timeout(&self.address.into(), IO_TIMEOUT)?);
        let stream = match self.namespace {
            Some(namespace) => namespace.enter(connect)?,
            None => connect()?,
        };
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Writes the configuration; the next start takes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, settings: &[(&str, &str)]) -> Result<()> {
        let snapshot = self.snapshot();
        let mut text = format!(
            "[registry]\nlisten = \"{}\"\nsnapshot = {:?}\nproxies = [\"127.0.0.1/32\"]\n",
            self.address,
            snapshot.to_str().context("a path")?
        );
        for (key, value) in settings {
            text.push_str(&format!("{key} = {value}\n"));
        }
        Ok(fs::write(self.directory.path().join("weir.toml"), text)?)
    }

    /// Where the listings are kept over a restart.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.directory.path().join("snapshot")
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it ends or does not answer; the error has what it wrote.
    pub fn run(&mut self) -> Result<()> {
        let log = self.directory.path().join("log");
        let weir = binary()?;
        let mut command = match self.namespace {
            Some(namespace) => namespace.command(weir.to_str().context("a path")?),
            None => Command::new(weir),
        };
        command.arg("--config").arg(self.directory.path().join("weir.toml"));
        command.args(["registry", "run"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(fs::File::create(&log)?).spawn()?;
        let answers = until("the registry answers", START_TIMEOUT, || {
            if let Some(status) = child.try_wait()? {
                return Ok(Err(status));
            }
            self.get("/health").map(Ok)
        });
        self.child = Some(child);
        match answers {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => bail!("it ended with {status}:\n{}", read(&log)),
            Err(error) => bail!("{error:#}:\n{}", read(&log)),
        }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// If it does not end, or not with success.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        process::signal(&child, Signal::TERM)?;
        let status = process::wait(&mut child, START_TIMEOUT)?;
        let log = read(&self.directory.path().join("log"));
        ensure!(status.success(), "it ended with {status}:\n{log}");
        Ok(())
    }

    /// Its process.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    /// The URL for Nostr clients and peers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The URL of the page.
    #[must_use]
    pub fn page(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The head and the body of the answer to a request with these headers.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn ask(&self, path: &str, headers: &str) -> Result<(String, String)> {
        let mut stream = self.connect()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        Ok((head.to_owned(), body.to_owned()))
    }

    /// The body of the answer to a request, which must succeed.
    ///
    /// # Errors
    /// If it does not.
    pub fn get(&self, path: &str) -> Result<String> {
        let (head, body) = self.ask(path, "")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {head}\n{body}");
        Ok(body)
    }

    /// A client in the network of this address.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn client(&self, address: &str) -> Result<Socket> {
        Socket::over(self.connect()?, &self.url(), Some(address))
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A Nostr client's connection.
#[derive(Debug)]
pub struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// A client of any relay, in a namespace.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn connect(namespace: &Namespace, relay: SocketAddrV4) -> Result<Self> {
        let stream =
            namespace.enter(|| Ok(TcpStream::connect_timeout(&relay.into(), IO_TIMEOUT)?))?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        Self::over(stream, &format!("ws://{relay}"), None)
    }

    fn over(stream: TcpStream, url: &str, forwarded: Option<&str>) -> Result<Self> {
        let mut request = url.into_client_request()?;
        if let Some(address) = forwarded {
            request.headers_mut().insert("x-forwarded-for", HeaderValue::from_str(address)?);
        }
        let (socket, _) = client(request, stream).context("no WebSocket")?;
        Ok(Self(socket))
    }

    /// Sends a text.
    ///
    /// # Errors
    /// If it cannot.
    pub fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.0.send(Message::text(text))?)
    }

    /// The next message.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn receive(&mut self) -> Result<RelayMessage<'static>> {
        loop {
            match self.0.read()? {
                Message::Text(text) => {
                    return RelayMessage::from_json(text.as_str())
                        .with_context(|| text.to_string());
                }
                Message::Close(_) => bail!("the registry has closed the connection"),
                _ => {}
            }
        }
    }

    /// Publishes an event; says whether it was stored, and what was said about it.
    ///
    /// # Errors
    /// If there is no answer to it.
    pub fn publish(&mut self, event: &Event) -> Result<(bool, String)> {
        self.send(&ClientMessage::event(event.clone()).as_json())?;
        match self.receive()? {
            RelayMessage::Ok { event_id, status, message } => {
                ensure!(event_id == event.id, "another event's answer");
                Ok((status, message.into_owned()))
            }
            other => bail!("{other:?}"),
        }
    }

    /// The stored events of a subscription.
    ///
    /// # Errors
    /// If it is refused.
    pub fn fetch(&mut self, filter: Filter) -> Result<Vec<Event>> {
        let id = SubscriptionId::new("fetch");
        self.send(&ClientMessage::req(id, vec![filter]).as_json())?;
        let mut events = Vec::new();
        loop {
            match self.receive()? {
                RelayMessage::Event { event, .. } => events.push(event.into_owned()),
                RelayMessage::EndOfStoredEvents(_) => return Ok(events),
                other => bail!("{other:?}"),
            }
        }
    }
}

/// The Python that has a Nostr client of other people's making.
///
/// # Errors
/// If it is not installed.
pub fn foreign_python() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let python = target.join("tools/pynostr/bin/python");
    ensure!(python.exists(), "{} is missing: cargo xtask setup", python.display());
    Ok(python)
}
