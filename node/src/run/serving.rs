//! The last stage: the node serves.

use std::sync::Arc;

use anyhow::Context as _;

use super::{egress::Follower, machine::Machine, serve};
use weir_config::Config;
use weir_dataplane::Dataplane;
use weir_host::watch::Watcher;

/// The sessions are open, and the watch has the host.
pub(super) struct Serving<'a> {
    pub(super) config: &'a Config,
    pub(super) dataplane: Dataplane,
    pub(super) follower: Option<Follower>,
    pub(super) watcher: Watcher,
    pub(super) parts: serve::ControlPlane,
}

impl Serving<'_> {
    /// Serves until the node is told to stop or cannot go on, stops it, and writes the final
    /// counters to the ledger.
    pub(super) fn until_told(self, machine: &mut Machine) -> anyhow::Result<()> {
        let Self { config, dataplane, follower, watcher, parts } = self;
        let (sessions, reloader) = (Arc::clone(&parts.sessions), Arc::clone(&parts.reloader));
        let blocks = Arc::clone(&parts.blocks);
        let served = serve::until_told(config, parts, machine.ebpf.take_log());
        // A change made after this would not be undone.
        reloader.close();
        dataplane.stop();
        let followed = follower.map_or(Ok(()), Follower::stop);
        // Until then packets may pass, and what keeps them in must not go.
        let watched = watcher.stop().map(|host| machine.host = Some(host));
        // Only now is every count final.
        sessions
            .record()
            .and_then(|_| sessions.checkpoint())
            .context("cannot write the final counters to the ledger")?;
        machine.saved = true;
        let blocks_written = blocks.write().context("cannot write blocks of ports to the ledger");
        served.and(watched).and(followed).and(blocks_written)
    }
}
