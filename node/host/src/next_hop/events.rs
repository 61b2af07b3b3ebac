//! Waits for the kernel's notifications, and for those who ask for a neighbour.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        fd::AsFd as _,
        unix::net::{UnixDatagram, UnixStream},
    },
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE,
/// NEXTHOP.
const GROUPS: [u32; 9] = [1, 3, 5, 7, 8, 9, 11, 19, 32];
/// RTM_NEWNEIGH to RTM_GETNEIGH.
const NEIGHBOUR_MESSAGES: std::ops::RangeInclusive<u16> = 28..=30;
/// The offset of `ndm_ifindex` behind the header of a netlink message, of 16 bytes.
const NEIGHBOUR_INTERFACE: std::ops::Range<usize> = 16 + 4..16 + 8;
/// What may wait in the socket, in bytes. When it is full the kernel says so, and all is read again.
const RECEIVE_BUFFER: u32 = 1 << 20;
/// The most notifications that are read in a row, as they may come as fast as they are read.
const MAX_READ: usize = 10_000;

/// What the watch waits for.
pub(super) struct Events {
    /// Its other end is closed to end the watch.
    stop: UnixStream,
    netlink: Socket,
    asks: UnixDatagram,
    /// The uplink's number: the neighbours of other interfaces are passed over.
    uplink: u32,
}

/// Why a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The watch is stopped.
    Stop,
    /// Something may have changed, or it is time, or these neighbours were asked for.
    Look(Vec<IpAddr>),
}

impl Events {
    /// Subscribes, in the network namespace of this thread.
    pub(super) fn subscribe(uplink: u32, stop: UnixStream, asks: UnixDatagram) -> io::Result<Self> {
        let mut netlink = Socket::new(NETLINK_ROUTE)?;
        netlink.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            match netlink.add_membership(group) {
                // A kernel without this group has nothing of its kind.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                joined => joined?,
            }
        }
        netlink.set_rx_buf_sz(RECEIVE_BUFFER)?;
        netlink.set_non_blocking(true)?;
        asks.set_nonblocking(true)?;
        Ok(Self { stop, netlink, asks, uplink })
    }

    /// Waits until `begin` whatever comes, then for something to come, at most until `end`.
    pub(super) fn wait(&mut self, begin: Instant, end: Instant) -> io::Result<Woken> {
        if self.poll(PollFlags::empty(), begin)? {
            return Ok(Woken::Stop);
        }
        loop {
            if self.poll(PollFlags::IN, end)? {
                return Ok(Woken::Stop);
            }
            let asked = self.asked();
            if self.has_changed()? || !asked.is_empty() || Instant::now() >= end {
                return Ok(Woken::Look(asked));
            }
        }
    }

    /// Waits for `flags` of the sources, at most until `end`; whether the watch is stopped.
    fn poll(&self, flags: PollFlags, end: Instant) -> io::Result<bool> {
        let timeout = end.saturating_duration_since(Instant::now());
        let mut polled = [
            PollFd::new(&self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.netlink.as_fd(), flags),
            PollFd::new(&self.asks, flags),
        ];
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [stop, ..] = polled;
        Ok(!stop.revents().is_empty())
    }

    /// Reads all notifications; whether one of them can matter.
    fn has_changed(&mut self) -> io::Result<bool> {
        let mut has_changed = false;
        for _ in 0..MAX_READ {
            match self.netlink.recv_from_full() {
                Ok((datagram, _)) => has_changed |= concerns(&datagram, self.uplink),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Some were lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => has_changed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(has_changed)
    }

    /// Reads which neighbours were asked for.
    fn asked(&self) -> Vec<IpAddr> {
        let mut asked = Vec::new();
        let mut bytes = [0; 16];
        while asked.len() < MAX_READ
            && let Ok(len) = self.asks.recv(&mut bytes)
        {
            asked.extend(decode(bytes.get(..len).unwrap_or_default()));
        }
        asked
    }
}

/// Whether a notification is about anything but neighbours of other interfaces.
fn concerns(datagram: &[u8], uplink: u32) -> bool {
    let Some(&[_, _, _, _, low, high]) = datagram.first_chunk::<6>() else { return true };
    if !NEIGHBOUR_MESSAGES.contains(&u16::from_ne_bytes([low, high])) {
        return true;
    }
    let index = datagram.get(NEIGHBOUR_INTERFACE).and_then(|bytes| bytes.try_into().ok());
    index.is_none_or(|index| u32::from_ne_bytes(index) == uplink)
}

/// An address as a datagram.
pub(super) fn encode(address: IpAddr, buffer: &mut [u8; 16]) -> &[u8] {
    match address {
        IpAddr::V4(address) => {
            let octets = address.octets();
            for (to, from) in buffer.iter_mut().zip(octets) {
                *to = from;
            }
            buffer.get(..octets.len()).unwrap_or_default()
        }
        IpAddr::V6(address) => {
            *buffer = address.octets();
            buffer
        }
    }
}

fn decode(datagram: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(datagram).ok().map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(datagram).ok().map(|octets| Ipv6Addr::from(octets).into());
    v4().or_else(v6)
}

/// How long nothing is read after a read that took `reading`: at most a fifth of the time is spent on
/// it, and notifications come in crowds.
pub(super) fn pause(reading: Duration) -> Duration {
    const MIN_PAUSE: Duration = Duration::from_millis(20);
    (reading * 4).max(MIN_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_of_other_interfaces_are_passed_over() {
        let message = |kind: u16, index: u32| {
            let mut message = vec![0; 28];
            message[4..6].copy_from_slice(&kind.to_ne_bytes());
            message[20..24].copy_from_slice(&index.to_ne_bytes());
            message
        };
        for (kind, index, wanted) in
            [(28, 2, true), (28, 3, false), (29, 3, false), (16, 3, true), (24, 3, true)]
        {
            assert_eq!(concerns(&message(kind, index), 2), wanted, "{kind} {index}");
        }
        assert!(concerns(&message(28, 3)[..22], 2) && concerns(&[], 2));
    }

    #[test]
    fn an_address_comes_out_as_it_went_in() {
        for text in ["45.80.2.1", "2a0c::1", "::ffff:45.80.2.1"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(decode(encode(address, &mut [0; 16])), Some(address));
        }
        assert_eq!(decode(&[1, 2, 3]), None);
    }
}
