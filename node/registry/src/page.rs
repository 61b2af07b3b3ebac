//! The page for people: a form, and a table of exits. It has no script, and looks like the node's page.

use axum::{
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use weir_page::escape;

use crate::{
    exits::{self, ExitsQuery, QueryError},
    info::Description,
    registry::Registry,
};

mod table;

/// Only what this registry sends; the form goes to this registry alone; never within another page.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];
const OWN_STYLE: &str = include_str!("page/page.css");
const FRAME: &str = include_str!("page/index.html");

pub(crate) async fn style() -> Response {
    let style = [weir_page::STYLE, OWN_STYLE].concat();
    (HEADERS, [(header::CONTENT_TYPE, "text/css; charset=utf-8")], style).into_response()
}

/// The page for a query string.
pub(crate) fn show(
    registry: &Registry,
    description: &Description,
    query: &str,
    now: u64,
) -> Response {
    let (status, html) = render(registry, description, ExitsQuery::parse(query), now);
    (status, HEADERS, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

fn render(
    registry: &Registry,
    description: &Description,
    query: Result<ExitsQuery, QueryError>,
    now: u64,
) -> (StatusCode, String) {
    let (status, query, message) = match query {
        Ok(query) => (StatusCode::OK, query, String::new()),
        Err(wrong) => {
            let text = format!(
                "<p class=\"banner\" role=\"alert\">All exits are shown, because {}.</p>",
                escape(&wrong.to_string())
            );
            (StatusCode::BAD_REQUEST, ExitsQuery::default(), text)
        }
    };
    let listings = registry.listings(now);
    let countries = exits::countries(listings.iter());
    let total: usize = countries.iter().map(|country| country.exits).sum();
    let named = countries.iter().filter(|country| !country.country.is_empty()).count();
    let found = exits::select(listings, &query);
    let answer = exits::answer(&found, &query);
    let first = query.offset + 1;
    let range = match answer.exits.len() {
        0 => String::new(),
        shown => format!("{first} to {} of {}", query.offset + shown, answer.total),
    };
    let html = FRAME
        .replace("{title}", &escape(&description.title))
        .replace(
            "{badge}",
            &format!(
                "{} in {}",
                counted(total, "exit", "exits"),
                counted(named, "country", "countries")
            ),
        )
        .replace("{countries}", &table::countries(&countries, &query))
        .replace("{ip_types}", &table::ip_types(&query))
        .replace("{sorts}", &table::sorts(&query))
        .replace(
            "{max_price}",
            &query.max_price.as_ref().map_or_else(String::new, |it| escape(&it.to_string())),
        )
        .replace("{range}", &range)
        .replace("{pages}", &table::pages(&answer, &query))
        // These have text of others, in which nothing is replaced: it has no braces.
        .replace("{message}", &message)
        .replace("{table}", &table::rows(&answer.exits, &query, now));
    (status, html)
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests;
