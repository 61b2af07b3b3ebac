//! The node's own services inside the tunnel, at the gateway's addresses and nowhere else.
//!
//! A client is known by its inner source address, which the packet path lets nobody forge: see
//! `listener.rs`. A paused session reaches these services too, within its paused allowance.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::Router;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};
use weir_common::AddressPlan;

use crate::{ecash::Cashu, resolver::Resolver};
use weir_config::{Config, sections::DNS_PORT};
use weir_sessions::registry::Sessions;

pub(crate) mod allowance;
pub mod dns;
mod listener;
mod page;
pub mod pay;
pub mod prepay;

use dns::Dns;
use listener::SessionListener;
use pay::Pay;
use prepay::Prepay;

/// Why a service is not there.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address and port cannot be had.
    #[error("cannot serve {what} at {address} inside the tunnel: {source}. Fix: {fix}.")]
    Bind {
        /// The service.
        what: &'static str,
        /// Its address and port.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
        /// What to do about it.
        fix: &'static str,
    },
    /// The service that approves promises cannot be asked.
    #[error("{0:#}. Fix: check payment.approve_url and payment.approve_ca_file.")]
    Pay(anyhow::Error),
    /// The DNS forwarder cannot be made.
    #[error("{0:#}. Fix: check dns.upstreams, or set dns.enabled = false.")]
    Dns(anyhow::Error),
}

/// The services, bound and not yet served.
#[derive(Debug, Default)]
pub struct Gateway {
    /// What is served over HTTP, and where.
    http: Vec<(SessionListener, Router)>,
    dns: Option<(Vec<UdpSocket>, Vec<SessionListener>, Dns)>,
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
        cashu: Option<&Arc<Cashu>>,
        has_ipv6: bool,
    ) -> Result<Self, GatewayError> {
        let plan = config.tunnel.plan();
        let mut gateway = Self::default();
        let pay = Pay::new(&config.payment, sessions, resolver).map_err(GatewayError::Pay)?;
        let prepay = config.has_payments().then(|| Prepay::new(config, sessions, cashu));
        if config.has_payments() {
            let fix = "stop what uses the port (ss -tlnp), or set payment.port";
            let routes = [pay.map(|pay| pay.routes()), prepay.as_ref().map(Prepay::routes)];
            let routes = routes.into_iter().flatten().fold(Router::new(), Router::merge);
            let router = pay::finish(routes);
            for address in addresses(&plan, config.payment.port, has_ipv6) {
                let listener = listen("payments", address, fix, plan, sessions).await?;
                gateway.http.push((listener, router.clone()));
            }
        }
        if let Some(prepay) = prepay.filter(|_| config.has_page()) {
            let fix = "stop what uses the port (ss -tlnp), set voucher.page_port, or set \
                       voucher.page = false";
            for address in addresses(&plan, config.voucher.page_port, has_ipv6) {
                let listener = listen("the page", address, fix, plan, sessions).await?;
                gateway.http.push((listener, page::router(&prepay)));
            }
        }
        if let Some(dns) = Dns::new(config, sessions, name_servers).map_err(GatewayError::Dns)? {
            let (what, fix) = (
                "DNS",
                "make the machine's own DNS server (ss -ulpn) listen only on the addresses that \
                 it needs, or set dns.enabled = false",
            );
            let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
            for address in addresses(&plan, DNS_PORT, has_ipv6) {
                sockets.push(UdpSocket::bind(address).await.map_err(failure(what, address, fix))?);
                let bound = TcpListener::bind(address).await;
                let listener = bound.map_err(failure(what, address, fix))?;
                listeners.push(SessionListener::new(listener, plan, sessions));
            }
            gateway.dns = Some((sockets, listeners, dns));
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
        for (listener, router) in self.http {
            tasks.spawn(listener.serve(router, stopped.clone()));
        }
        if let Some((sockets, listeners, dns)) = self.dns {
            tasks.spawn(dns.clone().follow(stopped.clone()));
            for socket in sockets {
                tasks.spawn(dns.clone().serve_udp(socket, stopped.clone()));
            }
            for listener in listeners {
                tasks.spawn(dns.clone().serve_tcp(listener, stopped.clone()));
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

async fn listen(
    what: &'static str,
    address: SocketAddr,
    fix: &'static str,
    plan: AddressPlan,
    sessions: &Arc<Sessions>,
) -> Result<SessionListener, GatewayError> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(failure(what, address, fix))?;
    Ok(SessionListener::new(listener, plan, sessions))
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
