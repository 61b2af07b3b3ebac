//! Exits, a line each.

use std::fmt::Write as _;

use weir_market::{listing::Basis, score::Scored};

use super::SHORT_KEY;

pub(super) fn table(all: &[Scored<'_>]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut rows = vec![
        ["KEY", "COUNTRY", "LINE", "PRICE", "MBIT/S", "REACH", "FREE", "SCORE", "TITLE"]
            .map(str::to_owned),
    ];
    rows.extend(all.iter().map(row));
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        // Writing to a string cannot fail.
        writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end()).ok();
    }
    text
}

fn row(scored: &Scored<'_>) -> [String; 9] {
    let listing = &scored.offer.signed.listing;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mark = |basis: Basis| if basis == Basis::Claimed { "?" } else { "" };
    let country = listing.country.map(|it| format!("{it}{}", mark(listing.country_basis)));
    let price = scored.price.as_ref().or(listing.prices.first());
    [
        scored.offer.key().chars().take(SHORT_KEY).collect(),
        or_dash(country),
        format!("{}{}", listing.ip_type.as_str(), mark(listing.ip_type_basis)),
        or_dash(price.map(ToString::to_string)),
        or_dash(listing.measured.map(|it| it.down.to_string())),
        listing.reach.as_str().to_owned(),
        or_dash(listing.free_slots.map(|it| it.to_string())),
        format!("{:.0}", scored.score),
        listing.title.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exits::tests::{NOW, view};
    use weir_market::{
        score::{NoHistory, Wish},
        testing::listing,
    };

    #[test]
    fn the_table_has_what_one_chooses_by() {
        let view = view(&[listing("DE", "100 sat/GiB", 1), listing("FR", "200 sat/GiB", 2)]);
        let all = view.choose(&Wish::default(), &NoHistory, NOW);
        let text = table(&all);
        assert!(text.starts_with("KEY"), "{text}");
        let line = text.lines().nth(1).expect("an exit");
        for part in ["DE?", "residential", "100 sat/GiB", "934", "direct", "4000", "weir exit DE"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert_eq!(table(&[]), "");
    }
}
