//! What the kernel has of sessions that have ended.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::Sessions;
use crate::FlowControl;

/// The kernel's flows, and whether it lets go of them.
pub(super) struct Flows {
    kernel: Arc<dyn FlowControl>,
    is_refused: AtomicBool,
}

impl From<Arc<dyn FlowControl>> for Flows {
    fn from(kernel: Arc<dyn FlowControl>) -> Self {
        Self { kernel, is_refused: AtomicBool::new(false) }
    }
}

impl Sessions {
    /// Removes the flows of sessions that have left their slots, and frees these. What cannot be
    /// removed is tried again the next time: their slots are given to nobody until then.
    pub(super) fn forget_left(&self) {
        let slots = self.write().slots.take_left();
        if slots.is_empty() {
            return;
        }
        let addresses: Vec<_> = slots.iter().filter_map(|slot| (self.address_of)(*slot)).collect();
        let forgotten = self.flows.kernel.forget(&addresses);
        let mut live = self.write();
        for slot in slots.iter().copied() {
            match forgotten {
                Ok(()) => live.slots.free(slot),
                Err(_) => live.slots.leave(slot),
            }
        }
        drop(live);
        let was_refused = self.flows.is_refused.swap(forgotten.is_err(), Relaxed);
        match forgotten {
            Err(error) if !was_refused => tracing::warn!(
                %error,
                slots = slots.len(),
                "cannot remove ended sessions' flows from the kernel: their slots stay unused \
                 until that works"
            ),
            Ok(()) if was_refused => {
                tracing::info!(slots = slots.len(), "ended sessions' flows are removed now");
            }
            _ => {}
        }
    }
}
