//! HTTP requests of a consumer: to mints, and to nodes that sell. Each has its own connection.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use weir_config::HttpUrl;
use weir_tls::{NoRoots, Tls};

/// How long a request may take, from the name to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer, in bytes. The keys of a keyset are some 5 KB.
const MAX_ANSWER: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The request was not sent.
    #[error("{0}")]
    NotSent(String),
    /// It may have been sent, and even carried out.
    #[error("{0}")]
    Lost(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body's beginning as text, for an error message: one line, without control characters.
    #[must_use]
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.chars().filter(|letter| !letter.is_control()).take(200).collect();
        match text.is_empty() {
            true => self.status.to_string(),
            false => format!("{}: {text}", self.status),
        }
    }
}

/// What a future of [`Dial`] gives.
pub type Dialed<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// How connections are made. A consumer under a closed firewall marks its sockets, for example.
pub trait Dial: Send + Sync + fmt::Debug {
    /// Connects to a port of a host, which is a name or an address.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialed<'a>;
}

/// Connects as the system does it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Dial for Direct {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialed<'a> {
        Box::pin(TcpStream::connect((host, port)))
    }
}

/// A client. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    dial: Arc<dyn Dial>,
    tls: Arc<OnceLock<Result<Tls, NoRoots>>>,
    timeout: Duration,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("dial", &self.dial).finish_non_exhaustive()
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::through(Arc::new(Direct))
    }
}

impl Http {
    /// A client whose connections are made like this.
    #[must_use]
    pub fn through(dial: Arc<dyn Dial>) -> Self {
        Self { dial, tls: Arc::default(), timeout: TIMEOUT }
    }

    /// The same client with another limit of time for each request.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same client, which trusts other certificates than the machine's.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Arc::new(OnceLock::from(Ok(tls))), ..self }
    }

    /// Sends a request without following redirections, because a body with money in it goes to nobody else.
    ///
    /// # Errors
    ///
    /// When there is no answer in time, or it is too long.
    pub async fn ask(
        &self,
        method: Method,
        url: &HttpUrl,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        let name = format!("{}:{}", url.host(), url.port());
        let mut request = Request::builder().method(method).uri(url.path()).header("host", &name);
        for (header, value) in headers {
            request = request.header(*header, *value);
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| NoAnswer::NotSent(error.to_string()))?;
        let seconds = self.timeout.as_secs();
        let late = || format!("{name} did not answer within {seconds} s");
        let connected = timeout(self.timeout, self.connect(url)).await;
        let stream = connected
            .map_err(|_| NoAnswer::NotSent(late()))?
            .map_err(|error| NoAnswer::NotSent(format!("cannot reach {name}: {error}")))?;
        let asked = async {
            match url.is_secure() {
                true => {
                    let tls = self.tls()?;
                    let failed = |error| {
                        NoAnswer::NotSent(format!("the TLS handshake with {name} failed: {error}"))
                    };
                    fetch(tls.connect(url.host(), stream).await.map_err(failed)?, request, &name)
                        .await
                }
                false => fetch(stream, request, &name).await,
            }
        };
        timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(NoAnswer::Lost(late())))
    }

    async fn connect(&self, url: &HttpUrl) -> io::Result<TcpStream> {
        self.dial.dial(url.host().trim_matches(['[', ']']), url.port()).await
    }

    fn tls(&self) -> Result<&Tls, NoAnswer> {
        let made = self.tls.get_or_init(|| Tls::new(None));
        made.as_ref().map_err(|error| NoAnswer::NotSent(error.to_string()))
    }
}

async fn fetch<S>(stream: S, request: Request<Full<Bytes>>, name: &str) -> Result<Answer, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| NoAnswer::NotSent(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let lost = |error: &dyn fmt::Display| {
            NoAnswer::Lost(format!("the answer of {name} cannot be read: {error}"))
        };
        let answer = sender.send_request(request).await.map_err(|error| lost(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| lost(&error))?.to_bytes();
        Ok(Answer { status, headers, body })
    };
    let answered = answered.await;
    connection.abort();
    answered
}

#[cfg(test)]
mod tests;
