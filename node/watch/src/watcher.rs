//! One measurement, from the purchase to the attestation.

use std::{net::IpAddr, path::Path};

use anyhow::Context as _;
use serde::Serialize;
use weir_buy::{BuyError, Buyer, Funds, Plan, Purchase, Wish};
use weir_config::WebSocketUrl;
use weir_connect::{
    clock,
    conf::Conf,
    inside::Inside,
    link,
    source::{self, Candidate},
    tunnel::Kind,
};
use weir_market::{
    attestation::{Attestation, Reason, Uptime},
    client::Connector,
    event::{Event, SignedListing},
    history::{HistoryFile, Measurement},
    place::Places,
    purchase::Reason as Refused,
};
use weir_wallet::{Wallet, http::Http};

use crate::{
    Targets,
    budget::Budget,
    judge::{self, Bought, Found, Names},
    measure::{Measure, measure},
};

/// The days of a watcher's own measurements that count for an exit's uptime.
const UPTIME_DAYS: u32 = 7;
const DAY: u64 = 24 * 3600;

/// What a watcher has and measures by.
#[derive(Debug)]
pub struct Watcher<'a> {
    /// Pays.
    pub wallet: &'a Wallet,
    /// The wallet's directory.
    pub directory: &'a Path,
    /// What to measure against.
    pub targets: Targets,
    /// The operator's databases of addresses.
    pub places: Places,
    /// Which WireGuard.
    pub kind: Kind,
    /// The unit of the ecash.
    pub unit: String,
    /// The mint; the one of which the wallet has most, if none is named.
    pub mint: Option<String>,
    /// The bytes that are bought. An exit that sells only more is bought more of.
    pub bytes: u64,
    /// What may be spent.
    pub budget: Budget,
    /// The watcher's own measurements.
    pub history: HistoryFile,
}

/// What came of a measurement.
#[derive(Debug)]
pub enum Outcome {
    /// It was measured.
    Watched(Box<Watched>),
    /// It was not, for a reason of the watcher's own.
    Skipped(String),
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Watched {
    /// When, in seconds since 1970: later than the measurement of this exit before.
    pub at: u64,
    /// What is said of it.
    pub attestation: Attestation,
    /// More about a fault, for people.
    pub detail: Option<String>,
    /// Bytes per second to the watcher.
    pub down_bytes_per_second: Option<u64>,
    /// Bytes per second from the watcher.
    pub up_bytes_per_second: Option<u64>,
    /// The address by which the exit's traffic leaves.
    pub address: Option<IpAddr>,
    /// The exit's resolvers.
    pub names: Names,
    /// What was paid, in the unit.
    pub spent: u64,
}

/// Why a measurement ends before the tunnel.
enum Stop {
    /// It is the exit's.
    Fault { reason: Reason, detail: String, spent: u64 },
    /// It is the watcher's own.
    Skip(String),
}

impl Stop {
    fn skip(error: impl std::fmt::Display) -> Self {
        Self::Skip(error.to_string())
    }

    fn fault(reason: Reason, detail: impl std::fmt::Display) -> Self {
        Self::Fault { reason, detail: detail.to_string(), spent: 0 }
    }
}

impl Watcher<'_> {
    /// Buys at an exit, measures, and remembers it, as of `now` (seconds since 1970), or as of the second
    /// after the last measurement of this exit, if that is later.
    ///
    /// # Errors
    ///
    /// When something of this machine fails.
    pub async fn watch(&self, signed: &SignedListing, now: u64) -> anyhow::Result<Outcome> {
        let key = signed.event.pubkey.to_hex();
        let last = self.history.load()?.of(&key).last().map(|measurement| measurement.at);
        // Of two events of one second, a relay keeps the one with the lower id (NIP-01).
        let now = last.map_or(now, |last| now.max(last.saturating_add(1)));
        let targets = self.targets.resolve().await?;
        if let Err(error) = targets.check_own_line().await {
            return Ok(Outcome::Skipped(format!("{error:#}")));
        }
        let bought = match self.buy(signed, now).await {
            Ok(bought) => bought,
            Err(Stop::Skip(why)) => return Ok(Outcome::Skipped(why)),
            Err(Stop::Fault { reason, detail, spent }) => {
                let uptime = self.remember(&key, reason, &Found::default(), now)?;
                let attestation =
                    Attestation { uptime, ..Attestation::new(signed.address(), reason) };
                return Ok(Outcome::Watched(Box::new(Watched {
                    at: now,
                    attestation,
                    detail: Some(detail),
                    down_bytes_per_second: None,
                    up_bytes_per_second: None,
                    address: None,
                    names: Names::NotAsked,
                    spent,
                })));
            }
        };
        let handle = link::netlink().context("cannot open netlink")?;
        let began = clock::now();
        let inside = Inside::open(&handle, &bought.candidate, self.kind).await?;
        let found = measure(
            &inside,
            Measure {
                conf: &bought.candidate.conf,
                targets: &targets,
                places: &self.places,
                max_bytes: bought.account.credited.unwrap_or(bought.account.due),
                began,
            },
        );
        inside.stop(&handle).await?;
        let found = found?;
        let reason = judge::reason(&signed.listing, bought.account, &found);
        // A line that has just gone down would look like the exit's fault.
        if !reason.is_ok()
            && let Err(error) = targets.check_own_line().await
        {
            return Ok(Outcome::Skipped(format!("{error:#}")));
        }
        let uptime = self.remember(&key, reason, &found, now)?;
        let attestation =
            judge::attest(signed.address(), &signed.listing, bought.account, &found, uptime);
        Ok(Outcome::Watched(Box::new(Watched {
            at: now,
            attestation,
            detail: None,
            down_bytes_per_second: found.down,
            up_bytes_per_second: found.up,
            address: found.address,
            names: found.names,
            spent: bought.spent,
        })))
    }

    /// Remembers a measurement, and says how often the exit was good lately.
    fn remember(
        &self,
        key: &str,
        reason: Reason,
        found: &Found,
        now: u64,
    ) -> anyhow::Result<Option<Uptime>> {
        let measurement = Measurement {
            at: now,
            failure: (!reason.is_ok()).then_some(reason),
            connect_ms: found.handshake_ms,
            ..Measurement::default()
        };
        let all = self.history.record(key, measurement, now)?;
        let since = now.saturating_sub(u64::from(UPTIME_DAYS) * DAY);
        Ok(all.share_good(key, since).map(|share| Uptime { share, days: UPTIME_DAYS }))
    }

    /// Buys as a consumer does.
    async fn buy(&self, signed: &SignedListing, now: u64) -> Result<Session, Stop> {
        let plan = self.plan(signed, self.bytes)?;
        let info = weir_buy::info(&Http::default(), &plan.url).await;
        let info = info.map_err(|why| Stop::fault(Reason::NoSeller, why))?;
        // An exit may sell nothing as small as what is wanted.
        let due = self.bytes.max(info.min_bytes.unwrap_or(0));
        let plan = if due > self.bytes { self.plan(signed, due)? } else { plan };
        self.budget.take(plan.cost(), now).map_err(Stop::skip)?;
        let buyer = Buyer::new(self.wallet, self.directory, Http::default());
        let bought = buyer.buy(&plan).await.map_err(|error| blame(error, plan.cost()))?;
        // From here on it was paid.
        let not_sold = |error: &dyn std::fmt::Display| Stop::Fault {
            reason: Reason::PaidNotSold,
            detail: error.to_string(),
            spent: bought.spent,
        };
        let conf = Conf::parse(&bought.config.to_text()).map_err(|error| not_sold(&error))?;
        let endpoint = source::resolve(&conf.endpoint).map_err(|error| Stop::Fault {
            reason: Reason::NoHandshake,
            detail: format!("{error:#}"),
            spent: bought.spent,
        })?;
        let Purchase { id, exit, bytes, spent, .. } = bought;
        // It is used once, and now.
        buyer.shown(&id).map_err(Stop::skip)?;
        let candidate = Candidate { name: exit.clone(), exit: Some(exit), conf, endpoint };
        Ok(Session { candidate, account: Bought { due, credited: bytes }, spent })
    }

    fn plan(&self, signed: &SignedListing, bytes: u64) -> Result<Plan, Stop> {
        let funds = self.wallet.balances().map_err(Stop::skip)?.into_iter();
        let funds: Vec<_> =
            funds.map(|it| Funds { mint: it.mint, unit: it.unit, balance: it.balance }).collect();
        let (wish, mint) = (Wish::Bytes(bytes), self.mint.as_deref());
        Plan::with_ecash(signed, wish, &self.unit, &funds, mint).map_err(Stop::skip)
    }
}

/// A session that was bought.
struct Session {
    candidate: Candidate,
    account: Bought,
    spent: u64,
}

/// Whose fault it is that nothing was bought.
fn blame(error: BuyError, cost: u64) -> Stop {
    let detail = error.to_string();
    let fault = |reason, spent| Stop::Fault { reason, detail: detail.clone(), spent };
    match error {
        BuyError::Unreachable(_) | BuyError::AnotherExit(_) => fault(Reason::NoSeller, 0),
        BuyError::Unanswered(_) | BuyError::Config(_) => fault(Reason::PaidNotSold, cost),
        BuyError::Refused { reason, .. } => match reason {
            // Full, or asked too often: so it would be for anybody.
            Refused::NoIpAvailable
            | Refused::RateLimited
            | Refused::BelowMinPurchase
            | Refused::AboveMaxPurchase => Stop::Skip(detail),
            _ => fault(Reason::Refused, 0),
        },
        BuyError::CannotBuy(_)
        | BuyError::Wallet(_)
        | BuyError::Record(_)
        | BuyError::Damaged(_) => Stop::Skip(detail),
    }
}

/// What a registry says to an attestation.
#[derive(Clone, Debug, Serialize)]
pub struct Published {
    /// Its URL.
    pub registry: String,
    /// Whether it has the attestation now.
    pub is_stored: bool,
    /// Its reason, or why it was not reached.
    pub answer: String,
}

impl Published {
    /// Publishes an event at each of these registries.
    pub async fn at_all(
        connector: &Connector,
        registries: &[WebSocketUrl],
        event: &Event,
    ) -> Vec<Self> {
        let mut all = Vec::with_capacity(registries.len());
        for url in registries {
            let (is_stored, answer) = match connector.connect(url).await {
                Err(error) => (false, error.to_string()),
                Ok(mut relay) => {
                    let said = relay.publish(event).await;
                    relay.close().await;
                    match said {
                        Ok(said) => (said.accepted, said.reason),
                        Err(error) => (false, error.to_string()),
                    }
                }
            };
            all.push(Self { registry: url.to_string(), is_stored, answer });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(error: BuyError) -> Option<(&'static str, u64)> {
        match blame(error, 8) {
            Stop::Fault { reason, spent, .. } => Some((reason.as_str(), spent)),
            Stop::Skip(_) => None,
        }
    }

    #[test]
    fn only_the_exits_own_faults_are_its_faults() {
        let refused = |reason| {
            let (message, token) = (String::new(), String::new());
            word(BuyError::Refused { reason, message, token })
        };
        assert_eq!(word(BuyError::Unreachable(String::new())), Some(("no-seller", 0)));
        assert_eq!(word(BuyError::AnotherExit(String::new())), Some(("no-seller", 0)));
        assert_eq!(word(BuyError::Unanswered(String::new())), Some(("paid-not-sold", 8)));
        assert_eq!(refused(Refused::WrongMint), Some(("refused", 0)));
        assert_eq!(refused(Refused::NoIpAvailable), None);
        assert_eq!(word(BuyError::CannotBuy(weir_buy::CannotBuy::Sold)), None);
    }
}
