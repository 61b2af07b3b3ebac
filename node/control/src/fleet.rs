//! Many nodes and one payment layer: usage records go to a NATS JetStream stream, and commands come
//! as requests, over one connection that the node makes.
//!
//! | subject | what |
//! |---|---|
//! | `<subject>.<name>.usage` | the node publishes a usage record |
//! | `<subject>.<name>.api` | the node answers a request, as its HTTP API does |

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, ClientError, ConnectOptions, Event, connection::State};
use tracing::{info, warn};
use zeroize::Zeroizing;

use self::last_error::LastError;

pub mod commands;
mod last_error;
pub mod stream;

pub use stream::Stream;

/// The time that the server may take to answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection to the fleet's server. It is made again whenever it is lost.
#[derive(Clone, Debug)]
pub struct Link {
    client: Client,
    url: String,
    subject: String,
    last_error: LastError,
}

impl Link {
    /// Begins to connect; that the server is away is no error.
    ///
    /// # Errors
    ///
    /// When a file with credentials cannot be read, or an address is no address.
    pub async fn connect(fleet: &weir_config::Fleet) -> anyhow::Result<Self> {
        let url = fleet.url.clone();
        let server = url.clone();
        let last_error = LastError::default();
        let (seen, over) = (last_error.clone(), last_error.clone());
        let mut options = ConnectOptions::new()
            .name(format!("weir {}", fleet.name))
            .retry_on_initial_connect()
            .connection_timeout(SERVER_TIMEOUT)
            .request_timeout(Some(SERVER_TIMEOUT))
            // It chooses nothing: here is where the library says why the last attempt failed.
            .reconnect_to_server_callback(move |servers, _| {
                seen.update(&servers);
                std::future::ready(None)
            })
            .event_callback(move |event| {
                let (server, over) = (server.clone(), over.clone());
                async move {
                    match event {
                        Event::Connected => {
                            over.clear();
                            info!(server, "connected to the fleet's server");
                        }
                        // An attempt has failed, which it says of each: `LastError` has the reason.
                        Event::ClientError(ClientError::Other(_)) => {}
                        event => warn!(server, %event, "the fleet's server"),
                    }
                }
            });
        if !fleet.credentials_file.is_empty() {
            let path = &fleet.credentials_file;
            options = options.credentials_file(path).await.with_context(|| {
                format!(
                    "cannot read fleet.credentials_file {path}. Fix: put the node's .creds file \
                     (made by nsc or nk) there"
                )
            })?;
        }
        if !fleet.token_file.is_empty() {
            let path = &fleet.token_file;
            let token = std::fs::read_to_string(path).map(Zeroizing::new).with_context(|| {
                format!(
                    "cannot read fleet.token_file {path}. Fix: put the token from the server's \
                     configuration there"
                )
            })?;
            options = options.token(token.trim().to_owned());
        }
        if !fleet.ca_file.is_empty() {
            let path = &fleet.ca_file;
            std::fs::metadata(path).with_context(|| {
                format!(
                    "cannot read fleet.ca_file {path}. Fix: put the certificate that signed the \
                     server's there, in PEM"
                )
            })?;
            options = options.add_root_certificates(path.into());
        }
        let servers: Vec<&str> = url.split(',').map(str::trim).collect();
        let client = options
            .connect(servers)
            .await
            .with_context(|| format!("cannot connect to fleet.url {url}"))?;
        let subject = format!("{}.{}", fleet.subject, fleet.name);
        Ok(Self { client, url, subject, last_error })
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How the connection is, for the operator: where there is none, why, and what to do.
    #[must_use]
    pub fn describe(&self) -> String {
        match (self.is_up(), self.last_error.words()) {
            (true, _) => "connected".to_owned(),
            (false, None) => format!("no connection to {}", self.url),
            (false, Some(why)) => format!("no connection to {}: {why}", self.url),
        }
    }
}

#[cfg(test)]
mod tests;
