//! The benchmarks' cable: what comes in at one end leaves at the other. An object of its own, which
//! no node contains.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macro takes them away from the function that it makes")]
#![expect(unsafe_code, reason = "the kernel's helpers are unsafe to call")]

use aya_ebpf::{helpers::generated::bpf_redirect, macros::xdp, programs::XdpContext};

/// How the kernel's loader knows what the program may call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Sends a frame on to the interface whose number differs from this one's in the lowest bit. The
/// frame arrives there as one that a driver hands on (`ndo_xdp_xmit`): without a packet buffer.
#[xdp(frags)]
pub fn weir_cable(ctx: XdpContext) -> u32 {
    let interface = ctx.ingress_ifindex() as u32 ^ 1;
    // SAFETY: the helper takes two numbers, and touches no memory of this program.
    (unsafe { bpf_redirect(interface, 0) }) as u32
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
