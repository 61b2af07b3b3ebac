//! Who is sold what.

use std::{sync::Arc, time::Duration};

use weir_config::{Config, Shared};
use weir_ledger::{unix_now, vouchers::Code};
use weir_market::{
    key::MarketKey,
    listing::{Amount, Price, Unit},
    purchase::{
        Authorization, Expected, Info, InfoPrice, Order, Payment, Reason, Refusal, Region,
        SPEC_VERSION, Sold, WireGuard, letter::OpenedOrder,
    },
};
use weir_sessions::{
    Hold, Snapshot,
    registry::{Sale, Sessions},
    wg_quick::{self, PeerTemplate},
};
use weir_wireguard::keys;

use super::{counts::Counts, counts::Way, refusal, url};
use crate::{
    connections::Network,
    ecash::{Cashu, Terms},
    gateway::allowance::Allowance,
};

/// Authorizations whose signature is checked, of each source: per second, and at once.
const SIGNATURES_PER_SECOND: u32 = 5;
const SIGNATURES_BURST: u32 = 20;
/// The same of all sources together: a tenth of a core.
const ALL_SIGNATURES_PER_SECOND: u32 = 500;
const ALL_SIGNATURES_BURST: u32 = 1000;
/// Payments of each source that may be refused at once, and the time after which another may be.
const MAX_REFUSED: u32 = 10;
const REFUSED_EVERY: Duration = Duration::from_secs(6);
/// The same of all sources together.
const MAX_ALL_REFUSED: u32 = 200;
const ALL_REFUSED_EVERY: Duration = Duration::from_millis(50);

/// Of all letters together, which come from nobody in particular: per second, and at once.
const LETTERS_REFUSED_PER_SECOND: u32 = 5;
const MAX_LETTERS_REFUSED: u32 = 100;

/// Whose order it is, for limits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// All buyers that ask from this network.
    Network(Network),
    /// All senders of sealed letters.
    Letters,
}

/// Sells sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    inner: Arc<Inner>,
    pub(super) counts: Counts,
}

#[derive(Debug)]
struct Inner {
    key: MarketKey,
    server_names: Vec<String>,
    sessions: Arc<Sessions>,
    template: Shared<PeerTemplate>,
    cashu: Option<Arc<Cashu>>,
    vouchers: bool,
    terms: Terms,
    /// Where buyers reach the listener.
    urls: Vec<String>,
    signatures: Allowance<Network>,
    all_signatures: Allowance<()>,
    refused: Refusals,
    letter_names: Vec<String>,
}

impl Shop {
    pub(super) fn new(
        config: &Config,
        key: MarketKey,
        sessions: &Arc<Sessions>,
        template: &Shared<PeerTemplate>,
        cashu: Option<&Arc<Cashu>>,
    ) -> Self {
        let settings = &config.purchase;
        let days = u64::from(settings.valid_days);
        let inner = Inner {
            letter_names: vec![key.public().to_hex()],
            key,
            server_names: settings.server_names.clone(),
            sessions: Arc::clone(sessions),
            template: template.clone(),
            cashu: cashu.cloned(),
            vouchers: config.voucher.enabled,
            terms: Terms {
                min: u64::from(settings.min_mib) << 20,
                max: u64::from(settings.max_mib) << 20,
                seconds: (days > 0).then_some(days * 86_400),
            },
            urls: settings
                .server_names
                .iter()
                .filter_map(|it| url::of_name(settings, it))
                .collect(),
            signatures: Allowance::new(SIGNATURES_PER_SECOND, SIGNATURES_BURST),
            all_signatures: Allowance::new(ALL_SIGNATURES_PER_SECOND, ALL_SIGNATURES_BURST),
            refused: Refusals::new(),
        };
        Self { inner: Arc::new(inner), counts: Counts::default() }
    }

    /// What the exit says about itself.
    pub(super) fn info(&self) -> Info {
        let inner = &self.inner;
        let template = inner.template.get();
        let prices = inner.price().into_iter().filter_map(|price| {
            let amount = price.amount.to_string().parse().ok()?;
            let (currency, unit) =
                (price.currency.as_str().to_owned(), price.unit.as_str().to_owned());
            Some(InfoPrice { amount, currency, unit })
        });
        let methods = [("cashu", inner.cashu.is_some()), ("voucher", inner.vouchers)];
        let methods = methods.into_iter().filter(|(_, is_taken)| *is_taken);
        let urls = inner.urls.iter().filter(|_| inner.cashu.is_some());
        let mints = inner.cashu.iter().flat_map(|cashu| cashu.mints());
        Info {
            software: "weir".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            pubkey: inner.key.public().to_hex(),
            endpoint: inner.server_names.first().cloned().unwrap_or_default(),
            title: "weir exit".to_owned(),
            protocols: vec!["wireguard".to_owned()],
            region: Region::default(),
            prices: prices.collect(),
            policies: Vec::new(),
            payment_methods: methods.map(|(name, _)| name.to_owned()).collect(),
            mints: mints.map(str::to_owned).collect(),
            cashu_purchase_endpoints: urls.cloned().collect(),
            p2pk: inner.cashu.as_ref().map(|cashu| cashu.lock()),
            min_bytes: Some(inner.terms.min),
            max_bytes: Some(inner.terms.max),
            wireguard: Some(WireGuard {
                public_key: keys::print_public(&template.node_key),
                endpoint: template.endpoint.clone(),
            }),
        }
    }

    /// What an authorization must say for this payment, so that it costs no signature.
    pub(super) fn check(
        &self,
        authorization: &Authorization,
        payment: &Payment,
    ) -> Result<(), Refusal> {
        self.expect(&self.inner.server_names, payment, |expected| authorization.check(expected))
    }

    /// The same for an order in a letter.
    pub(super) fn check_letter(
        &self,
        order: &OpenedOrder,
        payment: &Payment,
    ) -> Result<(), Refusal> {
        self.expect(&self.inner.letter_names, payment, |expected| order.check(expected))
    }

    fn expect<T>(
        &self,
        servers: &[String],
        payment: &Payment,
        check: impl FnOnce(&Expected<'_>) -> T,
    ) -> T {
        let price = self.inner.price().filter(|_| matches!(payment, Payment::Token(_)));
        let (exit, now) = (self.inner.key.public(), unix_now());
        check(&Expected { servers, exit, prices: price.as_slice(), now })
    }

    /// The key of the listing, to which letters are addressed.
    pub(super) fn key(&self) -> &MarketKey {
        &self.inner.key
    }

    /// Checks the signature of an authorization, if its source may ask that again.
    pub(super) async fn verify(
        &self,
        source: Network,
        authorization: Authorization,
    ) -> Result<(), Refusal> {
        let too_often = || {
            let what = "too many requests from this network: wait some seconds";
            Refusal::new(Reason::RateLimited, what)
        };
        if !self.inner.signatures.take(source) {
            return Err(too_often());
        }
        if !self.inner.all_signatures.take(()) {
            return Err(Refusal::new(Reason::RateLimited, "the exit is busy: wait some seconds"));
        }
        off_thread(move || authorization.verify()).await?
    }

    /// Sells a session. Goes on when the buyer hangs up, so that the same order finds it.
    pub(super) async fn sell(
        &self,
        way: Way,
        source: Source,
        order: Order,
    ) -> Result<Sold, Refusal> {
        // Taken before anything is looked at, and given back if the payment is good.
        let inner = Arc::clone(&self.inner);
        if !inner.refused.take(source) {
            let what = "too many payments were refused: wait some minutes";
            return Err(Refusal::new(Reason::RateLimited, what));
        }
        let counts = self.counts.clone();
        let sale = async move {
            let sold = inner.sell(order).await;
            let is_ours = |refusal: &Refusal| refusal.status >= 500;
            if sold.as_ref().map_or_else(is_ours, |_| true) {
                inner.refused.give_back(source);
            }
            let (snapshot, is_repeated) = sold?;
            counts.sold(way, is_repeated);
            let session = &snapshot.session;
            if !is_repeated {
                tracing::info!(session = %session.id, slot = session.slot.0, way = way.as_str(), "session sold");
            }
            Ok(inner.delivered(&snapshot))
        };
        tokio::spawn(sale).await.map_err(|_| broken())?
    }
}

impl Inner {
    /// The price of ecash now: a reload may change it.
    fn price(&self) -> Option<Price> {
        let (amount, unit) = self.cashu.as_ref()?.price();
        let amount = Amount::whole(amount.into())?;
        Some(Price { amount, currency: unit.parse().ok()?, unit: Unit::GiB })
    }

    async fn sell(&self, order: Order) -> Result<(Snapshot, bool), Refusal> {
        let Order { client_key, payment } = order;
        if self.sessions.held() == Some(Hold::Schedule) {
            let what = "the exit is closed at this time of the week: nothing was taken";
            return Err(Refusal::new(Reason::Policy, what));
        }
        match payment {
            Payment::Token(token) => {
                let cashu = self.cashu.as_ref().ok_or_else(|| {
                    Refusal::new(Reason::WrongMint, "this exit takes no ecash: see /info")
                })?;
                let sold = cashu.sell(client_key, &token, self.terms).await;
                sold.map_err(refusal::not_sold)
            }
            Payment::Voucher(code) => {
                let unknown =
                    || Refusal::new(Reason::InvalidVoucher, "this is not a voucher of this exit");
                let code = Code::parse(&code).filter(|_| self.vouchers).ok_or_else(unknown)?;
                let (sessions, seconds) = (Arc::clone(&self.sessions), self.terms.seconds);
                let sale =
                    off_thread(move || sessions.sell_for_voucher(client_key, seconds, &code));
                match sale.await?.map_err(refusal::of_session)? {
                    Sale::Sold(snapshot) | Sale::Held(snapshot, _) => Ok((snapshot, false)),
                    Sale::Before(snapshot) => Ok((snapshot, true)),
                    Sale::HeldBefore => Err(broken()),
                    Sale::Spent => {
                        Err(refusal::of_voucher(weir_ledger::vouchers::VoucherUse::Used))
                    }
                    Sale::Refused(refused) => Err(refusal::of_voucher(refused)),
                }
            }
        }
    }

    fn delivered(&self, snapshot: &Snapshot) -> Sold {
        let (template, signer) = (self.template.get(), self.sessions.signer());
        let config = wg_quick::config(&template, snapshot, signer, None, None);
        let seconds = snapshot.credit.seconds;
        Sold {
            config: config.as_str().to_owned(),
            expires_at: seconds.map(|seconds| snapshot.session.created.saturating_add(seconds)),
            bytes: snapshot.credit.bytes,
        }
    }
}

/// How many payments may be refused.
#[derive(Debug)]
struct Refusals {
    of_network: Allowance<Network>,
    of_all_networks: Allowance<()>,
    of_letters: Allowance<()>,
}

impl Refusals {
    fn new() -> Self {
        Self {
            of_network: Allowance::every(REFUSED_EVERY, MAX_REFUSED),
            of_all_networks: Allowance::every(ALL_REFUSED_EVERY, MAX_ALL_REFUSED),
            of_letters: Allowance::new(LETTERS_REFUSED_PER_SECOND, MAX_LETTERS_REFUSED),
        }
    }

    fn take(&self, source: Source) -> bool {
        match source {
            Source::Network(network) => {
                self.of_network.take(network) && self.of_all_networks.take(())
            }
            Source::Letters => self.of_letters.take(()),
        }
    }

    fn give_back(&self, source: Source) {
        match source {
            Source::Network(network) => {
                self.of_network.give_back(&network);
                self.of_all_networks.give_back(&());
            }
            Source::Letters => self.of_letters.give_back(&()),
        }
    }
}

fn broken() -> Refusal {
    let what = "the exit could not complete the request: send the same again";
    Refusal::new(Reason::Unavailable, what)
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| broken())
}
