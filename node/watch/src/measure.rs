//! What a watcher sees from inside the tunnel.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::sleep;
use weir_connect::{
    bill::Comparison,
    clock::{self, MILLISECOND, SECOND},
    conf::Conf,
    gateway::Gateway,
    inside::{INTERFACE, Inside},
    probe::Probe,
};
use weir_market::place::Places;

use crate::{
    http::Ask,
    judge::{Compared, Found},
    names,
    targets::Resolved,
};

/// The time for a handshake: three initiations, which are 5 s apart.
const HANDSHAKE_TIMEOUT: u64 = 15 * SECOND;
/// Between two looks whether there is an answer.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Between two packets that call for a handshake.
const CALL_INTERVAL: u64 = 500 * MILLISECOND;
/// Round trips that are measured.
const PROBES: usize = 5;
/// The time for one of them.
const PROBE_TIMEOUT: u64 = SECOND;
/// The time for one transfer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a server is asked that does not answer.
const ATTEMPTS: usize = 2;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure<'a> {
    /// The consumer's end of the tunnel.
    pub conf: &'a Conf,
    /// What to measure against.
    pub targets: &'a Resolved,
    /// The operator's databases of addresses.
    pub places: &'a Places,
    /// The bytes that may be used in all.
    pub max_bytes: u64,
    /// When the tunnel was begun, in nanoseconds since boot.
    pub began: u64,
}

/// Measures from inside the namespace of the tunnel.
///
/// # Errors
///
/// When something of this machine fails.
pub fn measure(inside: &Inside, measure: Measure<'_>) -> anyhow::Result<Found> {
    inside.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(measure.all(inside))
    })
}

impl Measure<'_> {
    async fn all(&self, inside: &Inside) -> anyhow::Result<Found> {
        let gateway = self.conf.gateway();
        let probe = gateway.map(|to| Probe::new(INTERFACE, to)).transpose();
        let mut probe = probe.context("cannot open a socket for pings")?;
        let handshake_ms = self.handshake(inside, probe.as_mut()).await?;
        let mut found = Found { handshake_ms, ..Found::default() };
        if found.handshake_ms.is_none() {
            return Ok(found);
        }
        let services = gateway.map(|address| Gateway::new(address, INTERFACE));
        let mut comparison = Comparison::default();
        let mut before = None;
        let asked = inside.counts()?;
        if let Some(services) = &services
            && let Ok(left) = services.left().await
        {
            comparison.compare(left.used_bytes, asked.counted(), inside.counts()?.counted());
            before = Some((left.used_bytes, asked.total()));
        }
        if let Some(probe) = &mut probe {
            found.rtt_ms = round_trip(probe).await;
        }
        self.address(&mut found).await;
        if found.is_carrying || self.targets.down_url.is_some() {
            self.transfers(&mut found).await;
        }
        if found.is_carrying
            && let Some(check) = &self.targets.name
        {
            found.names = names::check(&self.conf.dns, check).await;
        }
        if let (Some(services), Some((billed_before, counted_before))) = (&services, before)
            && let Ok(left) = services.left().await
        {
            let counts = inside.counts()?;
            found.compared = Some(Compared {
                billed: left.used_bytes.saturating_sub(billed_before),
                counted: counts.total().saturating_sub(counted_before),
                bill: comparison.compare(left.used_bytes, asked.counted(), counts.counted()),
            });
        }
        Ok(found)
    }

    /// Waits for the handshake, and says how many milliseconds it took.
    async fn handshake(
        &self,
        inside: &Inside,
        mut probe: Option<&mut Probe>,
    ) -> anyhow::Result<Option<u32>> {
        let call = Call::new(self.targets.outside());
        let mut next_call = 0;
        loop {
            let now = clock::now();
            if inside.counts()?.is_established {
                return Ok(Some(milliseconds(now.saturating_sub(self.began))));
            }
            if now.saturating_sub(self.began) > HANDSHAKE_TIMEOUT {
                return Ok(None);
            }
            // The kernel's WireGuard begins with the first packet.
            if now >= next_call {
                next_call = now + CALL_INTERVAL;
                match &mut probe {
                    Some(probe) => probe.send(),
                    None => call.send(),
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Has a server say by which address it is asked.
    async fn address(&self, found: &mut Found) {
        let ask = match (&self.targets.address_url, &self.targets.server) {
            (Some(url), _) => (url, ""),
            (None, Some(server)) => (server, "/address"),
            (None, None) => return,
        };
        for _ in 0..ATTEMPTS {
            if let Ok(answer) = Ask::get(ask.0, ask.1).limit(256, TRANSFER_TIMEOUT).send().await {
                found.is_carrying = true;
                let address = answer.text.trim().parse::<IpAddr>().ok();
                found.address = address.filter(|_| answer.is_success).map(|it| it.to_canonical());
                found.place = found.address.map(|it| self.places.find(it)).unwrap_or_default();
                return;
            }
        }
    }

    /// Measures both directions, down with four times as much as up.
    async fn transfers(&self, found: &mut Found) {
        // What else there is, and the headers of packets, need some of it.
        let (down, up) = (self.max_bytes / 2, self.max_bytes / 8);
        let fetched = match (&self.targets.down_url, &self.targets.server) {
            (Some(url), _) => Ask::get(url, "").limit(down, TRANSFER_TIMEOUT).send().await.ok(),
            (None, Some(server)) => {
                let below = format!("/down?bytes={down}");
                Ask::get(server, &below).limit(down, TRANSFER_TIMEOUT).send().await.ok()
            }
            (None, None) => None,
        };
        if let Some(answer) = fetched {
            found.is_carrying |= answer.bytes > 0;
            found.down = answer.is_success.then(|| answer.rate(answer.bytes));
        }
        if let Some(server) = &self.targets.server {
            let body = vec![0; usize::try_from(up).unwrap_or(0)];
            let sent = Ask::post(server, "/up", body).limit(256, TRANSFER_TIMEOUT).send().await;
            found.up = sent.ok().filter(|it| it.is_success).map(|answer| answer.rate(up));
        }
    }
}

/// The median of some round trips, in milliseconds; `None` if none was answered.
async fn round_trip(probe: &mut Probe) -> Option<u32> {
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = clock::now();
        probe.send();
        while clock::now().saturating_sub(began) < PROBE_TIMEOUT {
            if probe.is_answered() {
                times.push(clock::now().saturating_sub(began));
                break;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().map(milliseconds)
}

/// Nanoseconds as milliseconds, rounded up: nothing takes no time.
fn milliseconds(nanos: u64) -> u32 {
    u32::try_from(nanos.div_ceil(MILLISECOND)).unwrap_or(u32::MAX)
}

/// A packet to the outside that nobody need answer.
struct Call(Option<(UdpSocket, SocketAddr)>);

impl Call {
    /// The port of the discard protocol (RFC 863).
    const DISCARD: u16 = 9;

    fn new(to: Option<SocketAddr>) -> Self {
        Self(to.and_then(|to| {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).ok()?;
            Some((socket, SocketAddr::new(to.ip(), Self::DISCARD)))
        }))
    }

    fn send(&self) {
        if let Some((socket, to)) = &self.0 {
            // One that cannot be sent calls for nothing.
            socket.send_to(&[0], to).ok();
        }
    }
}
