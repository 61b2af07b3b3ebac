//! Return traffic of the NAT.
#![expect(unsafe_code, reason = "names that the linker keeps, and the kernel's sockets")]

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_tuple, xdp_md},
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    programs::XdpContext,
};
use weir_common::{
    exit::{ExitConfig, ReturnTraffic},
    ip::{TCP, UDP},
    packet::Frame as _,
};

use crate::{
    maps::EXIT,
    memory::{Head, Maps},
};

/// The frame of a context. Only one that is whole in its first piece is return traffic.
pub struct OfFrame<'a> {
    /// The context.
    pub ctx: &'a XdpContext,
    /// The external addresses.
    pub exit: &'a ExitConfig,
}

impl ReturnTraffic for OfFrame<'_> {
    #[inline(always)]
    fn is_routed(&self) -> bool {
        self.exit.is_routed(&Head(self.ctx))
    }

    #[inline(always)]
    fn is_translated(&self) -> bool {
        let ctx = self.ctx.as_ptr().cast();
        !self.exit.is_off() && weir_is_translated(ctx) != 0 && weir_is_hosts(ctx) == 0
    }
}

/// 1 if a frame is to an address and a port of the NAT, else 0. The verifier walks through a global
/// function once, and not for each way to a call of it; it takes nothing but the context and
/// numbers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_is_translated(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    EXIT.get(0).is_some_and(|exit| exit.is_translated(&Head(&ctx), &Maps)).into()
}

/// `BPF_F_CURRENT_NETNS`: the network namespace of the uplink.
const CURRENT_NETNS: u64 = u64::MAX;
/// The "more fragments" flag and the fragment's offset.
const FRAGMENT: u16 = 0x3fff;

/// 1 if a socket of this machine takes a frame's segment or datagram, else 0: a service that began
/// after the node, or a program that chose its port by itself, as DNS resolvers do.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_is_hosts(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let frame = Head(&context);
    // Addresses and ports are in the frame as a `bpf_sock_tuple` has them, if nothing is between.
    match frame.bytes(12) {
        Some([0x08, 0x00]) => {
            let Some([0x45]) = frame.bytes(14) else { return 0 };
            let Some(fragment) = frame.bytes(20) else { return 0 };
            let (Some([protocol]), Some(tuple)) = (frame.bytes(23), frame.bytes::<12>(26)) else {
                return 0;
            };
            if u16::from_be_bytes(fragment) & FRAGMENT != 0 {
                return 0;
            }
            has_socket(ctx, protocol, tuple)
        }
        Some([0x86, 0xdd]) => {
            let (Some([protocol]), Some(tuple)) = (frame.bytes(20), frame.bytes::<36>(22)) else {
                return 0;
            };
            has_socket(ctx, protocol, tuple)
        }
        _ => 0,
    }
}

#[inline(always)]
fn has_socket<const N: usize>(ctx: *mut xdp_md, protocol: u8, mut tuple: [u8; N]) -> u32 {
    let (tuple, len) = (tuple.as_mut_ptr().cast::<bpf_sock_tuple>(), N as u32);
    // SAFETY: the tuple has one of the two lengths that the kernel takes, and lives during the call.
    let socket: *mut bpf_sock = unsafe {
        match protocol {
            UDP => bpf_sk_lookup_udp(ctx.cast(), tuple, len, CURRENT_NETNS, 0),
            TCP => bpf_skc_lookup_tcp(ctx.cast(), tuple, len, CURRENT_NETNS, 0),
            _ => return 0,
        }
    };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a socket that a lookup returned, which nothing uses after this.
    unsafe { bpf_sk_release(socket.cast()) };
    1
}
