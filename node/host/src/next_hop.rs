//! The uplink's next hops, for a packet path that writes Ethernet frames itself.
//!
//! 1. `routing` reads what the kernel knows: link, rules, routes, neighbours.
//! 2. `judge`, which is pure, says whether that is plain enough to be followed without the kernel,
//!    and makes a snapshot of it: [`NextHops`]. Otherwise it says why not: [`NotPlain`].
//! 3. [`Watch`] does both again at each notification of the kernel's, and passes on what is new.
//!    It has the kernel keep the gateways' Ethernet addresses fresh, and those of the neighbours
//!    that a [`Resolver`] was asked for. `probes` says which and when, and is pure too.
//!
//! Everything happens in the network namespace of the calling thread.

use std::collections::BTreeSet;

use weir_packet::ethernet::NextHops;

use super::{netlink::NetlinkError, uplink::Uplink};

mod events;
mod judge;
mod not_plain;
mod probes;
mod routing;
mod watch;

pub use self::{
    not_plain::NotPlain,
    watch::{Resolver, Watch},
};
use routing::Routing;

/// What the kernel's routes come to.
pub type Judged = Result<NextHops, NotPlain>;

/// The next hops as they are now, with the neighbours that the kernel happens to know.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn read(uplink: &Uplink) -> Result<Judged, NetlinkError> {
    Ok(judge::judge(uplink, &Routing::read(uplink.index)?, &BTreeSet::new()))
}
