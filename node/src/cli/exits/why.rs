//! Why an exit has its score.

use std::fmt::Write as _;

use anyhow::bail;
use weir_market::{
    attestation::Reason,
    event::SignedAttestation,
    history::{Measurement, Measurements},
    score::{Part, Wish},
    view::View,
};

use super::{SHORT_KEY, exit_view};
use crate::cli::{out::Out, units};

/// The own connections that are explained.
const MAX_OWN: usize = 5;
/// The least digits that name a key.
const MIN_KEY: usize = 4;

/// Explains exits.
pub(super) struct Why<'a> {
    pub(super) view: &'a View,
    pub(super) known: &'a Measurements,
    pub(super) wish: &'a Wish,
    pub(super) now: u64,
}

impl Why<'_> {
    pub(super) fn explain(&self, key: &str, json: bool, out: &mut Out) -> anyhow::Result<()> {
        let Self { view, known, wish, now } = *self;
        if key.len() < MIN_KEY {
            bail!("{key:?} is too short: write four or more digits of the key");
        }
        let named: Vec<_> = view.offers().filter(|offer| offer.key().starts_with(key)).collect();
        let offer = match named[..] {
            [] => bail!("no exit has a key that begins with {key}"),
            [one] => one,
            [_, _, ..] => {
                bail!("{} exits have keys that begin with {key}: write more", named.len())
            }
        };
        let listing = &offer.signed.listing;
        let fit = view.fits(offer, wish, now);
        // Compared with those that fit, whether it does or not.
        let wide = Wish { max_price: wish.max_price.clone(), sold_too: true, ..Wish::default() };
        let wide = if fit.is_ok() { wish.clone() } else { wide };
        let all = view.choose(&wide, known, now);
        let scored = all.iter().find(|scored| scored.offer.key() == offer.key());
        if json {
            return out.json(&scored.map(|scored| exit_view(view, scored, now)));
        }
        let mut text = String::new();
        let title = if listing.title.is_empty() { "without a title" } else { &listing.title };
        writeln!(text, "{}  {title}", offer.key())?;
        match fit {
            Ok(()) => {
                let rank = all.iter().position(|it| it.offer.key() == offer.key());
                let rank = rank.map_or(0, |at| at + 1);
                writeln!(text, "It fits, and is number {rank} of {}.", all.len())?;
            }
            Err(unfit) => writeln!(text, "It does not fit: {unfit}.")?,
        }
        let expires = units::span(offer.signed.expires().saturating_sub(now));
        let registries: Vec<_> = offer.registries.iter().map(String::as_str).collect();
        writeln!(text, "Its listing counts for {expires}. From: {}", registries.join(", "))?;
        if let Some(scored) = scored {
            for Part { name, points, max, why } in &scored.parts {
                writeln!(text, "{points:>5.1} of {max:>2.0}  {name:<12}  {why}")?;
            }
            writeln!(text, "{:>5.1} of 100 together", scored.score)?;
        }
        for measurement in known.of(&offer.key()).iter().rev().take(MAX_OWN) {
            writeln!(text, "{}", own(measurement, now))?;
        }
        for signed in view.attestations(&offer.signed.address(), now) {
            writeln!(text, "{}", attested(signed, now))?;
        }
        out.text(&text)?;
        Ok(())
    }
}

/// What one own connection was like, on a line.
fn own(measurement: &Measurement, now: u64) -> String {
    let word = measurement.failure.map_or("good", Reason::as_str);
    let mut words = vec![format!("{word}, {}", units::ago(measurement.at, now))];
    words.extend(measurement.connect_ms.map(|it| format!("answered in {it} ms")));
    if measurement.connect_ms.is_some() {
        let (down, up) = (units::bytes(measurement.received), units::bytes(measurement.sent));
        words.push(format!("{} with {down} down, {up} up", units::span(measurement.seconds)));
    }
    format!("you  {}", words.join("; "))
}

/// What one watcher says, on a line.
fn attested(signed: &SignedAttestation, now: u64) -> String {
    let says = &signed.attestation;
    let key = signed.watcher().to_string();
    let ago = units::ago(signed.event.created_at.as_secs(), now);
    let number = |value: Option<u32>, name: &str, unit: &str| {
        value.map(|value| format!("{name}{value} {unit}"))
    };
    let mut words = vec![format!("{}, {ago}", says.reason)];
    words.extend(number(says.handshake_ms, "handshake ", "ms"));
    words.extend(number(says.rtt_ms, "rtt ", "ms"));
    words.extend(number(says.down, "", "Mbit/s down"));
    words.extend(number(says.up, "", "Mbit/s up"));
    words.extend(says.seen.country.map(|country| {
        let asn = says.seen.asn.map_or_else(String::new, |asn| format!(", AS{asn}"));
        let line = says.seen.ip_type.map_or_else(String::new, |it| format!(", {}", it.as_str()));
        format!("seen in {country}{asn}{line}")
    }));
    words.extend(says.billed.map(|share| format!("billed {share} of what it carried")));
    words.extend(says.is_price_honoured.map(|is| match is {
        true => "price honoured".to_owned(),
        false => "price not honoured".to_owned(),
    }));
    let uptime = says.uptime;
    words.extend(uptime.map(|it| format!("good in {} of {} days", it.share, it.days)));
    format!("watcher {}  {}", key.get(..SHORT_KEY).unwrap_or_default(), words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exits::tests::NOW;
    use weir_market::{
        attestation::{Attestation, Share},
        event::{Address, sign_attestation},
        key::MarketKey,
        place::Place,
    };

    #[test]
    fn an_own_connection_is_one_line() {
        let good = Measurement {
            at: NOW - 60,
            connect_ms: Some(80),
            seconds: 120,
            received: 3 << 20,
            sent: 1024,
            ..Measurement::default()
        };
        let text = "you  good, 1 min 0 s ago; answered in 80 ms; 2 min 0 s with 3.00 MiB down, 1.00 KiB up";
        assert_eq!(own(&good, NOW), text);
        let bad =
            Measurement { at: NOW, failure: Some(Reason::NoHandshake), ..Measurement::default() };
        assert_eq!(own(&bad, NOW), "you  no-handshake, 0 s ago");
    }

    #[test]
    fn what_a_watcher_says_is_one_line() {
        let exit = Address { kind: 30402, key: [7; 32], identifier: "weir".into() };
        let says = Attestation {
            handshake_ms: Some(84),
            down: Some(412),
            seen: Place { country: "DE".parse().ok(), asn: Some(3320), ip_type: None },
            billed: Some(Share::ONE),
            ..Attestation::new(exit, Reason::WrongExit)
        };
        let event = sign_attestation(&MarketKey::for_tests(1), &says, NOW - 60);
        let signed = SignedAttestation { event, attestation: says };
        assert_eq!(
            attested(&signed, NOW),
            "watcher 79be667ef9dc  wrong-exit, 1 min 0 s ago; handshake 84 ms; 412 Mbit/s down; \
             seen in DE, AS3320; billed 1.000 of what it carried"
        );
    }
}
