//! `weir page`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use serde::Serialize;
use zeroize::Zeroizing;

use super::out::Out;
use weir_config::{Api, ListenAddr};

#[derive(Serialize)]
struct Link {
    url: String,
}

pub(super) fn show(api: &Api, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let ListenAddr::On(mut address) = api.http else {
        bail!(
            "the status page is off. Fix: set api.http in the configuration, for example to \
             \"127.0.0.1:9588\", and restart weir"
        );
    };
    let token =
        std::fs::read_to_string(&api.token_file).map(Zeroizing::new).with_context(|| {
            let file = api.token_file.display();
            format!("cannot read the token {file}. Fix: start weir, or run this as root")
        })?;
    // A node that listens on all addresses also listens on the loopback address.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    // A browser never sends the fragment to a server.
    let url = format!("http://{address}/#token={}", weir_control::client::escape(token.trim()));
    if json {
        return out.json(&Link { url });
    }
    out.text(&format!("{url}\n"))?;
    Ok(())
}
