//! The XDP guard.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use weir_common::{
    Slot,
    filter::decide,
    guard::verdict_index,
    packet::{Class, Decision, Frame, Verdict},
};

use crate::{
    maps::{ACCOUNTS, CONFIG, VERDICTS},
    memory::{Linear, Maps, Scattered, Seen, add_to_tally},
};

/// For frames in one piece or several: a large MTU needs it.
#[xdp(frags)]
pub fn weir_guard(ctx: XdpContext) -> u32 {
    guard(&ctx, &Scattered(&ctx))
}

/// The same for kernels before 5.18, which know frames in one piece only.
#[xdp]
pub fn weir_guard_linear(ctx: XdpContext) -> u32 {
    guard(&ctx, &Linear(&ctx))
}

#[inline(always)]
fn guard<F: Frame>(ctx: &XdpContext, frame: &F) -> u32 {
    let Some(config) = CONFIG.get(0) else {
        debug!(ctx, "the guard has no configuration");
        return xdp_action::XDP_PASS;
    };
    let (decision, slot) = decide(frame, config, &Maps);
    count(&decision, slot);
    match decision.verdict {
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Drop(_) => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn count(decision: &Decision, slot: Option<Slot>) {
    let bytes = u64::from(decision.bytes);
    if let Some(tally) = VERDICTS.get_ptr_mut(verdict_index(decision.verdict)) {
        add_to_tally(tally, bytes);
    }
    let Some(record) = slot.and_then(|slot| ACCOUNTS.get_ptr_mut(slot.0)) else { return };
    let seen = Seen::of(record);
    match decision.verdict {
        Verdict::Pass(Class::Data) => seen.add_data(bytes),
        Verdict::Pass(_) => seen.add_handshake(),
        Verdict::Drop(_) => seen.add_dropped(bytes),
    }
}
