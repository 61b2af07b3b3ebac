//! Waits for the uplink at the start, and follows its address afterwards.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::service;
use weir_config::{Auto, Config, HostPort, Shared};
use weir_host::uplink::{Uplink, UplinkError};
use weir_sessions::wg_quick::PeerTemplate;

/// The interval at which a missing uplink is looked for.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The uplink, and the endpoint at which consumers reach it.
pub(super) struct Found {
    pub(super) uplink: Uplink,
    pub(super) endpoint: HostPort,
}

/// Finds the uplink of the configuration. While a machine boots there may be none yet, so this
/// waits for as long as it takes. Returns `None` if the node is told to stop meanwhile.
pub(super) fn wait_for(config: &Config) -> anyhow::Result<Option<Found>> {
    let reason = match look(config)? {
        Ok(found) => return Ok(Some(found)),
        Err(reason) => reason,
    };
    warn!("waiting for the uplink: {reason}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for the uplink")?;
    runtime.block_on(wait(config, reason))
}

async fn wait(config: &Config, mut reason: String) -> anyhow::Result<Option<Found>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        service::waiting(&reason, POLL_INTERVAL);
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            _ = terminate.recv() => return Ok(None),
            _ = interrupt.recv() => return Ok(None),
        }
        match look(config)? {
            Ok(found) => {
                info!(uplink = found.uplink.name, "the uplink is there");
                return Ok(Some(found));
            }
            Err(now) if now != reason => {
                warn!("waiting for the uplink: {now}");
                reason = now;
            }
            Err(_) => {}
        }
    }
}

/// Finds the uplink, or says what is missing and may appear later.
fn look(config: &Config) -> anyhow::Result<Result<Found, String>> {
    let uplink = match Uplink::find(&config.node.uplink) {
        Ok(uplink) => uplink,
        Err(missing @ (UplinkError::NoDefaultRoute(_) | UplinkError::Unknown { .. })) => {
            return Ok(Err(missing.to_string()));
        }
        Err(error) => bail!(error),
    };
    Ok(match uplink.endpoint(config) {
        Some(endpoint) => Ok(Found { uplink, endpoint }),
        None => Err(format!(
            "{} has no address to give to consumers. Fix: give it one, or set \
             node.endpoint to the \"host:port\" at which consumers reach this machine",
            uplink.name
        )),
    })
}

/// Puts the uplink's current address into new consumer configurations, unless `node.endpoint` names
/// another one.
pub(super) fn follow(
    wanted: &Auto<HostPort>,
    port: u16,
    template: &Shared<PeerTemplate>,
    now: &Uplink,
) {
    if wanted.set().is_some() {
        return;
    }
    let endpoint = template.get().endpoint.clone();
    // As at the start: IPv6 only where there is no IPv4. If there are several, the current one stays.
    let has_v4 = !now.v4.is_empty();
    let usual = now.addresses().filter(|address| address.is_ipv4() == has_v4);
    let usual: Vec<_> = usual.map(|host| HostPort { host: host.to_string(), port }).collect();
    if usual.iter().any(|address| address.to_string() == endpoint) {
        return;
    }
    // Without any address the last one stays, and the watch over the host reports it.
    let Some(address) = usual.first() else { return };
    warn!(
        "this machine's address has changed: new configurations use {address}; consumers with \
         {endpoint} need a new configuration, unless it is a name (node.endpoint)"
    );
    template.change(|template| PeerTemplate { endpoint: address.to_string(), ..template.clone() });
}
