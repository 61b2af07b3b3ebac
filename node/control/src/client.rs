//! A client of the running node's API.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::error::ErrorBody;

/// The time after which a node that has not answered is considered stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the node behind one socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client of the node behind this socket.
    ///
    /// # Errors
    ///
    /// Fails if the runtime cannot be created.
    pub fn new(socket: PathBuf) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { socket, runtime: runtime.context("cannot start the runtime")? })
    }

    /// `GET path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// `DELETE path`.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::DELETE, path, Bytes::new())
    }

    /// `POST path` with a body of JSON.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into())
    }

    /// `PUT path` with a body of JSON.
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        self.ask(Method::PUT, path, serde_json::to_vec(body)?.into())
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<T> {
        let asked =
            async { tokio::time::timeout(REQUEST_TIMEOUT, self.send(method, path, body)).await };
        let (success, body) = self.runtime.block_on(asked).map_err(|_| {
            let seconds = REQUEST_TIMEOUT.as_secs();
            anyhow!("the node did not answer within {seconds} s. Fix: see its log, or restart it")
        })??;
        if !success {
            let error: ErrorBody = serde_json::from_slice(&body)
                .with_context(|| self.not_weir("its error is not JSON"))?;
            bail!(error.error.message);
        }
        serde_json::from_slice(&body)
            .with_context(|| self.not_weir("unexpected format (another version of weir?)"))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(bool, Bytes)> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|e| explain(&self.socket, &e))?;
        let broken = || self.not_weir("the connection was closed");
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.with_context(broken)?;
        tokio::spawn(async move {
            // The request sees the same error.
            drop(connection.await);
        });
        let request = Request::builder().method(method).uri(path).header("host", "weir");
        let request = request.body(Full::new(body)).context("cannot build the request")?;
        let response = sender.send_request(request).await.with_context(broken)?;
        let success = response.status().is_success();
        let body = response.into_body().collect().await.with_context(broken)?;
        Ok((success, body.to_bytes()))
    }

    fn not_weir(&self, what: &str) -> String {
        format!("invalid answer from {}: {what}", self.socket.display())
    }
}

/// Explains a failed connection, with the fix.
fn explain(socket: &Path, error: &io::Error) -> anyhow::Error {
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("no socket {path}: is weir running? Start it with: weir run")
        }
        io::ErrorKind::ConnectionRefused => {
            anyhow!("nothing listens on {path}: weir is no longer running. Start it with: weir run")
        }
        io::ErrorKind::PermissionDenied => {
            let group = fs::metadata(socket).ok().and_then(|file| group_name(file.gid()));
            let join = match group.filter(|group| group != "root") {
                Some(group) => format!("join its group with: sudo usermod -aG {group} \"$USER\""),
                None => "set api.socket_group in the configuration".to_owned(),
            };
            anyhow!("permission denied on the socket {path}: run this as root, or {join}")
        }
        _ => anyhow!("cannot reach weir through {path}: {error}"),
    }
}

fn group_name(gid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

/// Text as a part of a URL's path.
pub fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
