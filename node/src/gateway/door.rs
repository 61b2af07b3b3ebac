//! Connections from consumers: each is its session's from the first byte to the last, and no
//! consumer can take the places of the others.

use std::{
    collections::HashMap,
    future::Future as _,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Sleep, sleep},
};
use weir_common::{AddressPlan, Slot};

use crate::session::{SessionId, registry::Sessions};

/// Connections at once, of all consumers.
const MOST: usize = 512;
/// Connections at once, of each consumer.
const MOST_OF_ONE: usize = 4;
/// How long a connection may live, whatever happens on it. At a paused session's trickle a request
/// takes a second.
const LIFETIME: Duration = Duration::from_secs(20);

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) SessionId);

impl Connected<IncomingStream<'_, Door>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        *stream.remote_addr()
    }
}

/// The slot of an inner address.
pub(super) fn slot_of(plan: &AddressPlan, address: IpAddr) -> Option<Slot> {
    match address {
        IpAddr::V4(v4) => plan.slot_of_v4(v4.octets()),
        IpAddr::V6(v6) => plan.slot_of_v6(v6.octets()),
    }
}

/// A listener inside the tunnel.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    plan: AddressPlan,
    sessions: Arc<Sessions>,
    places: Arc<Semaphore>,
    guests: Guests,
}

impl Door {
    pub(super) fn new(listener: TcpListener, plan: AddressPlan, sessions: &Arc<Sessions>) -> Self {
        let places = Arc::new(Semaphore::new(MOST));
        Self { listener, plan, sessions: Arc::clone(sessions), places, guests: Guests::default() }
    }

    /// Answers requests until `stopped` says so. Handlers learn from [`Caller`] who asks.
    pub(super) async fn serve(
        self,
        router: Router,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let stop = async move {
            // The sender goes only after it has said so.
            stopped.wait_for(|stopped| *stopped).await.ok();
        };
        axum::serve(self, router.into_make_service_with_connect_info::<Caller>())
            .with_graceful_shutdown(stop)
            .await
    }

    /// The session behind an address, with a place of those that it may have.
    fn admit(&self, from: SocketAddr) -> Option<(Caller, Guest)> {
        let session = self.sessions.at(slot_of(&self.plan, from.ip())?)?;
        Some((Caller(session), self.guests.admit(session)?))
    }
}

impl Listener for Door {
    type Io = Visit;
    type Addr = Caller;

    async fn accept(&mut self) -> (Visit, Caller) {
        loop {
            // The semaphore is never closed, so there always comes a place.
            let place = self.places.clone().acquire_owned().await.ok();
            let (stream, from) = Listener::accept(&mut self.listener).await;
            if let Some((caller, guest)) = self.admit(from) {
                let end = Box::pin(sleep(LIFETIME));
                return (Visit { stream, end, _guest: guest, _place: place }, caller);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How many connections each consumer has.
#[derive(Clone, Debug, Default)]
struct Guests(Arc<Mutex<HashMap<SessionId, usize>>>);

impl Guests {
    fn admit(&self, session: SessionId) -> Option<Guest> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(session).or_default();
        if *count >= MOST_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Guest { session, all: self.clone() })
    }
}

/// One of a consumer's places, until it is dropped.
#[derive(Debug)]
struct Guest {
    session: SessionId,
    all: Guests,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.session) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.session);
            }
        }
    }
}

/// A connection that ends in time.
#[derive(Debug)]
pub(super) struct Visit {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _guest: Guest,
    _place: Option<OwnedSemaphorePermit>,
}

impl Visit {
    fn unless_over<R>(
        &mut self,
        context: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        step(Pin::new(&mut self.stream), context)
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().unless_over(context, |stream, context| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().unless_over(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().unless_over(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().unless_over(context, |stream, context| stream.poll_shutdown(context))
    }
}
