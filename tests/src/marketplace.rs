//! A market in a lab: a registry and a mint on its internet, and settings for exits that sell.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::{
    Lab, Settings,
    lab::MARKET_V4,
    nutshell::Nutshell,
    registry::{Registry, Socket},
    sweep, until,
};

/// The port where exits sell.
const PORT: u16 = 8443;
/// The price of a GiB, in sat: a sat buys a MiB.
pub const GIB_PRICE: u64 = 1024;

/// The market.
#[derive(Debug)]
pub struct Marketplace<'a> {
    /// The mint.
    pub mint: Nutshell<'a>,
    registry: Registry<'a>,
    directory: TempDir,
}

impl<'a> Marketplace<'a> {
    /// Starts the mint, whose wallet has 2000 sat, and the registry.
    ///
    /// # Errors
    /// If one of them does not answer.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let mint = Nutshell::start(&lab.internet, MARKET_V4.into())?;
        mint.mint(2000)?;
        let mut registry = Registry::prepare_in(&lab.internet, MARKET_V4)?;
        registry.configure(&[])?;
        registry.run()?;
        let directory = tempfile::Builder::new().prefix(&sweep::directory()).tempdir()?;
        Ok(Self { mint, registry, directory })
    }

    /// Where consumers and exits reach the registry.
    #[must_use]
    pub fn registry(&self) -> String {
        format!("ws://{MARKET_V4}:7447")
    }

    /// A Nostr client of the registry.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn client(&self) -> Result<Socket> {
        self.registry.client("203.0.113.1")
    }

    /// Settings of an exit at this address that says it is in this country.
    #[must_use]
    pub fn exit(&self, address: Ipv4Addr, country: &str) -> Settings {
        let key = |of: &str| {
            let path = self.directory.path().join(format!("{of}-{address}.key"));
            format!("{:?}", path.display().to_string())
        };
        Settings::default()
            .with("cashu", "mints", &format!("[{:?}]", self.mint.url()))
            .with("cashu", "gib_price", &GIB_PRICE.to_string())
            .with("cashu", "key_file", &key("cashu"))
            .with("purchase", "listen", &format!("\"{address}:{PORT}\""))
            .with("purchase", "server_names", "[\"exit.example.net\"]")
            .with("purchase", "min_mib", "4")
            .with("market", "enabled", "true")
            .with("market", "country", &format!("{country:?}"))
            .with("market", "purchase_url", &format!("\"http://{address}:{PORT}/purchase\""))
            .with("market", "registries", &format!("[{:?}]", self.registry()))
            .with("market", "key_file", &key("market"))
    }

    /// Waits until the registry has this number of exits in a country.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn wait_listed(&self, country: &str, exits: usize) -> Result<()> {
        until("the registry has the listings", Duration::from_secs(60), || {
            let found = self.registry.get(&format!("/v1/exits?country={country}"))?;
            let listed = format!("{found:?}").matches("/purchase").count();
            ensure!(listed >= exits, "{listed} of {exits}: {found:?}");
            Ok(())
        })
    }
}
