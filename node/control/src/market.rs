//! The node's listing in the market: what it says, when it is published, and what relays answer.
//!
//! [`facts`] makes a listing of what the node is now. [`plan`] decides what to publish; it is pure.
//! [`Market`] signs it and gives it to a task for each relay ([`delivery`]). Without `[market]` none
//! of this is started, and nothing leaves the machine.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tracing::{info, warn};
use weir_config::{Config, Shared, WebSocketUrl};
use weir_ledger::unix_now;
use weir_market::{
    client::Connector,
    event::{Event, sign_deletion, sign_listing},
    key::MarketKey,
    listing::Listing,
    place::Places,
};

use crate::resolver::Resolver;

mod delivery;
pub mod facts;
pub mod plan;
mod state;
pub mod view;

use delivery::Delivery;
use facts::Facts;
use plan::{Action, Plan};
use state::{State, StateFile};
use view::{MarketState, MarketView};

/// The name of the node's listing among those of its key.
const LISTING_ID: &str = "weir";
/// How often the node is compared with its listing.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The time that relays have, all at once, to take the withdrawal at a stop.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(3);

/// What a listing is made from, beside the node's state. A reload replaces it.
#[derive(Debug)]
pub struct MarketSettings {
    config: Config,
    places: Places,
}

impl MarketSettings {
    /// Reads the databases of addresses.
    ///
    /// # Errors
    ///
    /// Names the database that cannot be used.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        let files = &config.market.place_files;
        let places = Places::load(files).context("market.place_files")?;
        Ok(Self { config: config.clone(), places })
    }

    /// What a node without a market has.
    #[must_use]
    pub fn off(config: &Config) -> Self {
        Self { config: config.clone(), places: Places::default() }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the databases say of an address.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> weir_market::place::Place {
        self.places.find(address)
    }
}

/// What the node is now.
pub trait NodeFacts: Send + Sync {
    /// What a listing says of it.
    fn facts(&self) -> Facts;
}

/// The node's listing, and the relays that have it.
pub struct Market {
    key: MarketKey,
    settings: Shared<MarketSettings>,
    node: Arc<dyn NodeFacts>,
    file: StateFile,
    relays: Vec<Delivery>,
    current: watch::Sender<Option<Arc<Event>>>,
    inner: Mutex<Inner>,
    wake: Notify,
}

struct Inner {
    plan: Plan,
    state: State,
    /// What it is about now, listing or deletion, and when it was signed.
    published: Option<(Listing, u64)>,
    notes: Vec<String>,
}

/// A shared [`Market`].
pub type SharedMarket = Arc<Market>;

impl std::fmt::Debug for Market {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Market").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Market {
    /// Prepares the listing, if the configuration enables it. Reads the key, or creates it. Nothing
    /// is published before [`Market::run`].
    ///
    /// # Errors
    ///
    /// When there is no key, no TLS roots, or a URL that is not one.
    pub fn new(
        config: &Config,
        settings: Shared<MarketSettings>,
        node: Arc<dyn NodeFacts>,
        resolver: &Resolver,
    ) -> anyhow::Result<Option<SharedMarket>> {
        let market = &config.market;
        if !market.enabled {
            return Ok(None);
        }
        let mut urls: Vec<WebSocketUrl> = Vec::new();
        for text in market.registries.iter().chain(&market.relays) {
            let url = text.parse().with_context(|| format!("{text:?} is not a relay's URL"))?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        let file = Some(&market.ca_file).filter(|file| !file.is_empty()).map(Path::new);
        let connector = Connector::for_urls(resolver.for_relays(), &urls, file);
        let connector = connector.context("market.ca_file")?;
        let key = MarketKey::load_or_create(&market.key_file).context("market.key_file")?;
        let file = StateFile::new(&config.node.state_dir);
        let state = file.load();
        let (current, events) = watch::channel(None);
        let relays = urls
            .into_iter()
            .map(|url| Delivery::new(url, connector.clone(), events.clone()))
            .collect();
        Ok(Some(Arc::new(Self {
            key,
            settings,
            node,
            file,
            relays,
            current,
            inner: Mutex::new(Inner {
                plan: Plan::new(state.withdrawn),
                state,
                published: None,
                notes: Vec::new(),
            }),
            wake: Notify::new(),
        })))
    }

    /// Keeps the listing published until `stopped` says so, and withdraws it then.
    pub async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let tasks: Vec<JoinHandle<()>> =
            self.relays.iter().map(|relay| tokio::spawn(relay.clone().run())).collect();
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.wake.notified() => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
            let market = Arc::clone(&self);
            // Reads files and, with proof of work, computes for a while.
            let looked = tokio::task::spawn_blocking(move || market.look());
            if looked.await.is_err() {
                warn!("the listing is no longer renewed: restart weir, and report this");
                break;
            }
        }
        self.withdraw_at_stop().await;
        tasks.iter().for_each(JoinHandle::abort);
    }

    /// Compares the node with its listing, and publishes what has changed.
    fn look(&self) {
        let settings = self.settings.get();
        let (listing, notes) = facts::listing(LISTING_ID, &self.node.facts(), &settings);
        let now = unix_now();
        let action = {
            let mut inner = self.inner();
            inner.notes = notes;
            inner.plan.next(now, &listing)
        };
        match action {
            Action::Wait => {}
            Action::Withdraw => self.delete(now),
            Action::Publish => {
                let at = self.signing_time(now);
                let work = u8::try_from(settings.config.market.proof_of_work).unwrap_or(u8::MAX);
                let event = sign_listing(&self.key, &listing, at, work);
                info!(relays = self.relays.len(), "publishing the node's listing");
                self.inner().published = Some((listing, at));
                self.current.send_replace(Some(Arc::new(event)));
            }
        }
    }

    /// Publishes the deletion of the listing.
    fn delete(&self, now: u64) {
        let at = self.signing_time(now);
        let event = sign_deletion(&self.key, LISTING_ID, at);
        info!(relays = self.relays.len(), "withdrawing the node's listing");
        self.inner().published = None;
        self.current.send_replace(Some(Arc::new(event)));
    }

    /// The time to sign with: of two events of the same second, relays may keep either one.
    fn signing_time(&self, now: u64) -> u64 {
        let mut inner = self.inner();
        let at = plan::signing_time(now, inner.state.last_signed);
        inner.state.last_signed = at;
        let state = inner.state;
        drop(inner);
        if let Err(error) = self.file.store(&state) {
            warn!(%error, "cannot store the state of the listing");
        }
        at
    }

    async fn withdraw_at_stop(&self) {
        if self.inner().published.is_none() {
            return;
        }
        self.delete(unix_now());
        let all = async {
            for relay in &self.relays {
                relay.settled().await;
            }
        };
        if tokio::time::timeout(WITHDRAW_TIMEOUT, all).await.is_err() {
            warn!("not every relay has confirmed the withdrawal: the listing expires by itself");
        }
    }

    /// Publishes now, also after [`Market::withdraw`].
    pub fn publish(&self) {
        self.command(Plan::publish);
    }

    /// Withdraws the listing until [`Market::publish`].
    pub fn withdraw(&self) {
        self.command(Plan::withdraw);
    }

    fn command(&self, command: impl FnOnce(&mut Plan)) {
        let mut inner = self.inner();
        command(&mut inner.plan);
        inner.state.withdrawn = inner.plan.is_withdrawn();
        let state = inner.state;
        drop(inner);
        if let Err(error) = self.file.store(&state) {
            warn!(%error, "cannot store the state of the listing");
        }
        self.relays.iter().for_each(Delivery::retry);
        self.wake.notify_one();
    }

    /// What is published, and where.
    #[must_use]
    pub fn view(&self) -> MarketView {
        let event = self.current.borrow().clone();
        let inner = self.inner();
        let state = match (&inner.published, inner.plan.is_withdrawn()) {
            (_, true) => MarketState::Withdrawn,
            (Some(_), false) => MarketState::Published,
            (None, false) => MarketState::Starting,
        };
        let signed = inner.published.as_ref().map(|(_, at)| *at);
        MarketView {
            state,
            key: self.key.public().to_hex(),
            listing: inner.published.as_ref().map(|(listing, _)| view::json(listing)),
            event: event.as_deref().map(view::json),
            published_at: signed,
            expires_at: signed.map(|at| at + weir_market::event::LIFETIME),
            notes: inner.notes.clone(),
            relays: self.relays.iter().map(|relay| relay.view(event.as_deref())).collect(),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where `weir bench` leaves its result for the listing.
#[must_use]
pub fn capacity_path(config: &Config) -> PathBuf {
    config.node.state_dir.join("bench.json")
}
