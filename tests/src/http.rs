//! A few lines of HTTP/1.0: the least that asks a server within a namespace.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::Namespace;

const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of `GET path` from a server on this host, which must answer with 200.
///
/// # Errors
/// If it does not.
pub fn get(namespace: &Namespace, port: u16, path: &str) -> Result<String> {
    let (head, body) = ask(namespace, port, path)?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {head}\n{body}");
    Ok(body)
}

/// The head and the body of the answer to `GET path` from a server on this host.
///
/// # Errors
/// If it does not answer.
pub fn ask(namespace: &Namespace, port: u16, path: &str) -> Result<(String, String)> {
    let mut stream = namespace
        .enter(|| Ok(TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), IO_TIMEOUT)?))
        .with_context(|| format!("cannot reach port {port}"))?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    Ok((head.to_owned(), body.to_owned()))
}

/// Text as a value in a URL's query.
#[must_use]
pub fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
