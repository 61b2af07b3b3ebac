//! The requests to a mint.

use std::pin::Pin;

use ::http::Method;
use weir_config::HttpUrl;

use crate::http::{Answer, Http, NoAnswer};

/// What a future of [`Mints`] gives.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Answer, NoAnswer>> + Send + 'a>>;

/// The mints, to send requests to.
pub trait Mints: Send + Sync {
    /// Sends a request to a mint: `GET` with an empty body, else `POST` with JSON.
    fn ask<'a>(&'a self, mint: &'a str, path: &'a str, json: Vec<u8>) -> Asked<'a>;
}

impl Mints for Http {
    fn ask<'a>(&'a self, mint: &'a str, path: &'a str, json: Vec<u8>) -> Asked<'a> {
        Box::pin(async move {
            let url: HttpUrl = format!("{}{path}", mint.trim_end_matches('/'))
                .parse()
                .map_err(|error: weir_config::NotHttp| NoAnswer::NotSent(error.to_string()))?;
            let method = if json.is_empty() { Method::GET } else { Method::POST };
            let headers = [("content-type", "application/json"), ("accept", "application/json")];
            Http::ask(self, method, &url, &headers, json).await
        })
    }
}
