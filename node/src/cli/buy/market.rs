//! Exits of the market to buy at.

use anyhow::{Context as _, bail};
use weir_config::{IpType, WebSocketUrl};
use weir_ledger::unix_now;
use weir_market::{
    attestation::WatcherKey,
    event::SignedListing,
    listing::{Country, Price},
    score::{History, Wish, pick},
    view::View,
};

use crate::cli::consumer::Consumer;

/// The number of the best exits of which one is taken at random.
const AMONG: usize = 3;

/// Which exits are looked for.
pub(super) struct Search<'a> {
    pub(super) country: Option<Country>,
    pub(super) key: Option<&'a str>,
    pub(super) ip_type: Option<IpType>,
    pub(super) max_price: Option<Price>,
    /// Keys of exits that are left out.
    pub(super) except: &'a [String],
    /// What this consumer has measured.
    pub(super) known: &'a dyn History,
    pub(super) registries: &'a [WebSocketUrl],
    /// Watchers whose word counts.
    pub(super) watchers: &'a [WatcherKey],
    /// The way to pay.
    pub(super) method: &'a str,
    /// A random number.
    pub(super) random: u64,
}

/// The listings that fit, in the order in which they are tried: one of the best at random, then the best first.
pub(super) fn find(search: &Search<'_>) -> anyhow::Result<Vec<SignedListing>> {
    let consumer = Consumer::read(search.registries, search.watchers, None)?;
    let (connector, settings) = (consumer.connector("weir buy")?, consumer.settings(None));
    let now = unix_now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let view = runtime.block_on(View::fetch(&connector, &settings, now))?;
    if let Some(error) = view.reports.iter().find_map(|report| report.error.as_ref())
        && view.is_empty()
    {
        bail!("no registry has answered: {error}");
    }
    Ok(order(&view, search, now))
}

fn order(view: &View, search: &Search<'_>, now: u64) -> Vec<SignedListing> {
    let wish = Wish {
        country: search.country,
        ip_type: search.ip_type,
        max_price: search.max_price.clone(),
        methods: vec![search.method.to_owned()],
        any_app: search.key.is_none(),
        ..Wish::default()
    };
    let mut scored = view.choose(&wish, search.known, now);
    if let Some(key) = search.key {
        let key = key.to_ascii_lowercase();
        scored.retain(|exit| exit.offer.key().starts_with(&key));
    }
    scored.retain(|exit| !search.except.contains(&exit.offer.key()));
    let first = pick(&scored, AMONG, search.random).map(|exit| exit.offer.key());
    let (first, rest): (Vec<_>, Vec<_>) =
        scored.iter().partition(|exit| Some(exit.offer.key()) == first);
    first.into_iter().chain(rest).map(|exit| exit.offer.signed.clone()).collect()
}

#[cfg(test)]
mod tests {
    use weir_market::{
        event::sign_listing,
        key::MarketKey,
        listing::{Listing, Payment, Reach},
        score::NoHistory,
    };

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn admit(view: &mut View, change: impl FnOnce(&mut Listing)) -> String {
        let key = MarketKey::random();
        let mut listing = weir_market::testing::listing("DE", "100 sat/GiB", 1);
        let url = "https://exit.example/purchase";
        listing.payments = vec![Payment::cashu("https://mint.example", "02aa", url)];
        change(&mut listing);
        view.admit(sign_listing(&key, &listing, NOW, 0), "ws://r", NOW).expect("it counts");
        key.public().to_hex()
    }

    #[test]
    fn exits_that_apps_cannot_reach_or_that_are_elsewhere_or_paid_otherwise_are_left_out() {
        let mut view = View::default();
        let good: Vec<_> = (0..4).map(|_| admit(&mut view, |_| {})).collect();
        admit(&mut view, |it| it.country = "FR".parse().ok());
        admit(&mut view, |it| it.payments = vec![Payment::voucher()]);
        let punch = admit(&mut view, |it| it.reach = Reach::Punch);
        let search = |key, random| Search {
            country: "DE".parse().ok(),
            key,
            ip_type: None,
            max_price: None,
            except: &[],
            known: &NoHistory,
            registries: &[],
            watchers: &[],
            method: "cashu",
            random,
        };
        let found = |search: Search<'_>| {
            let found = order(&view, &search, NOW);
            found.iter().map(|it| it.event.pubkey.to_hex()).collect::<Vec<_>>()
        };
        let mut all = found(search(None, 0));
        let firsts: std::collections::BTreeSet<_> =
            (0..3).map(|random| found(search(None, random))[0].clone()).collect();
        assert_eq!(firsts.len(), 3, "one of the best three");
        all.sort();
        let mut expected = good.clone();
        expected.sort();
        assert_eq!(all, expected);
        assert_eq!(found(search(Some(&good[2][..12]), 0)), [good[2].clone()]);
        // Named, it is not left out in silence: the plan says why.
        assert_eq!(found(search(Some(&punch), 0)), [punch]);
    }
}
