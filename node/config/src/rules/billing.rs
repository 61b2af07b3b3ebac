//! Rules for the ledger, for payments and for the fleet that usage records go to.

use crate::{Config, mistake::Findings, sections::DNS_PORT, url::HttpUrl};

pub(super) fn ledger(config: &Config, findings: &mut Findings<'_>) {
    let ledger = &config.ledger;
    if !ledger.webhook.is_empty()
        && let Err(error) = ledger.webhook.parse::<HttpUrl>()
    {
        findings.blame(
            &[("ledger", "webhook")],
            error.to_string(),
            "write for example \"https://example.net/usage\", or \"\" for none".into(),
        );
    }
    let (delivered, undelivered) = (ledger.retain_days, ledger.retain_undelivered_days);
    if undelivered != 0 && (delivered == 0 || undelivered < delivered) {
        findings.blame(
            &[("ledger", "retain_undelivered_days"), ("ledger", "retain_days")],
            format!(
                "{undelivered} is less than ledger.retain_days, which keeps what was delivered"
            ),
            "write a larger number, or 0 for never".into(),
        );
    }
    if !ledger.usage_file.is_empty() && !ledger.usage_file.starts_with('/') {
        findings.blame(
            &[("ledger", "usage_file")],
            format!("{:?} is not an absolute path", ledger.usage_file),
            "write a path that begins with /, or \"\" for none".into(),
        );
    }
}

pub(super) fn payment(config: &Config, findings: &mut Findings<'_>) {
    let payment = &config.payment;
    if config.has_payments() && config.dns.enabled && payment.port == DNS_PORT {
        findings.blame(
            &[("payment", "port")],
            "53 is the port of the DNS forwarder".into(),
            "write another port, such as 8077, or set dns.enabled = false".into(),
        );
    }
    if !payment.enabled {
        return;
    }
    for (key, address) in [
        ("provider", payment.provider),
        ("hermes", payment.hermes),
        ("registry", payment.registry),
        ("channel_implementation", payment.channel_implementation),
    ] {
        if address.is_none_or(|address| address.is_zero()) {
            findings.blame(
                &[("payment", key), ("payment", "enabled")],
                "payments need it".into(),
                "write an address on the chain (0x and 40 hex digits), or enabled = false".into(),
            );
        }
    }
    if !payment.approve_url.is_empty()
        && let Err(error) = payment.approve_url.parse::<HttpUrl>()
    {
        findings.blame(
            &[("payment", "approve_url")],
            error.to_string(),
            "write for example \"https://example.net/approve\", or \"\" for none".into(),
        );
    }
    let floors = [payment.least_per_gib(), payment.least_per_hour()];
    for (key, floor_key, price, floor) in [
        ("per_gib", "floor_per_gib", payment.per_gib.0, floors[0]),
        ("per_hour", "floor_per_hour", payment.per_hour.0, floors[1]),
    ] {
        if floor > price {
            findings.blame(
                &[("payment", floor_key), ("payment", key)],
                format!("\"{floor}\" is above payment.{key}, which is \"{price}\""),
                "write \"auto\" for the price itself, or less than that".into(),
            );
        }
    }
    if floors == [0, 0] {
        findings.blame(
            &[
                ("payment", "floor_per_gib"),
                ("payment", "floor_per_hour"),
                ("payment", "per_gib"),
                ("payment", "per_hour"),
            ],
            "consumers could offer to pay nothing".into(),
            "write a price for a GiB or an hour, or enabled = false".into(),
        );
    }
}

pub(super) fn prepayment(config: &Config, findings: &mut Findings<'_>) {
    let (cashu, voucher) = (&config.cashu, &config.voucher);
    if let Some((mint, error)) =
        cashu.mints.iter().find_map(|mint| Some((mint, mint.parse::<HttpUrl>().err()?)))
    {
        findings.blame(
            &[("cashu", "mints")],
            format!("{mint:?}: {error}"),
            "write for example [\"https://mint.example.net\"]".into(),
        );
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if cashu.unit.is_empty() || cashu.unit.len() > 16 || !cashu.unit.bytes().all(plain) {
        findings.blame(
            &[("cashu", "unit")],
            format!("{:?} is not a unit", cashu.unit),
            "write for example \"sat\"".into(),
        );
    }
    if config.dns.enabled && config.has_page() && voucher.page_port == DNS_PORT {
        findings.blame(
            &[("voucher", "page_port")],
            "53 is the port of the DNS forwarder".into(),
            "write another port, such as 80, or set dns.enabled = false".into(),
        );
    }
    if config.has_page() && voucher.page_port == config.payment.port {
        findings.blame(
            &[("voucher", "page_port"), ("payment", "port")],
            "it is also payment.port".into(),
            "write another port for one of the two".into(),
        );
    }
}

pub(super) fn fleet(config: &Config, findings: &mut Findings<'_>) {
    let fleet = &config.fleet;
    if fleet.url.is_empty() {
        return;
    }
    let is_server = |url: &str| {
        let host = url.trim().strip_prefix("nats://").or(url.trim().strip_prefix("tls://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
    };
    if !fleet.url.split(',').all(is_server) {
        findings.blame(
            &[("fleet", "url")],
            format!("{:?} is not the address of a NATS server", fleet.url),
            "write for example \"nats://10.0.0.7:4222\", or \"\" for none".into(),
        );
    }
    let is_word = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=64).contains(&text.len()) && text.bytes().all(plain)
    };
    for (key, text) in [("name", &fleet.name), ("stream", &fleet.stream)] {
        if !is_word(text) {
            findings.blame(
                &[("fleet", key), ("fleet", "url")],
                format!("{text:?} is not a valid node name for the fleet"),
                "write 1 to 64 letters, digits, \"-\" or \"_\", such as \"exit-7\"".into(),
            );
        }
    }
    if !fleet.subject.split('.').all(is_word) {
        findings.blame(
            &[("fleet", "subject")],
            format!("{:?} is not a valid subject prefix", fleet.subject),
            "write words with dots between them, such as \"weir\"".into(),
        );
    }
    for (key, path) in [
        ("credentials_file", &fleet.credentials_file),
        ("token_file", &fleet.token_file),
        ("ca_file", &fleet.ca_file),
    ] {
        if !path.is_empty() && !path.starts_with('/') {
            findings.blame(
                &[("fleet", key)],
                format!("{path:?} is not an absolute path"),
                "write a path that begins with /, or \"\" for none".into(),
            );
        }
    }
}
