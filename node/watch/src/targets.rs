//! What a watcher measures against.

use std::{net::IpAddr, net::SocketAddr, str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use weir_config::HttpUrl;
use weir_tls::Tls;

use crate::http::{Ask, Server};

/// The time in which the watcher's own line has to reach the server.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A name that the exit's resolvers are asked for, and an address that it has, if one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameCheck {
    /// The name.
    pub name: String,
    /// An address that must be among the answers.
    pub address: Option<IpAddr>,
}

/// Not a name to ask for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name to ask for: write NAME or NAME=ADDRESS, such as example.net")]
pub struct NotACheck(String);

impl FromStr for NameCheck {
    type Err = NotACheck;

    fn from_str(text: &str) -> Result<Self, NotACheck> {
        let wrong = || NotACheck(text.chars().take(80).collect());
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (name, Some(address.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let is_name = (1..=253).contains(&name.len())
            && name.chars().all(|it| it.is_ascii_alphanumeric() || "-._".contains(it));
        if is_name { Ok(Self { name: name.to_owned(), address }) } else { Err(wrong()) }
    }
}

/// What to measure against.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// The operator's own server (`weir watch --serve`).
    pub server: Option<HttpUrl>,
    /// A URL that answers with the client's address. The server's, if there is none.
    pub address_url: Option<HttpUrl>,
    /// A large file. The server's, if there is none.
    pub down_url: Option<HttpUrl>,
    /// A name to ask the exit's resolvers for.
    pub name: Option<NameCheck>,
    /// CA certificates for `https`.
    pub tls: Option<Tls>,
}

/// The same, with the addresses of the servers: they are looked up outside, so that an exit with broken
/// resolvers is not taken for one that carries nothing.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub(crate) server: Option<Server>,
    pub(crate) address_url: Option<Server>,
    pub(crate) down_url: Option<Server>,
    pub(crate) name: Option<NameCheck>,
}

impl Targets {
    /// Looks the servers' addresses up.
    ///
    /// # Errors
    ///
    /// When there is nothing to measure against, or a name has no address.
    pub async fn resolve(&self) -> anyhow::Result<Resolved> {
        let Self { server, address_url, down_url, name, tls } = self;
        ensure!(
            server.is_some() || address_url.is_some() || down_url.is_some(),
            "there is nothing to measure against. Fix: --server http://HOST:PORT, where weir watch --serve runs"
        );
        let mut all = [None, None, None];
        for (place, url) in all.iter_mut().zip([server, address_url, down_url]) {
            let Some(url) = url else { continue };
            ensure!(
                !url.is_secure() || tls.is_some(),
                "no CA certificates were loaded for {url}. Fix: name a PEM file with --ca-file"
            );
            *place = Some(Server::new(url.clone(), lookup(url).await?, tls.clone()));
        }
        let [server, address_url, down_url] = all;
        // A server's own name does, if there is no other.
        let own = server.iter().chain(&address_url).chain(&down_url).map(Server::host);
        let own = own.filter(|host| host.parse::<IpAddr>().is_err()).find_map(|it| it.parse().ok());
        Ok(Resolved { server, address_url, down_url, name: name.clone().or(own) })
    }
}

async fn lookup(url: &HttpUrl) -> anyhow::Result<Vec<SocketAddr>> {
    let host = url.host().trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((host, url.port())).await;
    let all: Vec<_> = found.with_context(|| format!("cannot look up {host}"))?.collect();
    ensure!(!all.is_empty(), "{host} has no address");
    Ok(all)
}

impl Resolved {
    /// Whether this machine itself reaches what it measures against. Otherwise a fault would be its own.
    ///
    /// # Errors
    ///
    /// Says what it does not reach.
    pub async fn check_own_line(&self) -> anyhow::Result<()> {
        let ask = match (&self.server, &self.address_url, &self.down_url) {
            (Some(server), ..) => Ask::get(server, "/address"),
            (None, Some(url), _) | (None, None, Some(url)) => Ask::get(url, ""),
            (None, None, None) => return Ok(()),
        };
        let answer = ask.limit(1, DIRECT_TIMEOUT).send().await;
        answer.map(drop).map_err(anyhow::Error::msg).context(
            "this machine itself does not reach what it measures against, so nothing is said about the exit",
        )
    }

    /// An address outside, to which packets may be sent so that the tunnel begins its handshake.
    pub(crate) fn outside(&self) -> Option<SocketAddr> {
        let mut all = self.server.iter().chain(&self.address_url).chain(&self.down_url);
        all.find_map(|server| server.addresses.first().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_an_address() {
        let check = |text: &str| text.parse::<NameCheck>().ok().map(|it| (it.name, it.address));
        assert_eq!(check("a.example"), Some(("a.example".into(), None)));
        let address = Some([192, 0, 2, 1].into());
        assert_eq!(check("a.example=192.0.2.1"), Some(("a.example".into(), address)));
        for text in ["", "a b", "a=b", "=192.0.2.1"] {
            assert_eq!(check(text), None, "{text}");
        }
    }
}
