//! A client of relays and registries: Nostr (NIP-01) over WebSocket.
//!
//! A relay is a stranger. Everything that it sends is bounded in size, number and time, and nothing
//! that it says about an event is believed.

use std::{fmt, io, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use nostr::{event::Event, message::RelayMessage};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::event::MAX_EVENT_BYTES;

mod connector;
mod pages;

pub use connector::{Connector, Found, Lookup, Socket, system_lookup};
pub use pages::{Fetched, Limits, Query};

/// The time that an answer to one message may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest message that is read, in bytes: an event and what is around it.
const MAX_MESSAGE_BYTES: usize = MAX_EVENT_BYTES + 1024;
/// The maximum number of other messages that are read while one is waited for.
const MAX_OTHERS: usize = 64;
/// The longest text of a relay that is kept, in characters.
const MAX_WORDS: usize = 200;

/// Why a relay did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host has no address, or nobody says.
    #[error("cannot look up {host}: {source}")]
    Lookup {
        /// The host.
        host: String,
        /// The reason.
        source: io::Error,
    },
    /// No connection.
    #[error("cannot reach {host}: {source}")]
    Connect {
        /// The host.
        host: String,
        /// The reason.
        source: io::Error,
    },
    /// No encryption.
    #[error("the TLS handshake with {host} failed: {source}")]
    Tls {
        /// The host.
        host: String,
        /// The reason.
        source: io::Error,
    },
    /// There is no WebSocket, or it broke.
    #[error("{0}")]
    WebSocket(Box<tungstenite::Error>),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// It sent too much.
    #[error("it sent more than {0}")]
    TooMuch(&'static str),
    /// It refuses to answer a query.
    #[error("it refuses to answer: {0}")]
    Refused(String),
}

impl From<tungstenite::Error> for ClientError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed
            }
            tungstenite::Error::Capacity(_) => Self::TooMuch("a message may have"),
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

/// A relay's answer to an event (NIP-01, `OK`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it has the event now.
    pub accepted: bool,
    /// Its reason, such as `blocked: not on the list`; may be empty.
    pub reason: String,
}

/// A connection to a relay.
pub struct Relay {
    socket: Socket,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl Relay {
    /// Gives the relay an event, and returns its answer.
    ///
    /// # Errors
    ///
    /// When there is no answer in time.
    pub async fn publish(&mut self, event: &Event) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        self.send(format!("[\"EVENT\",{}]", event.as_json()), deadline).await?;
        for _ in 0..MAX_OTHERS {
            let text = self.receive(deadline, ANSWER_TIMEOUT).await?;
            if let Ok(RelayMessage::Ok { event_id, status, message }) =
                RelayMessage::from_json(text.as_bytes())
                && event_id == event.id
            {
                return Ok(Answer { accepted: status, reason: words(&message) });
            }
        }
        Err(ClientError::TooMuch("64 other messages instead of an answer"))
    }

    /// Closes the connection. That the relay is gone already is no error.
    pub async fn close(mut self) {
        let closing = tokio::time::timeout(Duration::from_secs(1), self.socket.close(None));
        drop(closing.await);
    }

    async fn send(&mut self, text: String, deadline: Instant) -> Result<(), ClientError> {
        let sent = timeout_at(deadline, self.socket.send(Message::text(text))).await;
        Ok(sent.map_err(|_| ClientError::Timeout(ANSWER_TIMEOUT))??)
    }

    /// The next message of text; what is none is answered or left out.
    async fn receive(&mut self, deadline: Instant, limit: Duration) -> Result<String, ClientError> {
        loop {
            let next = timeout_at(deadline, self.socket.next()).await;
            match next.map_err(|_| ClientError::Timeout(limit))? {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(_))) | None => return Err(ClientError::Closed),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
}

/// Text of a relay on one line, without what would steer a terminal.
fn words(text: &str) -> String {
    crate::event::printable(text, MAX_WORDS)
}
