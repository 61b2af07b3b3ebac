//! One of each thing that weir's tests, benchmarks, fuzz targets and `weir bench` need.
//!
//! Always there: the consumer's end of a [`tunnel`], inner [`packet`]s, and [`wait`]ing.
//!
//! With the feature `pipeline`: a node's packet path in this process, without I/O ([`pipeline`]).
//!
//! With the feature `netns`, which needs root at run time:
//! - A [`Namespace`] holds a network; [`rig`] joins two of them, with a [`node`] in one, and
//!   [`consumer`]s and servers in the other.
//! - A [`node`] is a [`child`] process, `weir run`, with [`settings`].
//! - [`wireguard`] runs other implementations of WireGuard.
//! - [`load`] goes up and [`download`] goes down, checked at the other end ([`sink`]), while a
//!   [`meter`] reads what it costs.
//!
//! With the feature `flood`: what an attacker sends ([`flood`]).

#[cfg(feature = "netns")]
mod cable;
#[cfg(feature = "netns")]
pub mod child;
#[cfg(feature = "netns")]
pub mod cipher;
#[cfg(feature = "netns")]
pub mod command;
#[cfg(feature = "netns")]
pub mod consumer;
#[cfg(feature = "netns")]
pub mod counts;
#[cfg(feature = "netns")]
pub mod download;
#[cfg(feature = "flood")]
pub mod flood;
#[cfg(feature = "netns")]
pub mod frames;
pub mod kill;
#[cfg(feature = "netns")]
pub mod lab_lock;
#[cfg(feature = "netns")]
pub mod load;
#[cfg(feature = "netns")]
pub mod meter;
#[cfg(feature = "netns")]
pub mod namespace;
#[cfg(feature = "netns")]
pub mod node;
pub mod packet;
#[cfg(feature = "pipeline")]
pub mod pipeline;
#[cfg(feature = "netns")]
pub mod process;
#[cfg(feature = "netns")]
pub mod rig;
#[cfg(feature = "netns")]
pub mod settings;
#[cfg(feature = "netns")]
pub mod sink;
#[cfg(feature = "netns")]
pub mod socket;
pub mod tunnel;
pub mod wait;
#[cfg(feature = "netns")]
pub mod window;
#[cfg(feature = "netns")]
pub mod wireguard;

#[cfg(feature = "netns")]
pub use self::{namespace::Namespace, settings::Settings};
pub use self::{tunnel::Tunnel, wait::until};
