//! Follows the next hops while the node serves.

use std::{
    net::IpAddr,
    os::unix::net::{UnixDatagram, UnixStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use tracing::{debug, warn};
use weir_packet::ethernet::NextHops;

use super::{
    Judged,
    events::{self, Events, Woken},
    judge::judge,
    probes::Probes,
    routing::Routing,
};
use crate::{
    netlink::{self, NetlinkError},
    uplink::Uplink,
};

/// Between two reads without a notification.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// Between two tries when the kernel does not say.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Asks the kernel for neighbours that a snapshot does not have. Clones ask for the same uplink.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<UnixDatagram>);

impl Resolver {
    /// Has the kernel look for a neighbour of the uplink: the address of
    /// [`NoNextHop::Unresolved`](weir_packet::ethernet::NoNextHop::Unresolved). When it is found, a
    /// new snapshot has it. It does not wait; what is asked while too many others wait is forgotten,
    /// so that the next packet to the neighbour asks again.
    pub fn resolve(&self, neighbour: IpAddr) {
        // Nobody listens any more, or there is no room.
        self.0.send(events::encode(neighbour, &mut [0; 16])).ok();
    }
}

/// The thread that follows the next hops.
#[derive(Debug)]
pub struct Watch {
    thread: JoinHandle<()>,
    /// Closed, it ends the thread.
    stop: UnixStream,
    resolver: Resolver,
}

impl Watch {
    /// Begins to follow the next hops of the uplink, in the network namespace of the calling thread.
    /// They are returned as they are now; what changes from then on goes to `listener`, on a thread
    /// of its own. That thread needs CAP_NET_ADMIN to have neighbours confirmed.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not say, or there is no thread.
    pub fn start(
        uplink: &Uplink,
        listener: Box<dyn Fn(&Judged) + Send>,
    ) -> anyhow::Result<(Self, Judged)> {
        let (stop, stopped) = UnixStream::pair()?;
        let (asks, asked) = UnixDatagram::pair()?;
        asks.set_nonblocking(true)?;
        // Before the first read, so that no change is missed.
        let events = Events::subscribe(uplink.index, stopped, asked)
            .context("cannot get notifications from the kernel")?;
        let mut follower = Follower { uplink: uplink.clone(), probes: Probes::default() };
        let (judged, next) =
            follower.look(Instant::now()).context("cannot read the kernel's routes")?;
        let first = judged.clone();
        let thread = thread::Builder::new()
            .name("weir-next-hop".into())
            .spawn(move || follower.run(events, judged, next, &listener))
            .context("cannot start the thread that follows the next hops")?;
        Ok((Self { thread, stop, resolver: Resolver(Arc::new(asks)) }, first))
    }

    /// Asks for neighbours.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }

    /// Ends the thread.
    ///
    /// # Errors
    ///
    /// Fails when the thread has failed.
    pub fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("following the next hops failed: please report this"))
    }
}

struct Follower {
    uplink: Uplink,
    probes: Probes,
}

impl Follower {
    fn run(
        mut self,
        mut events: Events,
        mut last: Judged,
        mut next: Option<Instant>,
        listener: &dyn Fn(&Judged),
    ) {
        let mut began = Instant::now();
        loop {
            let now = Instant::now();
            let end = next.unwrap_or(now + READ_INTERVAL).min(now + READ_INTERVAL);
            match events.wait(now + events::pause(now - began), end) {
                Ok(Woken::Stop) => return,
                Ok(Woken::Look(asked)) => {
                    for address in asked {
                        self.probes.ask(address, Instant::now());
                    }
                }
                Err(error) => {
                    // The reads go on without notifications.
                    warn!(%error, "cannot get notifications of routes from the kernel");
                    thread::sleep(RETRY_INTERVAL);
                }
            }
            began = Instant::now();
            match self.look(began) {
                Ok((judged, again)) => {
                    next = again;
                    if judged != last {
                        listener(&judged);
                        last = judged;
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot read the kernel's routes and neighbours");
                    next = Some(began + RETRY_INTERVAL);
                }
            }
        }
    }

    /// Reads and judges, and has the kernel confirm what is due; says when to do so again.
    fn look(&mut self, now: Instant) -> Result<(Judged, Option<Instant>), NetlinkError> {
        let routing = Routing::read(self.uplink.index)?;
        let judged = judge(&self.uplink, &routing, &self.probes.asked(now));
        let Ok(hops) = &judged else { return Ok((judged, None)) };
        let gateways: Vec<IpAddr> = hops.gateways.iter().flatten().copied().collect();
        let is_on_link = |address| {
            let mut networks = hops.on_link.iter();
            networks.any(|(net, len)| IpNet::new(*net, *len).is_ok_and(|it| it.contains(&address)))
        };
        let (due, next) = self.probes.due(&gateways, is_on_link, &routing.neighbours, now);
        if let Err(error) = probe(hops, &due) {
            // A neighbour of an uplink that is down cannot be asked for. It is tried again.
            debug!(%error, "cannot have the kernel look for neighbours");
        }
        Ok((judged, next))
    }
}

/// Has the kernel confirm neighbours as if a packet were sent to each: a stale one keeps its address
/// meanwhile (`neigh_event_send` in the kernel's `net/core/neighbour.c`).
fn probe(hops: &NextHops, due: &[IpAddr]) -> Result<(), NetlinkError> {
    if due.is_empty() {
        return Ok(());
    }
    netlink::run(async |handle| {
        let mut first = Ok(());
        for address in due {
            let asked = handle
                .neighbours()
                .add(hops.interface, *address)
                .state(NeighbourState::None)
                .flags(NeighbourFlags::Use)
                .replace()
                .execute()
                .await;
            first = first.and(asked);
        }
        first
    })
}
