//! The XDP guard.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use weir_common::{
    DropReason, Slot,
    exit::decide,
    guard::verdict_index,
    packet::{Class, Decision, Frame, Verdict},
    xsk::may_go,
};

use crate::{
    exit::OfFrame,
    maps::{ACCOUNTS, CONFIG, EXIT, VERDICTS, XSKS},
    memory::{Linear, Maps, Scattered, Seen, add_to_tally, receive_queue},
};

/// The slot of a frame without a session. An `Option` would leave the number of nobody's slot
/// undefined, and kernels before 6.3 let no program read what it has not written to its stack.
const NOBODY: Slot = Slot(u32::MAX);

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
    let (Some(config), Some(exit)) = (CONFIG.get(0), EXIT.get(0)) else {
        debug!(ctx, "the guard has no configuration");
        return xdp_action::XDP_PASS;
    };
    let (mut decision, slot) = decide(frame, config, &Maps, &OfFrame { ctx, exit });
    let slot = slot.unwrap_or(NOBODY);
    let mut returned = xdp_action::XDP_PASS;
    if let Verdict::Pass(Class::Return) = decision.verdict {
        // The host would answer a connection that it does not have with a reset, and end it.
        returned = redirect(receive_queue(ctx), xdp_action::XDP_DROP);
        if returned == xdp_action::XDP_DROP {
            decision.verdict = Verdict::Drop(DropReason::GuardNoWorker);
        }
    }
    count(&decision, slot);
    match decision.verdict {
        Verdict::Drop(_) => xdp_action::XDP_DROP,
        // By the XSK fast path, where there is one, else to the stack.
        Verdict::Pass(Class::Data) if slot != NOBODY && may_go(frame, decision.at as usize) => {
            redirect(receive_queue(ctx), xdp_action::XDP_PASS)
        }
        Verdict::Pass(Class::Return) => returned,
        Verdict::Pass(_) => xdp_action::XDP_PASS,
    }
}

/// Sends a frame to the socket of its receive queue. Without one, `otherwise` becomes of it.
#[inline(always)]
fn redirect(queue: u32, otherwise: u32) -> u32 {
    XSKS.redirect(queue, u64::from(otherwise)).unwrap_or(otherwise)
}

#[inline(always)]
fn count(decision: &Decision, slot: Slot) {
    let bytes = u64::from(decision.bytes);
    if let Some(tally) = VERDICTS.get_ptr_mut(verdict_index(decision.verdict)) {
        add_to_tally(tally, bytes);
    }
    if slot == NOBODY {
        return;
    }
    let Some(record) = ACCOUNTS.get_ptr_mut(slot.0) else { return };
    let seen = Seen::of(record);
    match decision.verdict {
        Verdict::Pass(Class::Data) => seen.add_data(bytes),
        Verdict::Pass(_) => seen.add_handshake(),
        Verdict::Drop(_) => seen.add_dropped(bytes),
    }
}
