//! How consumers' packets leave: chosen at the start, and shown.

use anyhow::bail;

use weir_config::EgressMode;
use weir_control::flows::{Egress, FlowView, NatTotals, SessionFlows};

/// How consumers' packets leave, as the configuration wants it and this weir can do it.
///
/// # Errors
///
/// When only the bypass will do.
pub(super) fn choose(wanted: EgressMode) -> anyhow::Result<KernelEgress> {
    match wanted {
        EgressMode::Kernel => Ok(KernelEgress { reason: "node.egress is \"kernel\"" }),
        EgressMode::Auto => Ok(KernelEgress { reason: "this weir has no bypass yet" }),
        EgressMode::Bypass => bail!(
            "node.egress is \"bypass\", and this weir has no bypass yet. Fix: set node.egress to \
             \"auto\" or \"kernel\"."
        ),
    }
}

/// The kernel forwards and translates consumers' packets: their flows are in its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelEgress {
    reason: &'static str,
}

impl FlowView for KernelEgress {
    fn egress(&self) -> Egress {
        Egress { mode: "kernel".to_owned(), reason: self.reason.to_owned() }
    }

    fn totals(&self) -> Option<NatTotals> {
        None
    }

    fn sessions(&self) -> Vec<SessionFlows> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_weir_cannot_do_is_refused_or_named() {
        let kernel = choose(EgressMode::Kernel).expect("it can");
        assert_eq!(kernel.egress().mode, "kernel");
        let auto = choose(EgressMode::Auto).expect("it can");
        assert_eq!(auto.egress().reason, "this weir has no bypass yet");
        assert_eq!((auto.totals(), auto.sessions()), (None, Vec::new()));
        let error = choose(EgressMode::Bypass).expect_err("it cannot").to_string();
        assert!(error.contains("Fix: set node.egress to \"auto\""), "{error}");
    }
}
