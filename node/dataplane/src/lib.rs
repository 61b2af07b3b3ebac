//! The packet path of a node. Start it with [`Dataplane::start`].
//!
//! The way of a packet up, from a consumer to the internet:
//!
//! 1. A pinned thread for each core ([`worker`]) receives datagrams through its [`io`] backend:
//!    [`io::uring`] or [`io::syscall`], and [`io::xsk`] beside either.
//! 2. [`pipeline::decapsulate`] classifies, opens, admits and accounts each data message, and
//!    coalesces the packets of a flow (`weir_packet::gro`).
//! 3. The backend writes the super-packets to the worker's TUN queue ([`io::tx`]).
//!
//! The way down is the reverse: [`pipeline::encapsulate`] segments (`weir_packet::gso`), admits and
//! seals what the TUN queue brings, and batches it for `UDP_SEGMENT`. [`pipeline::timers`] does the
//! rest. Initiations go to the [`handshake`] thread first; a [`mailbox`] is where threads hand each
//! other what is not theirs. [`limit`] has the policers and meters.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the tour is for readers of the source: cargo doc --document-private-items"
)]

mod control;
mod counts;
mod exit;
mod handshake;
mod io;
mod limit;
mod mailbox;
mod now;
mod outer;
mod peer;
mod pipeline;
mod start;
mod stats;
#[cfg(test)]
mod testing;
mod waker;
mod worker;

pub use crate::{
    counts::Counts,
    exit::{ExitPlan, Exits, OwnedBlock},
    handshake::{Limits as HandshakeLimits, mailbox::HandshakeMailbox},
    io::{
        udp::{Sockets, bind},
        uplink::open_uplink,
        uring::{Reads, probe},
        xsk::{Sources, XskMode, XskQueues},
    },
    limit::{
        flow_key::FlowSecret,
        flows::{MAX_DESTINATIONS, MAX_NEW_FLOWS},
    },
    pipeline::{Cipher, Shared, gso_batch::UdpSegmentation},
    start::{Dataplane, Io, OnEnd, Start, ThreadEnded},
};

/// What benchmarks and fuzz targets drive without I/O. It may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        mailbox::Initiation,
        now::Now,
        peer::Peer,
        pipeline::{
            Pipeline,
            encapsulate::{Handled, TAILROOM},
            outlet::Device,
        },
        stats::WorkerStats,
    };
}
