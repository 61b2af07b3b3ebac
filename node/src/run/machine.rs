//! What a run has changed on the machine, and must undo.

use super::ebpf::Ebpf;
use weir_host::Host;

/// The machine as a run has changed it.
pub(super) struct Machine {
    pub(super) ebpf: Ebpf,
    /// `None` while the watch over the host has it.
    pub(super) host: Option<Host>,
    /// Whether the ledger has everything that the accounts say.
    pub(super) saved: bool,
}

impl Machine {
    /// Undoes the changes, the programs first, and returns the first error: the run's own, if it
    /// has one.
    pub(super) fn undo(self, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        let ebpf_undone = self.ebpf.undo(self.saved);
        let host_undone = self.host.map_or(Ok(()), Host::undo);
        outcome.and(ebpf_undone).and(host_undone)
    }
}
