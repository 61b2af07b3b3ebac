//! Rules for the node's listing.

use crate::{Config, HostPort, HttpUrl, mistake::Findings, url::WebSocketUrl};

/// The maximum number of registries or relays.
const MAX_URLS: usize = 16;
/// The maximum length of a title, in characters.
const MAX_TITLE: usize = 80;
/// The maximum number of endpoints.
const MAX_ENDPOINTS: usize = 4;
/// The maximum number of databases of addresses.
const MAX_PLACE_FILES: usize = 8;

pub(super) fn market(config: &Config, findings: &mut Findings<'_>) {
    let market = &config.market;
    urls(findings, "registries", &market.registries);
    urls(findings, "relays", &market.relays);
    words(config, findings);
    endpoints(findings, &market.endpoints);
    if market.place_files.len() > MAX_PLACE_FILES {
        findings.blame(
            &[("market", "place_files")],
            format!("it has {} entries", market.place_files.len()),
            format!("name at most {MAX_PLACE_FILES}"),
        );
    }
    if !market.purchase_url.is_empty()
        && let Err(error) = market.purchase_url.parse::<HttpUrl>()
    {
        findings.blame(
            &[("market", "purchase_url")],
            error.to_string(),
            "write for example \"https://exit.example.net/purchase\", or \"\" for purchase.listen's".into(),
        );
    }
    if !market.ca_file.is_empty() && !market.ca_file.starts_with('/') {
        findings.blame(
            &[("market", "ca_file")],
            format!("{:?} is not an absolute path", market.ca_file),
            "write a path that begins with /, or \"\" for none".into(),
        );
    }
    if market.enabled {
        enabled(config, findings);
    }
}

/// What a listing cannot do without.
fn enabled(config: &Config, findings: &mut Findings<'_>) {
    let market = &config.market;
    if market.registries.is_empty() && market.relays.is_empty() {
        findings.blame(
            &[("market", "registries"), ("market", "enabled")],
            "there is nowhere to publish the listing".into(),
            "write for example registries = [\"wss://registry.example\"], or enabled = false"
                .into(),
        );
    }
    if config.cashu.mints.is_empty() && !config.payment.enabled {
        findings.blame(
            &[("market", "enabled")],
            "the node has no price to list".into(),
            "set cashu.mints and cashu.gib_price, or payment.enabled, or enabled = false".into(),
        );
    }
}

fn words(config: &Config, findings: &mut Findings<'_>) {
    let market = &config.market;
    let title = &market.title;
    if title.chars().count() > MAX_TITLE || title.chars().any(char::is_control) {
        findings.blame(
            &[("market", "title")],
            "it is too long, or has control characters".into(),
            format!("write one line of at most {MAX_TITLE} characters"),
        );
    }
    let country = market.country.as_bytes();
    let is_code = country.len() == 2 && country.iter().all(u8::is_ascii_alphabetic);
    if !country.is_empty() && !is_code {
        findings.blame(
            &[("market", "country")],
            format!("{:?} is not a country", market.country),
            "write the two letters of ISO 3166-1, such as \"DE\", or \"\"".into(),
        );
    }
}

fn endpoints(findings: &mut Findings<'_>, all: &[String]) {
    if all.len() > MAX_ENDPOINTS {
        findings.blame(
            &[("market", "endpoints")],
            format!("it has {} entries", all.len()),
            format!("name at most {MAX_ENDPOINTS}"),
        );
    }
    for text in all {
        if let Err(reason) = text.parse::<HostPort>() {
            findings.blame(
                &[("market", "endpoints")],
                format!("{text:?} is not an endpoint: {reason}"),
                "write for example [\"exit.example.net:51820\", \"[2001:db8::7]:51820\"]".into(),
            );
            return;
        }
    }
}

fn urls(findings: &mut Findings<'_>, key: &'static str, all: &[String]) {
    if all.len() > MAX_URLS {
        findings.blame(
            &[("market", key)],
            format!("it has {} entries", all.len()),
            format!("name at most {MAX_URLS}"),
        );
    }
    for (number, text) in all.iter().enumerate() {
        let wrong = match text.parse::<WebSocketUrl>() {
            Err(error) => error.to_string(),
            Ok(_) if all.iter().take(number).any(|before| before == text) => {
                format!("{text:?} is listed twice")
            }
            Ok(_) => continue,
        };
        let fix = "write for example \"wss://registry.example\", each once".into();
        findings.blame(&[("market", key)], wrong, fix);
        return;
    }
}
