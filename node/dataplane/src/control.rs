//! The workers as the control plane sees them: [`PeerControl`].

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tracing::error;
use weir_common::{PeerIndex, Slot};

use crate::{
    handshake::directory::Directory,
    mailbox::{Command, Mailboxes},
    peer::Peer,
    pipeline::Shared,
};
use weir_accounts::{PeerControl, PeerSpec};
use weir_wireguard::{identity::Identities, keys::PresharedKey, tunnel::Tunnel};

/// How long to wait until a worker has removed a peer.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The control plane's handle to the workers.
pub(crate) struct Control {
    /// The node's keys.
    pub(crate) identities: Arc<Identities>,
    /// What the workers share.
    pub(crate) shared: Shared,
    /// The workers' mailboxes.
    pub(crate) mailboxes: Mailboxes,
    /// The keys that the handshake thread knows.
    pub(crate) directory: Arc<Directory>,
}

impl PeerControl for Control {
    fn add(&self, peer: PeerSpec) {
        let Some(mailbox) =
            self.mailboxes.get(peer.slot.worker(self.mailboxes.len() as u32) as usize)
        else {
            return;
        };
        let index: PeerIndex = self.shared.permutation.index_of(peer.slot);
        // A consumer that has the node's other key is recognised by its first initiation.
        let tunnel = Tunnel::new(&self.identities.get().current, peer.public_key.0, index);
        let tunnel = match &peer.preshared_key {
            Some(key) => tunnel.with_preshared_key(PresharedKey::new(**key)),
            None => tunnel,
        };
        let accounts = Arc::clone(&self.shared.accounts);
        mailbox.commands.push(Command::Add(Box::new(Peer::new(&peer, tunnel, accounts))));
        mailbox.waker().wake();
        self.directory.insert(peer.public_key.0, peer.slot);
    }

    fn remove(&self, slot: Slot) {
        let worker = slot.worker(self.mailboxes.len() as u32) as usize;
        let Some(mailbox) = self.mailboxes.get(worker) else { return };
        self.directory.remove(slot);
        let (done, gone) = mpsc::sync_channel(1);
        mailbox.commands.push(Command::Remove(slot, done));
        mailbox.waker().wake();
        if gone.recv_timeout(REMOVE_TIMEOUT).is_err() {
            error!(worker, "a worker does not answer");
        }
    }
}
