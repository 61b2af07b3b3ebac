//! Sales to strangers: a session, with its configuration, for ecash or a voucher.
//!
//! | request | answer |
//! |---|---|
//! | `GET /info` | 200 [`weir_market::purchase::Info`] |
//! | `POST /purchase` `{"protocol", "client_pubkey"}` | 200 `{"status", "config", "expires_at"}` |
//! | `GET /health` | 200 |
//!
//! The order of checks is the order of their costs: what a request says, whether its source may ask
//! again, the signature of its authorization, the signatures of its token. A slot is taken last, in
//! the transaction that takes the payment. The same order again has the same answer.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::watch};
use weir_config::{Config, ListenAddr, Shared, WebSocketUrl};
use weir_market::{client::Connector, key::MarketKey};
use weir_sessions::{registry::Sessions, wg_quick::PeerTemplate};

use crate::{ecash::Cashu, resolver::Resolver};

mod counts;
mod http;
mod letters;
mod listener;
mod refusal;
mod shop;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use counts::{Counts, PurchaseCounts, Way};
use letters::Letters;
use listener::Server;
use shop::Shop;
pub use tls::CertificateError;
pub use url::url;

/// What a node with this configuration needs to sell; see [`Purchase::bind`].
#[derive(Debug)]
pub struct Purchase {
    server: Option<Server>,
    letters: Option<Waiting>,
    counts: Counts,
}

/// Letters that are not awaited yet.
#[derive(Debug)]
struct Waiting {
    letters: Letters,
    relays: Vec<WebSocketUrl>,
    connector: Connector,
}

/// Why nothing is sold.
#[derive(Debug, thiserror::Error)]
pub enum PurchaseError {
    /// The address and port cannot be had.
    #[error(
        "cannot sell at {address}: {source}. Choose another address and port with purchase.listen \
         in the configuration, or \"off\""
    )]
    Bind {
        /// The address and port.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There are no TLS roots.
    #[error("{0:#}. Fix: check purchase.relay_ca_file")]
    Roots(anyhow::Error),
    /// There is no key that signs listings.
    #[error(transparent)]
    Key(#[from] weir_market::key::KeyFileError),
}

impl Purchase {
    /// Binds the listener and reads the certificate, if the configuration asks for sales; else
    /// `None`.
    ///
    /// # Errors
    ///
    /// Says what cannot be had.
    pub async fn bind(
        config: &Config,
        sessions: &Arc<Sessions>,
        template: &Shared<PeerTemplate>,
        cashu: Option<&Arc<Cashu>>,
        resolver: &Resolver,
    ) -> Result<Option<Self>, PurchaseError> {
        let settings = &config.purchase;
        // The configuration was checked.
        let relays: Vec<WebSocketUrl> =
            settings.relays.iter().filter_map(|url| url.parse().ok()).collect();
        if settings.listen == ListenAddr::Off && relays.is_empty() {
            return Ok(None);
        }
        let key = MarketKey::load_or_create(&config.market.key_file)?;
        let shop = Shop::new(config, key, sessions, template, cashu);
        let counts = shop.counts.clone();
        let letters = match relays.is_empty() {
            true => None,
            false => {
                let ca_file = settings.relay_ca_file.as_str();
                let ca_file = (!ca_file.is_empty()).then_some(Path::new(ca_file));
                let connector = Connector::for_urls(resolver.for_relays(), &relays, ca_file)
                    .context("purchase.relay_ca_file")
                    .map_err(PurchaseError::Roots)?;
                Some(Waiting { letters: Letters::new(shop.clone()), relays, connector })
            }
        };
        let server = match settings.listen {
            ListenAddr::On(address) => Some(listen(settings, address, shop).await?),
            ListenAddr::Off => None,
        };
        Ok(Some(Self { server, letters, counts }))
    }

    /// What became of orders.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Sells until `stopped` says so.
    ///
    /// # Errors
    ///
    /// When the listener fails for good.
    pub async fn serve(self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let (until_stopped, relays_stopped) = (stopped.clone(), stopped.clone());
        let serve = async {
            match self.server {
                Some(server) => server.serve(until_stopped).await,
                None => Ok(()),
            }
        };
        let await_letters = async {
            if let Some(Waiting { letters, relays, connector }) = self.letters {
                letters.serve(relays, connector, relays_stopped).await;
            }
            Ok(())
        };
        let served = tokio::try_join!(serve, await_letters);
        served.context("the listener for purchases has failed")?;
        stopped.wait_for(|stopped| *stopped).await.ok();
        Ok(())
    }
}

async fn listen(
    settings: &weir_config::Purchase,
    address: SocketAddr,
    shop: Shop,
) -> Result<Server, PurchaseError> {
    let tls = match settings.certificate_file.as_str() {
        "" => None,
        file => Some(tls::Certificate::load(file, &settings.certificate_key_file)?),
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| PurchaseError::Bind { address, source })?;
    Ok(Server::new(listener, tls, settings.proxies.clone(), http::router(shop)))
}
