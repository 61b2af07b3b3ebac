//! The address at which buyers reach the listener, as far as the configuration tells it.

use weir_config::{ListenAddr, sections::Purchase};

/// The ports that a URL need not name.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// The URL of purchases: by the first of the server's names, or else at this host. `None` if there is
/// no listener, or no host for it.
#[must_use]
pub fn url(purchase: &Purchase, host: Option<&str>) -> Option<String> {
    of_name(purchase, purchase.server_names.first().map(String::as_str).or(host)?)
}

/// The URL of purchases at a server of this name, which may have a port.
pub(super) fn of_name(purchase: &Purchase, name: &str) -> Option<String> {
    let ListenAddr::On(address) = purchase.listen else { return None };
    let (has_tls, has_proxy) =
        (!purchase.certificate_file.is_empty(), !purchase.proxies.is_empty());
    let (scheme, usual, port) = match has_tls {
        true => ("https", HTTPS, address.port()),
        // What is in front speaks TLS, at the usual port or at the one in the name.
        false if has_proxy || address.ip().is_loopback() => ("https", HTTPS, HTTPS),
        false => ("http", HTTP, address.port()),
    };
    let server = match (host_of(name), port) {
        (Host::WithPort, _) => name.to_owned(),
        (Host::Alone, port) if port == usual => name.to_owned(),
        (Host::Alone, port) => format!("{name}:{port}"),
        (Host::BareV6, port) if port == usual => format!("[{name}]"),
        (Host::BareV6, port) => format!("[{name}]:{port}"),
    };
    Some(format!("{scheme}://{server}/purchase"))
}

/// The forms of a server's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Alone,
    WithPort,
    BareV6,
}

fn host_of(name: &str) -> Host {
    match name.matches(':').count() {
        0 => Host::Alone,
        1 => Host::WithPort,
        _ if !name.starts_with('[') => Host::BareV6,
        _ if name.ends_with(']') => Host::Alone,
        _ => Host::WithPort,
    }
}

#[cfg(test)]
mod tests {
    use weir_config::HttpUrl;

    use super::*;

    fn selling(listen: &str, names: &[&str], change: impl FnOnce(&mut Purchase)) -> Purchase {
        let mut purchase = Purchase {
            listen: ListenAddr::On(listen.parse().expect("an address")),
            server_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Purchase::default()
        };
        change(&mut purchase);
        purchase
    }

    #[test]
    fn the_url_has_the_name_the_port_and_tls_where_there_is_tls() {
        let tls = |it: &mut Purchase| it.certificate_file = "/fullchain.pem".into();
        let proxy = |it: &mut Purchase| it.proxies = vec!["10.0.0.0/8".parse().expect("a net")];
        let name = "exit.example.net";
        for (purchase, expected) in [
            (selling("0.0.0.0:443", &[name], tls), "https://exit.example.net/purchase"),
            (selling("[::]:8443", &[name], tls), "https://exit.example.net:8443/purchase"),
            (selling("0.0.0.0:80", &[name], |_| {}), "http://exit.example.net/purchase"),
            (selling("0.0.0.0:81", &[name], |_| {}), "http://exit.example.net:81/purchase"),
            // A proxy on this machine, or on another.
            (selling("127.0.0.1:81", &[name], |_| {}), "https://exit.example.net/purchase"),
            (selling("10.1.1.1:81", &[name], proxy), "https://exit.example.net/purchase"),
            (selling("127.0.0.1:81", &["a.example:9"], |_| {}), "https://a.example:9/purchase"),
            (selling("0.0.0.0:81", &["45.80.2.2", "b"], tls), "https://45.80.2.2:81/purchase"),
            (selling("0.0.0.0:81", &["2a0c::2"], tls), "https://[2a0c::2]:81/purchase"),
            (selling("0.0.0.0:443", &["2a0c::2"], tls), "https://[2a0c::2]/purchase"),
            (selling("0.0.0.0:81", &["[2a0c::2]"], tls), "https://[2a0c::2]:81/purchase"),
            (selling("0.0.0.0:81", &["[2a0c::2]:9"], tls), "https://[2a0c::2]:9/purchase"),
        ] {
            let made = url(&purchase, Some("45.80.9.9"));
            assert_eq!(made.as_deref(), Some(expected));
            assert!(made.is_some_and(|url| url.parse::<HttpUrl>().is_ok()), "{expected}");
        }
    }

    #[test]
    fn without_a_name_the_public_address_stands_for_it_and_without_a_listener_there_is_no_url() {
        let nameless = selling("0.0.0.0:8080", &[], |_| {});
        let at = url(&nameless, Some("45.80.2.2"));
        assert_eq!(at.as_deref(), Some("http://45.80.2.2:8080/purchase"));
        assert_eq!(url(&nameless, None), None);
        assert_eq!(url(&Purchase::default(), Some("45.80.2.2")), None);
    }
}
