//! The requests to a mint, over HTTP.

use std::{path::Path, pin::Pin, time::Duration};

use http::{Method, StatusCode};
use hyper::body::Bytes;
use tokio::time::timeout;

use crate::{
    delivery::post::{NoAnswer, Target},
    resolver::Resolver,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes. The keys of a keyset are some 5 KB.
const MAX_ANSWER: usize = 256 * 1024;

/// An answer: its status and its body.
pub(super) type Answer = Result<(StatusCode, Bytes), NoAnswer>;

/// A mint, to send requests to.
pub(super) trait Mint: Send + Sync {
    /// Sends a request: `GET` with an empty body, else `POST`.
    fn ask<'a>(
        &'a self,
        path: &'a str,
        json: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;
}

/// A mint at a URL.
#[derive(Debug)]
pub(super) struct HttpMint(Target);

impl HttpMint {
    pub(super) fn new(url: &str, ca_file: &str, resolver: &Resolver) -> anyhow::Result<Self> {
        let ca_file = (!ca_file.is_empty()).then_some(Path::new(ca_file));
        let target = Target::new(url)?.with_roots(ca_file, "cashu.ca_file")?;
        Ok(Self(target.with_resolver(resolver.clone())))
    }
}

impl Mint for HttpMint {
    fn ask<'a>(
        &'a self,
        path: &'a str,
        json: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        let method = if json.is_empty() { Method::GET } else { Method::POST };
        Box::pin(async move {
            let asked = self.0.exchange(method, path, json, MAX_ANSWER);
            match timeout(TIMEOUT, asked).await {
                Ok(answer) => answer,
                Err(_) => {
                    Err(NoAnswer::Lost(anyhow::anyhow!("{} did not answer in time", self.0.host())))
                }
            }
        })
    }
}
