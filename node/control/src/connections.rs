//! Connections that clients cannot hold for ever, with a limit on each source's own.
//!
//! A connection begins as a stranger's. It has a total lifetime, whatever happens on it, and one of
//! its source's few permits. If none is left, the source's oldest connection ends, so that a client
//! that asks quickly is served beside one that never ends its request. An authenticated connection
//! is trusted: it may be idle for a time, again and again.

use std::{
    collections::{HashMap, VecDeque},
    future::Future as _,
    hash::Hash,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, Sleep, sleep},
};

/// The limits on the number and the lifetime of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections at once, of all sources. Those beyond wait in the kernel's queue.
    pub(crate) total: usize,
    /// Strangers' connections at once, of each source.
    pub(crate) per_source: usize,
    /// How long a stranger's connection may live.
    pub(crate) lifetime: Duration,
    /// How long nothing may move on a trusted one.
    pub(crate) idle: Duration,
}

/// The network that counts as one source: an IPv4 address, or an IPv6 /64, which is what one host
/// usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The connections of one listener. `S` is what a source is known by.
#[derive(Debug)]
pub(crate) struct Connections<S: Eq + Hash> {
    limits: Limits,
    total: Arc<Semaphore>,
    strangers: Strangers<S>,
}

/// Permission for one more connection, which it gives back when it ends.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S: Eq + Hash + Clone> Connections<S> {
    /// None yet.
    pub(crate) fn new(limits: Limits) -> Self {
        let total = Arc::new(Semaphore::new(limits.total));
        Self { limits, total, strangers: Strangers::default() }
    }

    /// Waits until there may be one more.
    pub(crate) async fn permit(&self) -> ConnectionPermit {
        // The semaphore is never closed.
        ConnectionPermit { _permit: Arc::clone(&self.total).acquire_owned().await.ok() }
    }

    /// Takes in a stranger from `source`. The oldest of too many ends.
    pub(crate) fn stranger<T>(
        &self,
        permit: ConnectionPermit,
        source: S,
        io: T,
    ) -> Connection<T, S> {
        let (source_permit, evicted) = self.strangers.admit(source, self.limits.per_source);
        let end = Box::pin(sleep(self.limits.lifetime));
        self.connection(permit, io, Bound::Stranger { end, evicted, _source_permit: source_permit })
    }

    /// Takes in one that need not authenticate.
    pub(crate) fn trusted<T>(&self, permit: ConnectionPermit, io: T) -> Connection<T, S> {
        self.connection(permit, io, Bound::trusted(self.limits.idle))
    }

    fn connection<T>(&self, permit: ConnectionPermit, io: T, bound: Bound<S>) -> Connection<T, S> {
        Connection { io, bound, idle: self.limits.idle, trust: Trust::default(), _permit: permit }
    }
}

/// Makes a connection a trusted one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust(Arc<AtomicBool>);

impl Trust {
    /// The connection has authenticated.
    pub(crate) fn grant(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_granted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that ends in time.
#[derive(Debug)]
pub(crate) struct Connection<T, S: Eq + Hash> {
    io: T,
    bound: Bound<S>,
    idle: Duration,
    trust: Trust,
    _permit: ConnectionPermit,
}

/// What ends a connection.
#[derive(Debug)]
enum Bound<S: Eq + Hash> {
    Stranger {
        end: Pin<Box<Sleep>>,
        evicted: oneshot::Receiver<()>,
        _source_permit: SourcePermit<S>,
    },
    Trusted {
        silence: Pin<Box<Sleep>>,
    },
    Over,
}

impl<S: Eq + Hash> Bound<S> {
    fn trusted(idle: Duration) -> Self {
        Self::Trusted { silence: Box::pin(sleep(idle)) }
    }
}

impl<T: Unpin, S: Eq + Hash> Connection<T, S> {
    /// Makes it a trusted one, once it has authenticated.
    pub(crate) fn trust(&self) -> Trust {
        self.trust.clone()
    }

    /// Takes a step, unless the connection is over.
    fn step<R>(
        &mut self,
        context: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if matches!(self.bound, Bound::Stranger { .. }) && self.trust.is_granted() {
            self.bound = Bound::trusted(self.idle);
        }
        match &mut self.bound {
            Bound::Stranger { end, evicted, .. } => {
                let is_over = end.as_mut().poll(context).is_ready()
                    || Pin::new(evicted).poll(context).is_ready();
                if !is_over {
                    return step(Pin::new(&mut self.io), context);
                }
            }
            Bound::Trusted { silence } => {
                if let Poll::Ready(done) = step(Pin::new(&mut self.io), context) {
                    silence.as_mut().reset(Instant::now() + self.idle);
                    return Poll::Ready(done);
                }
                ready!(silence.as_mut().poll(context));
            }
            Bound::Over => {}
        }
        self.bound = Bound::Over;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin, S: Eq + Hash + Unpin> AsyncRead for Connection<T, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().step(context, |io, context| io.poll_read(context, buffer))
    }
}

impl<T: AsyncWrite + Unpin, S: Eq + Hash + Unpin> AsyncWrite for Connection<T, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().step(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().step(context, |io, context| io.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().step(context, |io, context| io.poll_shutdown(context))
    }
}

/// The strangers of each source, the oldest first.
#[derive(Debug)]
struct Strangers<S>(Arc<Mutex<Waiting<S>>>);

#[derive(Debug)]
struct Waiting<S> {
    next: u64,
    /// Dropping a sender ends its connection.
    by_source: HashMap<S, VecDeque<(u64, oneshot::Sender<()>)>>,
}

impl<S> Default for Strangers<S> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { next: 0, by_source: HashMap::new() })))
    }
}

impl<S> Clone for Strangers<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Strangers<S> {
    fn lock(&self) -> MutexGuard<'_, Waiting<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Eq + Hash + Clone> Strangers<S> {
    fn admit(&self, source: S, max: usize) -> (SourcePermit<S>, oneshot::Receiver<()>) {
        let (sender, evicted) = oneshot::channel();
        let mut all = self.lock();
        let number = all.next;
        all.next += 1;
        let those = all.by_source.entry(source.clone()).or_default();
        if those.len() >= max {
            those.pop_front();
        }
        those.push_back((number, sender));
        (SourcePermit { source, number, all: self.clone() }, evicted)
    }
}

/// One of a source's few permits, which it gives back when it is dropped.
#[derive(Debug)]
struct SourcePermit<S: Eq + Hash> {
    source: S,
    number: u64,
    all: Strangers<S>,
}

impl<S: Eq + Hash> Drop for SourcePermit<S> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(those) = all.by_source.get_mut(&self.source) {
            those.retain(|(number, _)| *number != self.number);
            if those.is_empty() {
                all.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests;
