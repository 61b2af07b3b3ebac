//! What a watcher measures against: a small HTTP server of the operator's own, outside of any exit.
//!
//! 1. `GET /address` answers with the client's address.
//! 2. `GET /down?bytes=N` sends N bytes.
//! 3. `POST /up` reads a body, and says how many bytes it had.
//!
//! Everything is bounded: bytes, time, and requests at once.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// The most bytes of one transfer.
pub const MAX_BYTES: u64 = 256 << 20;
/// Connections at once. More are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// The time for a connection with all its requests.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What is sent at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Serves until the process ends. `ready` is told the address.
///
/// # Errors
///
/// When it cannot listen there.
pub async fn serve(listen: SocketAddr, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    ready(listener.local_addr()?);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Out of file descriptors, for example.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, from));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // What breaks or takes too long is over, and nobody is to be told.
            drop(timeout(CONNECTION_TIMEOUT, connection).await);
            drop(place);
        });
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(http_body_util::Full::new(Bytes::from(text)).boxed());
    *answer.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

async fn answer(request: Request<Incoming>, from: SocketAddr) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    Ok(match (head.method, head.uri.path()) {
        (Method::GET, "/address") => {
            text(StatusCode::OK, format!("{}\n", from.ip().to_canonical()))
        }
        (Method::GET, "/down") => match wanted(head.uri.query()) {
            Some(bytes) => Response::new(Zeros(bytes).boxed()),
            None => {
                let fix = format!("write /down?bytes=N, with N up to {MAX_BYTES}\n");
                text(StatusCode::BAD_REQUEST, fix)
            }
        },
        (Method::POST, "/up") => match read(body).await {
            Some(bytes) => text(StatusCode::OK, format!("{bytes}\n")),
            None => {
                text(StatusCode::PAYLOAD_TOO_LARGE, format!("send at most {MAX_BYTES} bytes\n"))
            }
        },
        _ => text(StatusCode::NOT_FOUND, "GET /address, GET /down?bytes=N, POST /up\n".to_owned()),
    })
}

fn wanted(query: Option<&str>) -> Option<u64> {
    let bytes = query?.strip_prefix("bytes=")?.parse().ok()?;
    (bytes <= MAX_BYTES).then_some(bytes)
}

async fn read(mut body: Incoming) -> Option<u64> {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if bytes > MAX_BYTES {
            return None;
        }
    }
    Some(bytes)
}

/// This many zeros.
struct Zeros(u64);

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let some = self.0.min(ZEROS.len() as u64);
        self.0 -= some;
        let zeros = ZEROS.get(..usize::try_from(some).unwrap_or(0)).unwrap_or_default();
        let frame = (!zeros.is_empty()).then(|| Ok(Frame::data(Bytes::from_static(zeros))));
        std::task::Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Targets, http::Ask};

    #[tokio::test]
    async fn an_own_server_tells_the_address_and_moves_bytes_both_ways() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        tokio::spawn(serve(listen, |at| tell.send(at).expect("it is awaited")));
        let at = told.await.expect("it listens");
        let server = format!("http://{at}").parse().ok();
        let targets = Targets { server, ..Targets::default() };
        let targets = targets.resolve().await.expect("an address");
        targets.check_own_line().await.expect("it answers");
        let server = targets.server.as_ref().expect("a server");
        let answer = Ask::get(server, "/address").send().await.expect("an answer");
        assert_eq!((answer.text.as_str(), answer.is_success), ("127.0.0.1\n", true));
        let time = Duration::from_secs(60);
        let down = Ask::get(server, "/down?bytes=300000").limit(1 << 30, time).send().await;
        assert_eq!(down.expect("an answer").bytes, 300_000);
        let up = Ask::post(server, "/up", vec![0; 200_000]).send().await.expect("an answer");
        assert_eq!(up.text, "200000\n");
        for path in ["/down", "/down?bytes=x", "/down?bytes=99999999999", "/other"] {
            let answer = Ask::get(server, path).send().await.expect("an answer");
            assert!(!answer.is_success, "{path}");
        }
    }
}
