//! The node's own services inside the tunnel, at the gateway's addresses and nowhere else.
//!
//! Whoever asks is known by the inner source address, which the packet path lets nobody forge: see
//! [`door`]. A paused session reaches these services too, at the trickle that the guard leaves it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};
use weir_common::AddressPlan;

use crate::resolver::Resolver;
use weir_config::{Config, sections::DNS_PORT};
use weir_sessions::registry::Sessions;

pub mod allowance;
pub mod dns;
mod door;
pub mod pay;

use dns::Dns;
use door::Door;
use pay::Pay;

/// Why a service is not there.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address and port cannot be had.
    #[error("cannot serve {what} at {address} inside the tunnel: {source}. Fix: {fix}.")]
    Bind {
        /// The service.
        what: &'static str,
        /// Its place.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
        /// What to do about it.
        fix: &'static str,
    },
    /// Whoever approves promises cannot be asked.
    #[error("{0:#}. Fix: check payment.approve_url and payment.approve_ca_file.")]
    Pay(anyhow::Error),
    /// The DNS forwarder cannot be made.
    #[error("{0:#}. Fix: check dns.upstreams, or set dns.enabled = false.")]
    Dns(anyhow::Error),
}

/// The services, bound and not yet served.
#[derive(Debug, Default)]
pub struct Gateway {
    pay: Option<(Vec<Door>, Pay)>,
    dns: Option<(Vec<UdpSocket>, Vec<Door>, Dns)>,
}

impl Gateway {
    /// Binds what the configuration asks for to the gateway's addresses. `resolver` has the
    /// machine's own name servers, whom the gateway asks where the configuration names none. `has_ipv6` says
    /// whether this machine has IPv6 at all.
    ///
    /// # Errors
    ///
    /// Says which address and port cannot be had.
    pub async fn bind(
        config: &Config,
        sessions: &Arc<Sessions>,
        name_servers: watch::Receiver<Vec<IpAddr>>,
        resolver: &Resolver,
        has_ipv6: bool,
    ) -> Result<Self, GatewayError> {
        let plan = config.tunnel.plan();
        let mut gateway = Self::default();
        if let Some(pay) =
            Pay::new(&config.payment, sessions, resolver).map_err(GatewayError::Pay)?
        {
            let (what, fix) =
                ("payments", "stop what uses the port (ss -tlnp), or set payment.port");
            let mut doors = Vec::new();
            for address in addresses(&plan, config.payment.port, has_ipv6) {
                let bound = TcpListener::bind(address).await;
                let listener = bound.map_err(failure(what, address, fix))?;
                doors.push(Door::new(listener, plan, sessions));
            }
            gateway.pay = Some((doors, pay));
        }
        if let Some(dns) = Dns::new(config, sessions, name_servers).map_err(GatewayError::Dns)? {
            let (what, fix) = (
                "DNS",
                "make the machine's own DNS server (ss -ulpn) listen only on the addresses that \
                 it needs, or set dns.enabled = false",
            );
            let (mut sockets, mut doors) = (Vec::new(), Vec::new());
            for address in addresses(&plan, DNS_PORT, has_ipv6) {
                sockets.push(UdpSocket::bind(address).await.map_err(failure(what, address, fix))?);
                let bound = TcpListener::bind(address).await;
                let listener = bound.map_err(failure(what, address, fix))?;
                doors.push(Door::new(listener, plan, sessions));
            }
            gateway.dns = Some((sockets, doors, dns));
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
        if let Some((sockets, doors, dns)) = self.dns {
            tasks.spawn(dns.clone().follow(stopped.clone()));
            for socket in sockets {
                tasks.spawn(dns.clone().serve_udp(socket, stopped.clone()));
            }
            for door in doors {
                tasks.spawn(dns.clone().serve_tcp(door, stopped.clone()));
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

fn failure(
    what: &'static str,
    address: SocketAddr,
    fix: &'static str,
) -> impl FnOnce(io::Error) -> GatewayError {
    move |source| GatewayError::Bind { what, address, source, fix }
}

/// The gateway's addresses. IPv6 may be off on this machine, and consumers get IPv4 alone then.
fn addresses(plan: &AddressPlan, port: u16, has_ipv6: bool) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((plan.gateway_v4(), port))];
    if has_ipv6 {
        addresses.push(SocketAddr::from((plan.gateway_v6(), port)));
    }
    addresses
}
