//! Whether and how something is bought of a listing.

use weir_config::HttpUrl;
use weir_market::{
    event::SignedListing,
    listing::{Listing, Price, Reach, State, Unit},
};
use weir_wallet::Amount;

/// Bytes of the unit in which traffic is priced.
const GIB: u128 = 1 << 30;
/// An amount of 1 in the parts of [`weir_market::listing::Amount`].
const DECIMALS: usize = 18;

/// How much is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Billed bytes, up and down together.
    Bytes(u64),
    /// What this many units of money buy.
    Spend(u64),
}

/// What a buyer has at a mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Funds {
    /// The mint.
    pub mint: String,
    /// The unit.
    pub unit: String,
    /// What can be spent.
    pub balance: u64,
}

/// How something is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pay {
    /// With ecash, locked to the exit's key.
    Ecash {
        /// The mint.
        mint: String,
        /// The unit.
        unit: String,
        /// The exit's key.
        lock: String,
        /// How much.
        amount: Amount,
    },
    /// With a voucher's code.
    Voucher(String),
}

/// What is bought, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The key that signs the listing, in hex.
    pub exit: String,
    /// The listing's identifier.
    pub listing: String,
    /// The country that the listing names.
    pub country: Option<String>,
    /// Where the exit sells.
    pub url: HttpUrl,
    /// The price that the buyer expects.
    pub price: Option<Price>,
    /// What is paid.
    pub pay: Pay,
}

/// Why nothing can be bought of a listing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotBuy {
    /// It is full, or its quota is used up.
    #[error("the exit is sold out")]
    Sold,
    /// There is no address to buy at.
    #[error(
        "the exit names no address at which it sells (its reach is {0}): only weir connect can use it"
    )]
    NoEndpoint(&'static str),
    /// WireGuard apps cannot reach it.
    #[error(
        "the exit is reached by a handshake that it starts too, which WireGuard apps cannot do"
    )]
    Punch,
    /// It takes none of the buyer's ecash.
    #[error(
        "the exit takes ecash of {mints}, of which the wallet has none. Fix: weir wallet receive --trust-mint TOKEN, \
         with ecash of such a mint"
    )]
    NoFunds {
        /// The mints, as words.
        mints: String,
    },
    /// The buyer has too little.
    #[error(
        "it costs {need} {unit}, and the wallet has {have} {unit} of mints that the exit takes. Fix: weir wallet \
         receive TOKEN"
    )]
    TooLittle {
        /// What it costs.
        need: u64,
        /// What the wallet has.
        have: u64,
        /// The unit.
        unit: String,
    },
    /// It has no price for what is wanted.
    #[error("the exit has no price for traffic in {0}. Fix: say what to spend with --amount")]
    NoPrice(String),
    /// The wish is nothing, or more than anybody can pay.
    #[error("there is nothing to buy for that")]
    Nothing,
    /// It takes no vouchers.
    #[error("the exit takes no vouchers")]
    NoVouchers,
    /// Others on the way could read the voucher.
    #[error(
        "the exit sells without TLS, and anyone on the way could use the voucher: buy with ecash"
    )]
    NotSecure,
}

/// A way to pay with ecash that a listing names.
struct Ecash<'a> {
    mint: String,
    lock: &'a str,
    url: HttpUrl,
}

fn ecash(listing: &Listing) -> impl Iterator<Item = Ecash<'_>> {
    listing.payments.iter().filter_map(|payment| match payment.words() {
        [method, mint, lock, url, ..] if method == "cashu" => {
            Some(Ecash { mint: weir_ecash::mint_url(mint)?, lock, url: url.parse().ok()? })
        }
        _ => None,
    })
}

impl Plan {
    /// Whether this listing sells to somebody who has these funds.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn with_ecash(
        signed: &SignedListing,
        wish: Wish,
        unit: &str,
        funds: &[Funds],
        mint: Option<&str>,
    ) -> Result<Self, CannotBuy> {
        let listing = &signed.listing;
        sells(listing)?;
        let ways: Vec<_> = ecash(listing)
            .filter(|way| {
                mint.is_none_or(|mint| weir_ecash::mint_url(mint).as_ref() == Some(&way.mint))
            })
            .collect();
        if ways.is_empty() && ecash(listing).next().is_none() {
            return Err(no_endpoint(listing));
        }
        let have = |way: &Ecash<'_>| {
            let found = funds.iter().find(|it| it.mint == way.mint && it.unit == unit);
            found.map_or(0, |funds| funds.balance)
        };
        let richest = ways.iter().max_by_key(|way| have(way)).filter(|way| have(way) > 0);
        let way = richest.ok_or_else(|| CannotBuy::NoFunds {
            mints: ecash(listing).map(|way| way.mint).collect::<Vec<_>>().join(", "),
        })?;
        let (amount, price) = amount(listing, wish, unit)?;
        let (need, have) = (units(amount), have(way));
        if need == 0 {
            return Err(CannotBuy::Nothing);
        }
        if need > have {
            return Err(CannotBuy::TooLittle { need, have, unit: unit.to_owned() });
        }
        let pay = Pay::Ecash {
            mint: way.mint.clone(),
            unit: unit.to_owned(),
            lock: way.lock.to_owned(),
            amount,
        };
        Ok(Self::new(signed, way.url.clone(), price, pay))
    }

    /// Whether this listing sells for a voucher.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn with_voucher(signed: &SignedListing, code: &str) -> Result<Self, CannotBuy> {
        let listing = &signed.listing;
        sells(listing)?;
        if !listing.payments.iter().any(|payment| payment.method() == "voucher") {
            return Err(CannotBuy::NoVouchers);
        }
        let way = ecash(listing).next().ok_or_else(|| no_endpoint(listing))?;
        if !way.url.is_secure() && !is_own(way.url.host()) {
            return Err(CannotBuy::NotSecure);
        }
        // Exits look at the price whatever pays.
        let price = listing.prices.first().cloned();
        Ok(Self::new(signed, way.url, price, Pay::Voucher(code.trim().to_owned())))
    }

    fn new(signed: &SignedListing, url: HttpUrl, price: Option<Price>, pay: Pay) -> Self {
        let (exit, listing) = (signed.event.pubkey.to_hex(), signed.listing.id.clone());
        let country = signed.listing.country.map(|country| country.to_string());
        Self { exit, listing, country, url, price, pay }
    }

    /// What is paid, in the unit. A voucher costs nothing now.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match &self.pay {
            Pay::Ecash { amount, .. } => units(*amount),
            Pay::Voucher(_) => 0,
        }
    }
}

fn sells(listing: &Listing) -> Result<(), CannotBuy> {
    match (listing.state, listing.reach) {
        (State::Sold, _) => Err(CannotBuy::Sold),
        (_, Reach::Punch) => Err(CannotBuy::Punch),
        _ => Ok(()),
    }
}

fn no_endpoint(listing: &Listing) -> CannotBuy {
    CannotBuy::NoEndpoint(listing.reach.as_str())
}

/// Whether a host is this machine or one of a private network.
fn is_own(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(std::net::IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(std::net::IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => false,
    }
}

fn units(amount: Amount) -> u64 {
    match amount {
        Amount::Exactly(units) | Amount::Worth(units) => units,
    }
}

/// What is paid for a wish, and by which price.
fn amount(listing: &Listing, wish: Wish, unit: &str) -> Result<(Amount, Option<Price>), CannotBuy> {
    let is_ours = |price: &&Price| {
        price.in_base().is_some_and(|base| base.currency.as_str().eq_ignore_ascii_case(unit))
    };
    let of_traffic = |price: &&Price| {
        price.in_base().is_some_and(|base| base.unit == Unit::GiB) && is_ours(price)
    };
    let found = listing.prices.iter().find(of_traffic);
    match wish {
        Wish::Spend(units) => {
            let any = found.or_else(|| listing.prices.iter().find(is_ours));
            let any = any.ok_or_else(|| CannotBuy::NoPrice(unit.to_owned()))?;
            Ok((Amount::Exactly(units), Some(any.clone())))
        }
        Wish::Bytes(bytes) => {
            let price = found.ok_or_else(|| CannotBuy::NoPrice(unit.to_owned()))?;
            let base = price.in_base().ok_or(CannotBuy::Nothing)?;
            let atto = atto(&base).ok_or(CannotBuy::Nothing)?;
            let cost = atto.checked_mul(bytes.into()).ok_or(CannotBuy::Nothing)?;
            let cost = cost.div_ceil(GIB * 10_u128.pow(DECIMALS as u32));
            let cost = u64::try_from(cost).map_err(|_| CannotBuy::Nothing)?;
            Ok((Amount::Worth(cost), Some(price.clone())))
        }
    }
}

/// A price's amount in parts of 10^-18.
fn atto(price: &Price) -> Option<u128> {
    let text = price.amount.to_string();
    let (whole, parts) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{parts:0<DECIMALS$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use weir_market::{event::sign_listing, key::MarketKey, listing::Payment, testing};

    use super::*;

    const MINT: &str = "https://mint.example";
    const URL: &str = "https://exit.example/purchase";

    fn signed(change: impl FnOnce(&mut Listing)) -> SignedListing {
        let mut listing = testing::listing("DE", "100.5 sat/GiB", 1);
        listing.payments = vec![Payment::cashu(MINT, "02aa", URL), Payment::voucher()];
        change(&mut listing);
        let event = sign_listing(&MarketKey::random(), &listing, 1_800_000_000, 0);
        SignedListing::read(event).expect("a listing")
    }

    fn funds(balance: u64) -> Vec<Funds> {
        vec![Funds { mint: MINT.into(), unit: "sat".into(), balance }]
    }

    fn plan(signed: &SignedListing, wish: Wish, balance: u64) -> Result<Plan, CannotBuy> {
        Plan::with_ecash(signed, wish, "sat", &funds(balance), None)
    }

    #[test]
    fn traffic_costs_its_price_rounded_up_and_money_buys_what_it_buys() {
        let listing = signed(|_| {});
        for (bytes, cost) in [(1 << 30, 101), (2 << 30, 201), (1 << 20, 1), (10 << 30, 1005)] {
            let plan = plan(&listing, Wish::Bytes(bytes), 2000).expect("a plan");
            assert_eq!((plan.cost(), plan.url.host()), (cost, "exit.example"));
        }
        let plan = plan(&listing, Wish::Spend(7), 2000).expect("a plan");
        let Pay::Ecash { amount, lock, .. } = plan.pay else { panic!("no ecash") };
        assert_eq!((amount, lock.as_str()), (Amount::Exactly(7), "02aa"));
        assert!(plan.price.is_some_and(|price| price.to_string() == "100.5 sat/GiB"));
    }

    #[test]
    fn why_nothing_can_be_bought_is_named() {
        let wish = Wish::Bytes(1 << 30);
        let refused = |change: fn(&mut Listing)| plan(&signed(change), wish, 50).expect_err("none");
        let need = CannotBuy::TooLittle { need: 101, have: 50, unit: "sat".into() };
        assert_eq!(refused(|_| {}), need);
        assert_eq!(refused(|it| it.state = State::Sold), CannotBuy::Sold);
        assert_eq!(refused(|it| it.reach = Reach::Punch), CannotBuy::Punch);
        let none = refused(|it| it.payments = vec![Payment::voucher()]);
        assert_eq!(none, CannotBuy::NoEndpoint("direct"));
        let other = |it: &mut Listing| {
            it.payments = vec![Payment::cashu("https://other.example", "02aa", URL)];
        };
        let mints = "https://other.example".to_owned();
        assert_eq!(refused(other), CannotBuy::NoFunds { mints });
        let hours = |it: &mut Listing| it.prices = vec!["3 sat/hour".parse().expect("a price")];
        assert_eq!(refused(hours), CannotBuy::NoPrice("sat".into()));
        assert!(plan(&signed(hours), Wish::Spend(9), 50).is_ok());
        assert_eq!(plan(&signed(|_| {}), Wish::Bytes(0), 50), Err(CannotBuy::Nothing));
        let limit = plan(&signed(|_| {}), Wish::Bytes(u64::MAX), u64::MAX);
        assert!(limit.is_err() || limit.is_ok_and(|plan| plan.cost() > 1 << 40));
    }

    #[test]
    fn a_voucher_goes_only_where_nobody_reads_it_on_the_way() {
        let plan = Plan::with_voucher(&signed(|_| {}), " CODE\n").expect("a plan");
        assert_eq!((plan.pay, plan.url.is_secure()), (Pay::Voucher("CODE".into()), true));
        let open = |url: &'static str| {
            let listing = signed(|it| {
                it.payments = vec![Payment::cashu(MINT, "02aa", url), Payment::voucher()];
            });
            Plan::with_voucher(&listing, "CODE").map(drop)
        };
        assert_eq!(open("http://exit.example/purchase"), Err(CannotBuy::NotSecure));
        assert_eq!(open("http://10.1.2.3:8080/purchase"), Ok(()));
        let none = signed(|it| it.payments.truncate(1));
        assert_eq!(Plan::with_voucher(&none, "CODE"), Err(CannotBuy::NoVouchers));
    }
}
