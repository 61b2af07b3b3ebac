//! A WebSocket to a peer, with or without TLS.

use std::{io, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config, tungstenite::protocol::WebSocketConfig,
};
use weir_config::WebSocketUrl;
use weir_tls::Tls;

use crate::relay::MAX_MESSAGE;

/// The time in which a peer must answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream of bytes, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a peer.
pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Connects to a peer.
pub(super) async fn connect(url: &WebSocketUrl, tls: Option<&Tls>) -> anyhow::Result<Socket> {
    timeout(ANSWER_TIMEOUT, open(url, tls)).await.context("it does not answer")?
}

async fn open(url: &WebSocketUrl, tls: Option<&Tls>) -> anyhow::Result<Socket> {
    let host = url.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, url.port())).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = if url.is_secure() {
        let tls = tls.context("there are no root certificates")?;
        Box::new(tls.connect(host, stream).await.context("the TLS handshake failed")?)
    } else {
        Box::new(stream)
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(4 * MAX_MESSAGE))
        .max_frame_size(Some(4 * MAX_MESSAGE))
        .read_buffer_size(16 * 1024);
    let (socket, _) = client_async_with_config(url.to_string(), stream, Some(config))
        .await
        .map_err(io::Error::other)
        .context("it does not speak WebSocket")?;
    Ok(socket)
}
