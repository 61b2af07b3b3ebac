//! Connections from consumers. Each belongs to one session from the first byte to the last, and no
//! consumer can use up the connections of the others.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use weir_common::{AddressPlan, Slot};

use crate::connections::{Connection, Connections, Limits};
use weir_ledger::SessionId;
use weir_sessions::registry::Sessions;

/// The limits for all consumers together, and for each. No client authenticates here, so a
/// connection never lives longer than this. With a paused session's allowance a request takes a
/// second.
const LIMITS: Limits = Limits { total: 512, per_source: 4, lifetime: LIFETIME, idle: LIFETIME };
const LIFETIME: Duration = Duration::from_secs(20);

/// The session that a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) SessionId);

impl Connected<IncomingStream<'_, SessionListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, SessionListener>) -> Self {
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
pub(super) struct SessionListener {
    listener: TcpListener,
    plan: AddressPlan,
    sessions: Arc<Sessions>,
    connections: Connections<SessionId>,
}

/// A connection from a consumer.
pub(super) type SessionConnection = Connection<TcpStream, SessionId>;

impl SessionListener {
    pub(super) fn new(listener: TcpListener, plan: AddressPlan, sessions: &Arc<Sessions>) -> Self {
        let sessions = Arc::clone(sessions);
        Self { listener, plan, sessions, connections: Connections::new(LIMITS) }
    }

    /// Answers requests until `stopped` says so. [`Caller`] tells handlers the session.
    pub(super) async fn serve(
        self,
        router: Router,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let stop = async move {
            // The sender is dropped only after it has sent this.
            stopped.wait_for(|stopped| *stopped).await.ok();
        };
        axum::serve(self, router.into_make_service_with_connect_info::<Caller>())
            .with_graceful_shutdown(stop)
            .await
    }
}

impl Listener for SessionListener {
    type Io = SessionConnection;
    type Addr = Caller;

    async fn accept(&mut self) -> (SessionConnection, Caller) {
        loop {
            let permit = self.connections.permit().await;
            let (stream, from) = Listener::accept(&mut self.listener).await;
            let slot = slot_of(&self.plan, from.ip());
            if let Some(session) = slot.and_then(|slot| self.sessions.at(slot)) {
                let connection = self.connections.stranger(permit, session, stream);
                return (connection, Caller(session));
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
