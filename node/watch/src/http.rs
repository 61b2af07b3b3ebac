//! Requests that are measured: what comes back is counted, and only its beginning kept.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant as Deadline, timeout, timeout_at},
};
use weir_config::HttpUrl;
use weir_tls::Tls;

/// The time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes of an answer that are kept.
const MAX_KEPT: usize = 256;

/// A server, whose addresses are known.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    url: HttpUrl,
    pub(crate) addresses: Vec<SocketAddr>,
    tls: Option<Tls>,
}

impl Server {
    pub(crate) fn new(url: HttpUrl, addresses: Vec<SocketAddr>, tls: Option<Tls>) -> Self {
        Self { url, addresses, tls }
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host()
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(&self.addresses[..]).await?;
        stream.set_nodelay(true)?;
        Ok(match (&self.tls, self.url.is_secure()) {
            (Some(tls), true) => Box::new(tls.connect(self.url.host(), stream).await?),
            _ => Box::new(stream),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A request.
pub(crate) struct Ask<'s> {
    server: &'s Server,
    method: Method,
    path: String,
    body: Vec<u8>,
    max: u64,
    time: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) is_success: bool,
    /// Its beginning.
    pub(crate) text: String,
    /// The bytes of its body that were read.
    pub(crate) bytes: u64,
    /// From the request to the last of them.
    pub(crate) time: Duration,
}

impl<'s> Ask<'s> {
    /// What is at this path below the server's URL.
    pub(crate) fn get(server: &'s Server, below: &str) -> Self {
        Self::new(server, Method::GET, below, Vec::new())
    }

    /// Sends a body.
    pub(crate) fn post(server: &'s Server, below: &str, body: Vec<u8>) -> Self {
        Self::new(server, Method::POST, below, body)
    }

    fn new(server: &'s Server, method: Method, below: &str, body: Vec<u8>) -> Self {
        let path = match below {
            "" => server.url.path().to_owned(),
            below => format!("{}{below}", server.url.path().trim_end_matches('/')),
        };
        Self { server, method, path, body, max: 4096, time: Duration::from_secs(20) }
    }

    /// Reads up to a limit of bytes and of time.
    pub(crate) fn limit(self, max: u64, time: Duration) -> Self {
        Self { max, time, ..self }
    }

    /// Sends it. An answer that is cut at the limits counts.
    pub(crate) async fn send(self) -> Result<Answer, String> {
        let host = self.server.url.host();
        let connected = timeout(CONNECT_TIMEOUT, self.server.connect()).await;
        let stream = connected
            .map_err(|_| format!("{host} does not answer"))?
            .map_err(|error| format!("cannot reach {host}: {error}"))?;
        let began = Instant::now();
        let deadline = Deadline::now() + self.time;
        let broken = |error: hyper::Error| format!("the connection to {host} broke: {error}");
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let name = format!("{host}:{}", self.server.url.port());
        let request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(header::HOST, name)
            .header(header::USER_AGENT, "curl/8.5.0")
            .body(Full::new(Bytes::from(self.body)))
            .map_err(|error| error.to_string())?;
        let sent = timeout_at(deadline, sender.send_request(request)).await;
        let late = || format!("{host} does not answer in time");
        let answer = sent.map_err(|_| late())?.map_err(broken)?;
        let is_success = answer.status().is_success();
        let (mut body, mut bytes, mut kept) = (answer.into_body(), 0_u64, Vec::new());
        while bytes < self.max
            && let Ok(Some(frame)) = timeout_at(deadline, body.frame()).await
        {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            bytes += data.len() as u64;
            let room = MAX_KEPT.saturating_sub(kept.len()).min(data.len());
            kept.extend(data.iter().take(room));
        }
        let time = began.elapsed();
        connection.abort();
        Ok(Answer { is_success, text: String::from_utf8_lossy(&kept).into_owned(), bytes, time })
    }
}

impl Answer {
    /// Bytes per second, of this many bytes.
    pub(crate) fn rate(&self, bytes: u64) -> u64 {
        let micros = self.time.as_micros().max(1);
        u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}
