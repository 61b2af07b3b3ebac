//! The other registries that this one copies from.

use std::{collections::HashSet, net::IpAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::lookup_host, task::JoinSet, time::sleep};
use weir_config::WebSocketUrl;
use weir_market::client::{Connector, system_lookup};

use crate::{http::PeerAddresses, registry::Registry, relay::MAX_MESSAGE};

mod sync;

use sync::{Link, Memory};

/// The pause before a peer is tried again, at first and at most.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// How often the peers' names are looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);

/// The peers of a registry.
#[derive(Clone)]
pub(crate) struct Peers {
    urls: Vec<WebSocketUrl>,
    connector: Connector,
    addresses: PeerAddresses,
}

impl Peers {
    /// The peers with these URLs.
    ///
    /// # Errors
    ///
    /// When a URL is not one, or there are no certificates to believe.
    pub(crate) fn new(
        urls: &[String],
        ca_file: Option<&Path>,
        addresses: PeerAddresses,
    ) -> anyhow::Result<Self> {
        let parse = |url: &String| url.parse().with_context(|| format!("registry.peers: {url}"));
        let urls: Vec<WebSocketUrl> = urls.iter().map(parse).collect::<anyhow::Result<_>>()?;
        let connector = Connector::for_urls(system_lookup(), &urls, ca_file);
        Ok(Self { urls, connector: connector.context("registry.ca_file")?, addresses })
    }

    /// Copies from all peers until it is dropped.
    pub(crate) async fn run(self, registry: Arc<Registry>) {
        let mut tasks = JoinSet::new();
        for url in &self.urls {
            tasks.spawn(follow(url.clone(), self.connector.clone(), Arc::clone(&registry)));
        }
        let mut known = vec![HashSet::new(); self.urls.len()];
        loop {
            self.look_up(&mut known).await;
            sleep(LOOKUP_INTERVAL).await;
        }
    }

    /// Looks up the addresses of all peers. One that is not found keeps those that it had.
    async fn look_up(&self, known: &mut [HashSet<IpAddr>]) {
        for (url, known) in self.urls.iter().zip(&mut *known) {
            let host = url.host().trim_matches(['[', ']']);
            match lookup_host((host, url.port())).await {
                Ok(found) => *known = found.map(|it| it.ip().to_canonical()).collect(),
                Err(error) => tracing::debug!(peer = %url, %error, "cannot look up a peer"),
            }
        }
        self.addresses.set(known.iter().flatten().copied().collect());
    }
}

/// Copies from a peer, again and again.
async fn follow(url: WebSocketUrl, connector: Connector, registry: Arc<Registry>) {
    let name = url.to_string();
    let mut memory = Memory::default();
    let mut delay = RETRY_DELAY;
    let mut said = String::new();
    loop {
        let error = match connector.socket(&url, 4 * MAX_MESSAGE).await {
            Ok(socket) => {
                registry.metrics().peer_connected();
                tracing::info!(peer = name, "connected to a peer");
                let began = tokio::time::Instant::now();
                let ended = Link::new(socket, &registry, &mut memory, &name).run().await;
                registry.metrics().peer_disconnected();
                if began.elapsed() > MAX_RETRY_DELAY {
                    delay = RETRY_DELAY;
                }
                ended.err()
            }
            Err(error) => Some(error.into()),
        };
        if let Some(error) = error {
            // A peer that stays away is reported once.
            let text = format!("{error:#}");
            if text != said {
                tracing::warn!(peer = name, "{text}");
                said = text;
            }
        }
        sleep(delay).await;
        delay = (delay * 2).min(MAX_RETRY_DELAY);
    }
}
