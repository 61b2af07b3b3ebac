//! HTTP requests to a URL in the configuration, each over its own connection.

use std::path::Path;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use weir_config::HttpUrl;

use crate::resolver::Resolver;
use weir_tls::Tls;

/// A URL to send requests to.
pub struct Target {
    url: HttpUrl,
    host: String,
    resolver: Resolver,
    tls: Option<Tls>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Target {
    /// A target at `url`.
    ///
    /// # Errors
    ///
    /// When the URL is not `http[s]://host[:port]/path`.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let url: HttpUrl = url.parse()?;
        let host = format!("{}:{}", url.host(), url.port());
        Ok(Self { url, host, resolver: Resolver::inside(), tls: None })
    }

    /// Reads the TLS roots for `https`: those in a PEM file, which `key` of the configuration names,
    /// or this machine's.
    ///
    /// # Errors
    ///
    /// When there are no TLS roots.
    pub fn with_roots(self, ca_file: Option<&Path>, key: &str) -> anyhow::Result<Self> {
        let tls = || Tls::new(ca_file).with_context(|| key.to_owned());
        let tls = self.url.is_secure().then(tls).transpose()?;
        Ok(Self { tls, ..self })
    }

    /// The same, with names looked up by `resolver`.
    #[must_use]
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    fn handshake_failed(&self) -> String {
        format!("the TLS handshake with {} failed", self.url.host())
    }

    /// The host and the port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends JSON, and returns the status of the answer. The caller limits the time.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn post(
        &self,
        json: Vec<u8>,
        headers: &[(&str, String)],
    ) -> anyhow::Result<StatusCode> {
        let unreachable = || format!("cannot reach {}", self.host);
        let asked = self.resolver.lookup(self.url.host(), self.url.port());
        let addresses = asked.await.with_context(unreachable)?;
        let stream = TcpStream::connect(&addresses[..]).await.with_context(unreachable)?;
        let mut request = Request::post(self.url.path())
            .header("host", &self.host)
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(json)))?;
        match &self.tls {
            Some(tls) => {
                let stream = tls.connect(self.url.host(), stream).await;
                ask(stream.with_context(|| self.handshake_failed())?, request).await
            }
            None if self.url.is_secure() => bail!("no TLS roots are configured for {}", self.host),
            None => ask(stream, request).await,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The request was not sent.
    #[error("{0:#}")]
    NotSent(anyhow::Error),
    /// It may have been sent, and even carried out.
    #[error("{0:#}")]
    Lost(anyhow::Error),
}

impl Target {
    /// Sends a request to a path below the URL's, and returns the status and the body of the answer, which may have
    /// `max` bytes. The caller limits the time.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is too long.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        json: Vec<u8>,
        max: usize,
    ) -> Result<(StatusCode, Bytes), NoAnswer> {
        let path = format!("{}{path}", self.url.path().trim_end_matches('/'));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(json)))
            .map_err(|error| NoAnswer::NotSent(error.into()))?;
        let unreachable = || format!("cannot reach {}", self.host);
        let connect = async {
            let asked = self.resolver.lookup(self.url.host(), self.url.port());
            let addresses = asked.await.with_context(unreachable)?;
            TcpStream::connect(&addresses[..]).await.with_context(unreachable)
        };
        let stream = connect.await.map_err(NoAnswer::NotSent)?;
        match &self.tls {
            Some(tls) => {
                let stream = tls.connect(self.url.host(), stream).await;
                let stream = stream.with_context(|| self.handshake_failed());
                fetch(stream.map_err(NoAnswer::NotSent)?, request, max).await
            }
            None if self.url.is_secure() => {
                let error = anyhow::anyhow!("no TLS roots are configured for {}", self.host);
                Err(NoAnswer::NotSent(error))
            }
            None => fetch(stream, request, max).await,
        }
    }
}

/// One request over a connection, and its answer.
async fn fetch<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    max: usize,
) -> Result<(StatusCode, Bytes), NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| NoAnswer::NotSent(error.into()))?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), max).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?;
        anyhow::Ok((status, body.to_bytes()))
    };
    let answered = answered.await;
    connection.abort();
    answered.map_err(NoAnswer::Lost)
}

/// One request over a connection, and the status of its answer.
async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    connection.abort();
    Ok(answer?.status())
}
