//! The node's own services inside the tunnel, at the gateway's addresses and nowhere else.
//!
//! Whoever asks is known by the inner source address, which the packet path lets nobody forge: see
//! [`door`]. A paused session reaches these services too, at the trickle that the guard leaves it.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, sync::watch};
use weir_common::AddressPlan;

use crate::{config::Config, session::registry::Sessions};

pub mod allowance;
mod door;
pub mod pay;

use door::Door;
use pay::Pay;

/// Why a service is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} at {address} inside the tunnel: {source}. Fix: {fix}.")]
pub struct GatewayError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
    fix: &'static str,
}

/// The services, bound and not yet served.
#[derive(Debug, Default)]
pub struct Gateway {
    pay: Option<(Vec<Door>, Pay)>,
}

impl Gateway {
    /// Binds what the configuration asks for to the gateway's addresses.
    ///
    /// # Errors
    ///
    /// Says which address and port cannot be had.
    pub async fn bind(config: &Config, sessions: &Arc<Sessions>) -> Result<Self, GatewayError> {
        let plan = config.tunnel.plan();
        let mut gateway = Self::default();
        if let Some(pay) = Pay::new(&config.payment, sessions) {
            let mut doors = Vec::new();
            for address in addresses(&plan, config.payment.port) {
                let what = "payments";
                let fix = "stop what uses the port (ss -tlnp), or set payment.port";
                let bound = TcpListener::bind(address).await;
                let listener =
                    bound.map_err(|source| GatewayError { what, address, source, fix })?;
                doors.push(Door::new(listener, plan, sessions));
            }
            gateway.pay = Some((doors, pay));
        }
        Ok(gateway)
    }

    /// Serves until `stopped` says so.
    ///
    /// # Errors
    ///
    /// When a listener fails for good.
    pub async fn serve(self, stopped: watch::Receiver<bool>) -> io::Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        if let Some((doors, pay)) = self.pay {
            for door in doors {
                tasks.spawn(door.serve(pay.router(), stopped.clone()));
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        // There may be nothing to serve.
        let mut stopped = stopped;
        stopped.wait_for(|stopped| *stopped).await.ok();
        Ok(())
    }
}

/// The gateway's addresses. IPv6 may be off on this machine, and consumers get IPv4 alone then.
fn addresses(plan: &AddressPlan, port: u16) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((plan.gateway_v4(), port))];
    if crate::host::has_ipv6() {
        addresses.push(SocketAddr::from((plan.gateway_v6(), port)));
    }
    addresses
}
