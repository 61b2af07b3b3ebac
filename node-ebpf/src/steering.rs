//! The choice of a worker: which UDP socket a datagram goes to, and which TUN queue a packet.

use aya_ebpf::{
    bindings::sk_action,
    macros::{sk_reuseport, socket_filter},
    programs::{SkBuffContext, SkReuseportContext},
};
use weir_common::{steering::Family, wire::Message};

use crate::{
    maps::{CONFIG, SOCKETS},
    memory::udp_bytes,
};

const UDP_HEADER: u32 = 8;
const ETH_P_IPV6: u16 = 0x86dd;

/// Chooses the socket that reads a datagram. Whatever it says, the kernel delivers: without a
/// choice it takes a socket by hash.
#[sk_reuseport]
pub fn weir_reuseport(ctx: SkReuseportContext) -> u32 {
    if let Some(config) = CONFIG.get(0) {
        let prefix = udp_bytes::<{ Message::PREFIX }>(&ctx, UDP_HEADER);
        let reader = config.reader_of(&prefix.unwrap_or_default());
        let v6 = ctx.eth_protocol() == u32::from(ETH_P_IPV6.to_be());
        let family = if v6 { Family::V6 } else { Family::V4 };
        // It fails where a socket is missing: then the kernel's hash decides.
        let _chosen = SOCKETS.select_reuseport(&ctx, config.socket_index(family, reader));
    }
    sk_action::SK_PASS
}

/// Chooses the TUN queue of a packet to a consumer. The packet begins with its IP header; the
/// kernel takes the result modulo the number of queues.
#[socket_filter]
pub fn weir_steer(ctx: SkBuffContext) -> i64 {
    i64::from(worker_of(&ctx).unwrap_or(0))
}

#[inline(always)]
fn worker_of(ctx: &SkBuffContext) -> Option<u32> {
    let config = CONFIG.get(0)?;
    let version: u8 = ctx.load(0).ok()?;
    match version >> 4 {
        4 => Some(config.worker_of_v4(ctx.load(16).ok()?)),
        6 => Some(config.worker_of_v6(ctx.load(24).ok()?)),
        _ => None,
    }
}
