//! The benchmarks' cable: what comes in at one end leaves at the other.

use aya_ebpf::{macros::xdp, programs::XdpContext};

use crate::memory::redirect;

/// Sends a frame on to the interface whose number differs from this one's in the lowest bit. The
/// frame arrives there as one that a driver hands on (`ndo_xdp_xmit`): without a packet buffer.
#[xdp(frags)]
pub fn weir_cable(ctx: XdpContext) -> u32 {
    redirect(ctx.ingress_ifindex() as u32 ^ 1)
}
