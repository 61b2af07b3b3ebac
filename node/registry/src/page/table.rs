//! The parts of the page that depend on the exits.

use weir_config::IpType;
use weir_market::listing::{Basis, Price, State};
use weir_page::escape;

use crate::exits::{self, CountryCount, ExitView, ExitsAnswer, ExitsQuery, Sort};

/// The maximum number of prices in a row.
const MAX_PRICES: usize = 2;

fn option(value: &str, name: &str, is_chosen: bool) -> String {
    let chosen = if is_chosen { " selected" } else { "" };
    format!("<option value=\"{}\"{chosen}>{}</option>", escape(value), escape(name))
}

/// The choices of a country.
pub(super) fn countries(all: &[CountryCount], query: &ExitsQuery) -> String {
    let mut named: Vec<_> = all.iter().filter(|it| !it.country.is_empty()).collect();
    named.sort_by(|a, b| a.country.cmp(&b.country));
    let several = match query.countries.as_slice() {
        // A choice that the form does not offer stays chosen.
        [] => None,
        [one] if named.iter().any(|it| it.country == one.as_str()) => None,
        chosen => {
            let words: Vec<String> = chosen.iter().map(ToString::to_string).collect();
            Some(option(&words.join(","), &words.join(", "), true))
        }
    };
    let is_chosen = |country: &str| match query.countries.as_slice() {
        [one] => one.as_str() == country,
        _ => false,
    };
    let options = named.iter().map(|it| {
        let name = format!("{} ({})", it.country, it.exits);
        option(&it.country, &name, is_chosen(&it.country))
    });
    several.into_iter().chain(options).collect()
}

/// The choices of a kind of line.
pub(super) fn ip_types(query: &ExitsQuery) -> String {
    let choice = |it: IpType| option(it.as_str(), line(it), query.ip_type == Some(it));
    exits::ip_types().into_iter().map(choice).collect()
}

/// The choices of an order.
pub(super) fn sorts(query: &ExitsQuery) -> String {
    let name = |sort| match sort {
        Sort::Price => "Cheapest",
        Sort::Newest => "Newest",
        Sort::Speed => "Fastest",
    };
    Sort::ALL.into_iter().map(|it| option(it.as_str(), name(it), query.sort == it)).collect()
}

fn line(ip_type: IpType) -> &'static str {
    match ip_type {
        IpType::Unknown => "Unknown",
        IpType::Residential => "Home",
        IpType::Cellular => "Mobile",
        IpType::Hosting => "Data centre",
        IpType::Business => "Business",
    }
}

/// The links to the rows before and after.
pub(super) fn pages(answer: &ExitsAnswer, query: &ExitsQuery) -> String {
    let link = |offset: usize, name: &str| {
        format!("<a href=\"?{}\">{name}</a>", escape(&query.from_row(offset)))
    };
    let mut links = Vec::new();
    if query.offset > 0 {
        links.push(link(query.offset.saturating_sub(query.limit), "Previous"));
    }
    links.extend(answer.next_offset.map(|offset| link(offset, "Next")));
    match links.is_empty() {
        true => String::new(),
        false => format!("<p class=\"pages\">{}</p>", links.join(" ")),
    }
}

/// The table itself.
pub(super) fn rows(exits: &[ExitView], query: &ExitsQuery, now: u64) -> String {
    if exits.is_empty() {
        return "<p class=\"quiet\">No exit matches. Choose fewer conditions, or look again in some \
                minutes.</p>"
            .to_owned();
    }
    let head = "<th>Country</th><th>Exit</th><th>Line</th><th class=\"num\">Price</th>\
                <th class=\"num later\">Capacity</th><th class=\"num later\">Free</th>\
                <th class=\"later\">Reach</th><th class=\"num later\">Listed</th>";
    let rows: String = exits.iter().map(|exit| row(exit, query, now)).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn row(exit: &ExitView, query: &ExitsQuery, now: u64) -> String {
    let claim = |basis: Basis| match basis {
        Basis::Claimed => "The operator says so",
        Basis::Database => "From a database of the operator",
    };
    let country = exit.country.as_deref().unwrap_or("–");
    let title = if exit.title.is_empty() { &exit.id } else { &exit.title };
    let sold = if exit.state == State::Sold { " <span class=\"warn\">sold out</span>" } else { "" };
    let capacity = exit
        .measured
        .as_ref()
        .map_or_else(|| "–".to_owned(), |it| format!("{} / {} Mbit/s", it.down, it.up));
    let free = exit.free_slots.map_or_else(|| "–".to_owned(), |slots| slots.to_string());
    let age = age(now.saturating_sub(exit.created_at));
    [
        format!("<tr><td title=\"{}\">{}</td>", claim(exit.country_basis), escape(country)),
        format!(
            "<td class=\"wrap\" title=\"Key {}\">{}{sold}</td>",
            escape(&exit.pubkey),
            escape(title)
        ),
        format!("<td title=\"{}\">{}</td>", claim(exit.ip_type_basis), line(exit.ip_type)),
        format!("<td class=\"num\">{}</td>", prices(&exit.prices, query)),
        format!(
            "<td class=\"num later\" title=\"Down / up, as the node measured\">{capacity}</td>"
        ),
        format!(
            "<td class=\"num later\">{free}</td><td class=\"later\">{}</td>",
            exit.reach.as_str()
        ),
        format!("<td class=\"num later\">{age}</td></tr>"),
    ]
    .concat()
}

/// The prices, the one by which exits are compared first.
fn prices(all: &[Price], query: &ExitsQuery) -> String {
    let like = query.compared();
    let mut prices: Vec<&Price> = all.iter().collect();
    prices.sort_by_key(|price| price.compare(&like).is_none());
    let shown: Vec<String> =
        prices.iter().take(MAX_PRICES).map(|price| escape(&price.to_string())).collect();
    let more = if prices.len() > MAX_PRICES { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => "now".to_owned(),
        60..7200 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}
