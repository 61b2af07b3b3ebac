//! Rules for sales to strangers.

use crate::{Config, kinds::ListenAddr, mistake::Findings, url::WebSocketUrl};

/// The most relays at which letters are awaited.
const MAX_RELAYS: usize = 16;

pub(super) fn purchase(config: &Config, findings: &mut Findings<'_>) {
    let purchase = &config.purchase;
    if purchase.min_mib > purchase.max_mib {
        findings.blame(
            &[("purchase", "min_mib"), ("purchase", "max_mib")],
            format!("{} is more than purchase.max_mib", purchase.min_mib),
            format!("write {} or less, or raise purchase.max_mib", purchase.max_mib),
        );
    }
    let is_on = purchase.listen != ListenAddr::Off;
    if (is_on || !purchase.relays.is_empty()) && !config.takes_prepayment() {
        findings.blame(
            &[("purchase", if is_on { "listen" } else { "relays" })],
            "there is nothing to pay with".into(),
            "name a mint in cashu.mints, or set voucher.enabled = true".into(),
        );
    }
    if let ListenAddr::On(address) = purchase.listen
        && address.port() == 0
    {
        findings.blame(
            &[("purchase", "listen")],
            format!("{address} has no port"),
            "write a port from 1 to 65535 after the address, or \"off\"".into(),
        );
    }
    if is_on && purchase.server_names.is_empty() {
        findings.blame(
            &[("purchase", "server_names"), ("purchase", "listen")],
            "buyers must know the server by a name".into(),
            "write for example [\"exit.example.net\"], or set purchase.listen = \"off\"".into(),
        );
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    let is_bad = |name: &&String| name.is_empty() || !name.bytes().all(is_name);
    if let Some(name) = purchase.server_names.iter().find(is_bad) {
        findings.blame(
            &[("purchase", "server_names")],
            format!("{name:?} is not a server's name"),
            "write a name without \"https://\" and without a path".into(),
        );
    }
    if purchase.certificate_file.is_empty() != purchase.certificate_key_file.is_empty() {
        findings.blame(
            &[("purchase", "certificate_file"), ("purchase", "certificate_key_file")],
            "a certificate needs its key, and a key its certificate".into(),
            "name both files, or neither for HTTP without TLS".into(),
        );
    }
    let wrong = |url: &String| Some((url.clone(), url.parse::<WebSocketUrl>().err()?));
    if let Some((url, error)) = purchase.relays.iter().find_map(wrong) {
        findings.blame(
            &[("purchase", "relays")],
            format!("{url:?}: {error}"),
            "write for example [\"wss://relay.example.net\"]".into(),
        );
    }
    if purchase.relays.len() > MAX_RELAYS {
        findings.blame(
            &[("purchase", "relays")],
            format!("{} relays are too many", purchase.relays.len()),
            format!("write {MAX_RELAYS} or fewer"),
        );
    }
}
