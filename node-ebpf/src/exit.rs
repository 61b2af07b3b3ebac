//! Return traffic of the NAT.
#![expect(unsafe_code, reason = "a name that the linker keeps")]

use aya_ebpf::{EbpfContext as _, bindings::xdp_md, programs::XdpContext};
use weir_common::exit::{ExitConfig, ReturnTraffic};

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
        !self.exit.is_off() && weir_is_translated(self.ctx.as_ptr().cast()) != 0
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
