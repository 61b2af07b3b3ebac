//! The kernel's notifications, and when to look though there was none.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::{Duration, Instant},
};

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::nft;

/// RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF, IPV6_NETCONF.
const ROUTE_GROUPS: [u32; 7] = [1, 5, 7, 9, 11, 24, 25];
/// NFNLGRP_NFTABLES.
const NFTABLES_GROUP: u32 = 7;
/// After a notification no other one of its kind is read for this long: they come in crowds.
const ROUTE_PAUSE: Duration = Duration::from_millis(100);
const NFTABLES_PAUSE: Duration = Duration::from_millis(10);
/// What may wait in a socket, in bytes. When it is full the kernel says so, and all is looked at.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// The sockets of notifications.
pub(super) struct Events {
    stop: UnixStream,
    route: Source,
    nftables: Source,
    /// Weir's sets in a transaction whose end has not been read.
    elements: nft::ElementEvents,
}

struct Source {
    socket: Socket,
    quiet_until: Instant,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// The node stops.
    pub(super) stop: bool,
    /// Links, addresses, routes or their switches have changed.
    pub(super) route: bool,
    /// A table of nftables has changed.
    pub(super) nftables: bool,
    /// The last change in which elements of weir's own sets were changed.
    pub(super) elements: Option<u32>,
}

impl Events {
    /// Subscribes. `stop` ends each wait once its other end is closed.
    pub(super) fn subscribe(stop: UnixStream) -> io::Result<Self> {
        Ok(Self {
            stop,
            route: Source::subscribe(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            nftables: Source::subscribe(NETLINK_NETFILTER, &[NFTABLES_GROUP])?,
            elements: nft::ElementEvents::default(),
        })
    }

    /// Waits for a notification, at most until `end`.
    pub(super) fn wait(&mut self, end: Instant) -> io::Result<Woken> {
        let now = Instant::now();
        let heard = |source: &Source| source.quiet_until <= now;
        let sources = [&self.route, &self.nftables].map(|source| (source, heard(source)));
        let next = sources.iter().filter(|(_, heard)| !heard).map(|(it, _)| it.quiet_until);
        let timeout = next.fold(end, Instant::min).saturating_duration_since(now);
        let mut polled = vec![PollFd::new(&self.stop, PollFlags::IN)];
        for (source, heard) in sources {
            let flags = if heard { PollFlags::IN } else { PollFlags::empty() };
            polled.push(PollFd::from_borrowed_fd(source.socket.as_fd(), flags));
        }
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready =
            |number: usize| polled.get(number).is_some_and(|it| !it.revents().is_empty());
        let (stop, route, nftables) = (is_ready(0), is_ready(1), is_ready(2));
        if route {
            self.route.drain(ROUTE_PAUSE, |_| {})?;
        }
        if nftables {
            let elements = &mut self.elements;
            self.nftables.drain(NFTABLES_PAUSE, |datagram| match datagram {
                Some(datagram) => elements.take(datagram),
                None => elements.forget(),
            })?;
        }
        Ok(Woken { stop, route, nftables, elements: self.elements.changed() })
    }
}

impl Source {
    fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, quiet_until: Instant::now() })
    }

    /// Reads all that has come; `None` stands for what was lost for want of room.
    fn drain(&mut self, pause: Duration, mut take: impl FnMut(Option<&[u8]>)) -> io::Result<()> {
        self.quiet_until = Instant::now() + pause;
        // A bound, as they may come as fast as they are read.
        for _ in 0..10_000 {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => take(Some(&datagram)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // All but elements is looked at anyway.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => take(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
