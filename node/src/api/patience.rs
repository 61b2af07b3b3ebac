//! A listener that clients cannot wear out: only so many connections at once, and none of them
//! silent for ever.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// A listener with limits. Connections beyond the most wait in the kernel's queue.
#[derive(Debug)]
pub(super) struct Limited<L> {
    listener: L,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl<L> Limited<L> {
    /// At most `most` connections at once, each of which may be silent for `silence`.
    pub(super) fn new(listener: L, most: usize, silence: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), silence }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = LimitedIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed, so there always comes a place.
        let place = self.places.clone().acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        let deadline = Box::pin(sleep(self.silence));
        (LimitedIo { io, deadline, silence: self.silence, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing has moved on it for a time.
#[derive(Debug)]
pub(super) struct LimitedIo<T> {
    io: T,
    deadline: Pin<Box<Sleep>>,
    silence: Duration,
    _place: Option<OwnedSemaphorePermit>,
}

impl<T: Unpin> LimitedIo<T> {
    /// Lets `step` wait no longer than the deadline, and moves that when something happened.
    fn limit<R>(
        &mut self,
        context: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if let Poll::Ready(done) = step(Pin::new(&mut self.io), context) {
            self.deadline.as_mut().reset(Instant::now() + self.silence);
            return Poll::Ready(done);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for LimitedIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().limit(context, |io, context| io.poll_read(context, buffer))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for LimitedIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().limit(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().limit(context, |io, context| io.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().limit(context, |io, context| io.poll_shutdown(context))
    }
}
