//! Usage records pushed to the payment layer by HTTP.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use ring::hmac;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{Receiver, tls::Tls};
use crate::{
    resolver::Resolver,
    session::{store::receipt::Record, unix_now},
};

/// Its name in the ledger.
pub const NAME: &str = "webhook";

/// A receiver that has not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// The header with the signature.
pub const SIGNATURE: &str = "weir-signature";
/// The header with the time at which it was made, in seconds since 1970.
pub const TIMESTAMP: &str = "weir-timestamp";

/// A receiver behind a URL.
pub struct Webhook {
    url: Uri,
    host: String,
    port: u16,
    resolver: Resolver,
    /// Whether it is to be spoken to by TLS, and how.
    is_secure: bool,
    tls: Option<Tls>,
    key: hmac::Key,
    patience: Duration,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Webhook {
    /// A receiver at `url`, to whom each batch is signed with `secret`.
    ///
    /// # Errors
    ///
    /// When the URL is not `http[s]://host[:port]/path`, or the secret is empty.
    pub fn new(url: &str, secret: &[u8]) -> anyhow::Result<Self> {
        let parsed: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        let (is_secure, port) = match parsed.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => bail!("{url:?} begins neither with https:// nor with http://"),
        };
        let host = parsed.host().context("the URL has no host")?;
        let port = parsed.port_u16().unwrap_or(port);
        let host = format!("{host}:{port}");
        ensure!(!secret.is_empty(), "the webhook's secret is empty");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let resolver = Resolver::inside();
        Ok(Self {
            url: parsed,
            host,
            port,
            resolver,
            is_secure,
            tls: None,
            key,
            patience: PATIENCE,
        })
    }

    /// Reads whom to believe, for `https`: those in a PEM file, or those of this machine.
    ///
    /// # Errors
    ///
    /// When there is nobody to believe.
    pub fn with_roots(self, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let tls = self.is_secure.then(|| Tls::new(ca_file)).transpose()?;
        Ok(Self { tls, ..self })
    }

    /// The same, with names looked up by `resolver`.
    #[must_use]
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    /// As it is, with another limit on how long an answer may take.
    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    async fn send(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let now = unix_now().to_string();
        let signature = sign(&self.key, &now, &body);
        let unreachable = || format!("cannot reach {}", self.host);
        let name = self.url.host().unwrap_or_default();
        let addresses = self.resolver.lookup(name, self.port).await.with_context(unreachable)?;
        let stream = TcpStream::connect(&addresses[..]).await.with_context(unreachable)?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .header(TIMESTAMP, now)
            .header(SIGNATURE, signature)
            .body(Full::new(Bytes::from(body)))?;
        let status = match &self.tls {
            Some(tls) => {
                let host = self.url.host().unwrap_or_default();
                ask(tls.connect(host, stream).await?, request).await?
            }
            None if self.is_secure => bail!("nobody to believe {} with was named", self.host),
            None => ask(stream, request).await?,
        };
        if !status.is_success() {
            bail!("{} answered {status}", self.host);
        }
        Ok(())
    }
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

impl Receiver for Webhook {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take(&mut self, batch: &[Record]) -> anyhow::Result<()> {
        let cursor = batch.last().map(|record| record.cursor);
        let body = serde_json::to_vec(&serde_json::json!({ "records": batch, "cursor": cursor }))?;
        let seconds = self.patience.as_secs();
        timeout(self.patience, self.send(body))
            .await
            .with_context(|| format!("{} did not answer within {seconds} s", self.host))?
    }
}

/// HMAC-SHA256 over the timestamp, a dot and the body, in base64.
fn sign(key: &hmac::Key, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body);
    STANDARD.encode(context.sign())
}
