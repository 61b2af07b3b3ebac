//! What a consumer knows of the market: the listings of several registries, verified, and of each
//! exit the newest.
//!
//! A registry can withhold and it can show what is old. It cannot forge. So the union of several is
//! taken, and of each key's listings the one that its key signed last. By default everything is
//! fetched, and choosing is local: no registry learns for which country somebody looks.
//!
//! What watchers say of exits counts only if the consumer names the watcher.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
};

use nostr::event::Event;
use weir_config::WebSocketUrl;

use crate::{
    attestation::WatcherKey,
    client::{Connector, Limits, Query},
    event::{
        ATTESTATION, Address, DELETION, LISTING, MAX_AGE, MAX_AHEAD, MAX_EVENT_BYTES, Refused,
        SignedAttestation, SignedListing, deleted, times,
    },
    listing::State,
    score::{Candidate, History, Scored, Unfit, Wish},
};

mod cache;
mod settings;
#[cfg(test)]
mod tests;

pub use cache::{Cache, CacheError};
pub use settings::{ConsumerPaths, ConsumerSettings, SettingsError, read_settings};

/// How far before the newest listing of a registry a query for changes begins, in seconds: clocks
/// differ, and registries hear of a listing at different times.
const OVERLAP: u64 = MAX_AHEAD;
/// The maximum number of deletions that are kept.
const MAX_DELETIONS: usize = 100_000;
/// The maximum number of exits about which attestations are kept.
const MAX_ATTESTED: usize = 100_000;

/// Where and how listings are fetched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The registries and relays.
    pub registries: Vec<WebSocketUrl>,
    /// The watchers that are believed. Registries are asked for their attestations alone.
    pub watchers: Vec<WatcherKey>,
    /// The directory for what was fetched. `None`: everything is fetched each time.
    pub cache: Option<PathBuf>,
    /// The bounds on what is taken of each registry.
    pub limits: Limits,
}

/// An exit in the market.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its listing, with the event that proves it.
    pub signed: SignedListing,
    /// The registries that have this listing, by their URLs.
    pub registries: BTreeSet<String>,
}

impl Offer {
    /// The key that has signed it, in hex: the exit's name in the market.
    #[must_use]
    pub fn key(&self) -> String {
        self.signed.event.pubkey.to_hex()
    }
}

/// What came of asking one registry.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// Its URL.
    pub registry: String,
    /// The events that it sent.
    pub events: usize,
    /// The bytes of its messages.
    pub bytes: usize,
    /// Events that do not count, by the reason's word.
    pub refused: BTreeMap<&'static str, usize>,
    /// Whether only what is new since the last time was asked for.
    pub changes_only: bool,
    /// Why something is missing, if it is.
    pub error: Option<String>,
}

/// All that is known of the market.
#[derive(Clone, Debug, Default)]
pub struct View {
    offers: BTreeMap<Address, Offer>,
    /// When each was deleted, with the event that says so.
    deletions: HashMap<Address, Event>,
    /// The newest event of each registry, in seconds since 1970.
    newest: BTreeMap<String, u64>,
    /// The watchers that are believed.
    watchers: BTreeSet<WatcherKey>,
    /// What they say of each exit.
    attestations: BTreeMap<Address, BTreeMap<WatcherKey, SignedAttestation>>,
    /// The watchers for whose attestations each registry was asked.
    asked: BTreeMap<String, BTreeSet<WatcherKey>>,
    /// What came of asking each registry.
    pub reports: Vec<Report>,
}

impl View {
    /// The exits.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.offers.values()
    }

    /// The number of exits, sold ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offers.len()
    }

    /// Whether there is no exit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// Reads what was fetched before, or begins with nothing.
    ///
    /// # Errors
    ///
    /// When there is a cache that cannot be read.
    pub fn cached(settings: &Settings, now: u64) -> Result<Self, CacheError> {
        let mut view = match &settings.cache {
            Some(directory) => Cache::new(directory).load(now)?,
            None => Self::default(),
        };
        view.believe(&settings.watchers);
        Ok(view)
    }

    /// Believes these watchers from now on, and no others.
    pub fn believe(&mut self, watchers: &[WatcherKey]) {
        self.watchers = watchers.iter().copied().collect();
        let believed = &self.watchers;
        self.attestations.retain(|_, all| {
            all.retain(|watcher, _| believed.contains(watcher));
            !all.is_empty()
        });
    }

    /// Asks all registries at once for what is new, and keeps it in the cache. A registry that does
    /// not answer is named in [`View::reports`]; the others count.
    ///
    /// # Errors
    ///
    /// When the cache cannot be read or written.
    pub async fn fetch(
        connector: &Connector,
        settings: &Settings,
        now: u64,
    ) -> Result<Self, CacheError> {
        let mut view = Self::cached(settings, now)?;
        let mut asked = Vec::new();
        for url in &settings.registries {
            let name = url.to_string();
            let since = view.newest.get(&name).map_or(0, |at| at.saturating_sub(OVERLAP));
            // What a watcher that is named for the first time said before counts too.
            let knows =
                view.asked.get(&name).is_some_and(|asked| asked.is_superset(&view.watchers));
            let want = Want {
                since,
                attested_since: if knows { since } else { 0 },
                watchers: settings.watchers.clone(),
                limits: settings.limits,
            };
            let (connector, url) = (connector.clone(), url.clone());
            asked.push(tokio::spawn(async move { ask(&connector, &url, &want).await }));
        }
        for (task, url) in asked.into_iter().zip(&settings.registries) {
            let (events, mut report) = task.await.unwrap_or_else(|error| {
                let error = Some(format!("it could not be asked: {error}"));
                (Vec::new(), Report { registry: url.to_string(), error, ..Report::default() })
            });
            view.take(events, &mut report, now);
            view.reports.push(report);
        }
        if let Some(directory) = &settings.cache {
            Cache::new(directory).store(&view)?;
        }
        Ok(view)
    }

    /// Takes what a registry sent.
    fn take(&mut self, events: Vec<Event>, report: &mut Report, now: u64) {
        let mut newest = 0;
        for event in events {
            report.events += 1;
            newest = newest.max(event.created_at.as_secs());
            if let Err(refused) = self.admit(event, &report.registry, now) {
                *report.refused.entry(refused.as_str()).or_default() += 1;
            }
        }
        // Pages begin with the newest: after a failure, older ones may be missing.
        if report.error.is_none() && newest > 0 {
            let known = self.newest.entry(report.registry.clone()).or_default();
            // One that is of the future must not hide those of the present.
            *known = (*known).max(newest.min(now));
        }
        if report.error.is_none() {
            self.asked.insert(report.registry.clone(), self.watchers.clone());
        }
    }

    /// Takes an event of a registry, if it is a listing or a deletion that counts. Of each exit the
    /// newest listing stays; of two of the same second, the one with the lower identifier (NIP-01).
    ///
    /// # Errors
    ///
    /// Says why it does not count.
    pub fn admit(&mut self, event: Event, registry: &str, now: u64) -> Result<(), Refused> {
        match event.kind.as_u16() {
            DELETION => return self.admit_deletion(event, now),
            ATTESTATION => return self.admit_attestation(event, now),
            _ => {}
        }
        let signed = SignedListing::read(event)?;
        let address = signed.address();
        if let Some(known) = self.offers.get_mut(&address) {
            if known.signed.event.id == signed.event.id
                && known.signed.event.sig == signed.event.sig
            {
                known.registries.insert(registry.to_owned());
                return Ok(());
            }
            if !is_newer(&signed.event, &known.signed.event) {
                // Not worth a check of its signature: it changes nothing.
                return times(&signed.event, now);
            }
        }
        if signed.event.as_json().len() > MAX_EVENT_BYTES {
            return Err(Refused::Size);
        }
        signed.verify(now)?;
        if self.is_deleted(&address, &signed.event) {
            return Ok(());
        }
        let registries = BTreeSet::from([registry.to_owned()]);
        self.offers.insert(address, Offer { signed, registries });
        Ok(())
    }

    fn admit_deletion(&mut self, event: Event, now: u64) -> Result<(), Refused> {
        let addresses = deleted(&event).addresses;
        let listings: Vec<_> = addresses.into_iter().filter(|it| it.kind == LISTING).collect();
        let at = event.created_at;
        let is_known = |address: &Address| {
            self.deletions.get(address).is_some_and(|known| known.created_at >= at)
        };
        if listings.iter().all(is_known) {
            return Ok(());
        }
        times(&event, now)?;
        if event.as_json().len() > MAX_EVENT_BYTES {
            return Err(Refused::Size);
        }
        event.verify().map_err(|_| Refused::Signature)?;
        for address in listings {
            if self.deletions.len() >= MAX_DELETIONS && !self.deletions.contains_key(&address) {
                break;
            }
            let has = self.offers.get(&address);
            if has.is_some_and(|offer| offer.signed.event.created_at <= at) {
                self.offers.remove(&address);
            }
            let known = self.deletions.get(&address);
            if known.is_none_or(|known| known.created_at < at) {
                self.deletions.insert(address, event.clone());
            }
        }
        Ok(())
    }

    /// Takes the newest attestation of each believed watcher about each exit.
    fn admit_attestation(&mut self, event: Event, now: u64) -> Result<(), Refused> {
        let signed = SignedAttestation::read(event)?;
        let (watcher, exit) = (signed.watcher(), signed.attestation.exit.clone());
        if !self.watchers.contains(&watcher) {
            return Err(Refused::Watcher);
        }
        let of_exit = self.attestations.get(&exit);
        if let Some(known) = of_exit.and_then(|all| all.get(&watcher))
            && !is_newer(&signed.event, &known.event)
        {
            // As above.
            return signed.times(now);
        }
        if signed.event.as_json().len() > MAX_EVENT_BYTES {
            return Err(Refused::Size);
        }
        signed.verify(now)?;
        if of_exit.is_some() || self.attestations.len() < MAX_ATTESTED {
            self.attestations.entry(exit).or_default().insert(watcher, signed);
        }
        Ok(())
    }

    /// NIP-09: a deletion of an address covers what was created up to its own time.
    fn is_deleted(&self, address: &Address, event: &Event) -> bool {
        let deletion = self.deletions.get(address);
        deletion.is_some_and(|deletion| event.created_at <= deletion.created_at)
    }

    /// Forgets what no longer counts.
    fn forget_expired(&mut self, now: u64) {
        self.offers.retain(|_, offer| times(&offer.signed.event, now).is_ok());
        self.deletions.retain(|_, event| event.created_at.as_secs().saturating_add(MAX_AGE) > now);
        self.attestations.retain(|_, all| {
            all.retain(|_, signed| signed.times(now).is_ok());
            !all.is_empty()
        });
    }

    /// What the believed watchers say of an exit at `now`.
    pub fn attestations<'v>(
        &'v self,
        exit: &Address,
        now: u64,
    ) -> impl Iterator<Item = &'v SignedAttestation> + use<'v> {
        let all = self.attestations.get(exit).into_iter().flat_map(BTreeMap::values);
        all.filter(move |signed| signed.times(now).is_ok())
    }

    /// Whether an exit fits a wish, by its listing and by what believed watchers say.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn fits(&self, offer: &Offer, wish: &Wish, now: u64) -> Result<(), Unfit> {
        let attested: Vec<_> = self.attestations(&offer.signed.address(), now).collect();
        crate::score::fits(&offer.signed.listing, &attested, wish)
    }

    /// The exits that fit a wish, the best first.
    #[must_use]
    pub fn choose(&self, wish: &Wish, history: &dyn History, now: u64) -> Vec<Scored<'_>> {
        let candidates: Vec<_> = self.candidates(now).collect();
        crate::score::choose(&candidates, wish, history)
    }

    /// What scoring looks at.
    pub(crate) fn candidates(&self, now: u64) -> impl Iterator<Item = Candidate<'_>> {
        let networks = self.residential_networks();
        let counts = self.offers.values().filter(move |it| times(&it.signed.event, now).is_ok());
        counts.map(move |offer| {
            let crowd = crate::score::networks(&offer.signed.listing)
                .filter_map(|network| networks.get(&network).map(HashSet::len))
                .max();
            let attested = self.attestations(&offer.signed.address(), now).collect();
            Candidate { offer, neighbours: crowd.unwrap_or(0), attested }
        })
    }

    /// The keys that claim to be residential, by the network (IPv4 /24, IPv6 /48) of an endpoint.
    #[must_use]
    pub fn residential_networks(&self) -> BTreeMap<ipnet::IpNet, HashSet<[u8; 32]>> {
        let mut all: BTreeMap<_, HashSet<_>> = BTreeMap::new();
        for offer in self.offers.values() {
            let listing = &offer.signed.listing;
            if listing.ip_type != weir_config::IpType::Residential || listing.state == State::Sold {
                continue;
            }
            for network in crate::score::networks(listing) {
                all.entry(network).or_default().insert(offer.signed.event.pubkey.to_bytes());
            }
        }
        all
    }
}

/// Whether `one` replaces `other`.
fn is_newer(one: &Event, other: &Event) -> bool {
    one.created_at > other.created_at
        || (one.created_at == other.created_at && one.id.as_bytes() < other.id.as_bytes())
}

/// What one registry is asked for.
struct Want {
    /// The time since which listings and deletions are new.
    since: u64,
    /// The same for attestations.
    attested_since: u64,
    watchers: Vec<WatcherKey>,
    limits: Limits,
}

/// Asks one registry for what is new since a time.
async fn ask(connector: &Connector, url: &WebSocketUrl, want: &Want) -> (Vec<Event>, Report) {
    let mut report =
        Report { registry: url.to_string(), changes_only: want.since > 0, ..Report::default() };
    let mut relay = match connector.connect(url).await {
        Ok(relay) => relay,
        Err(error) => {
            report.error = Some(error.to_string());
            return (Vec::new(), report);
        }
    };
    let mut events = Vec::new();
    let mut queries = vec![(Query::Deletions, want.since), (Query::Listings, want.since)];
    if !want.watchers.is_empty() {
        queries.push((Query::Attestations(&want.watchers), want.attested_since));
    }
    for (query, since) in queries {
        let fetched = relay.fetch(query, since, &want.limits).await;
        report.bytes += fetched.bytes;
        if fetched.malformed > 0 {
            *report.refused.entry(Refused::Form.as_str()).or_default() += fetched.malformed;
        }
        events.extend(fetched.events);
        // Each is worth having without the others.
        report.error = report.error.or(fetched.broken);
    }
    relay.close().await;
    (events, report)
}
