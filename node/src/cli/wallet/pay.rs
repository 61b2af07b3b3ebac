//! `weir wallet pay`.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use weir_buy::TopUp;
use weir_connect::gateway;
use weir_wallet::{Wallet, http::Http};

use crate::cli::{out::Out, units};

/// Reads the gateway's address, with a port or without.
pub(super) fn gateway(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, gateway::PORT)),
        Err(_) => text.parse(),
    }
}

/// Pays this much to the exit of this gateway.
pub(super) async fn run(
    wallet: &Wallet,
    gateway: SocketAddr,
    amount: u64,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    ensure!(amount > 0, "the amount is 0: a payment is at least 1");
    let top_up = TopUp::new(wallet, Http::default(), gateway)?;
    let wanted = top_up.wanted().await?;
    let paid = top_up.pay(&wanted, amount).await?;
    if json {
        return out.json(&paid);
    }
    let mut what = Vec::new();
    if paid.bytes > 0 {
        what.push(units::bytes(paid.bytes));
    }
    if paid.seconds > 0 {
        what.push(units::span(paid.seconds));
    }
    let (spent, what) = (paid.spent, what.join(" and "));
    out.text(&format!("paid {spent} {}: {what} more\n", wanted.unit))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_has_the_usual_port_unless_it_says_another() {
        for (text, expected) in [
            ("10.66.0.1", "10.66.0.1:8077"),
            ("10.66.0.1:80", "10.66.0.1:80"),
            ("fd66::1", "[fd66::1]:8077"),
            ("[fd66::1]:80", "[fd66::1]:80"),
        ] {
            assert_eq!(gateway(text).expect("an address").to_string(), expected);
        }
        assert!(gateway("exit.example").is_err());
    }
}
