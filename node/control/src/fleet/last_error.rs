//! The reason why there is no connection to the fleet's server, with the fix.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Server;
use tracing::warn;

/// The error of the last attempt to connect, if it failed.
#[derive(Clone, Debug, Default)]
pub(super) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    /// Takes the errors that the library keeps for each server. Logs only a new error, because
    /// attempts repeat every few seconds.
    pub(super) fn update(&self, servers: &[Server]) {
        let failed = |server: &Server| {
            let error = server.last_error.as_ref()?;
            Some(format!("{error}{}", fix(error)))
        };
        let mut all: Vec<_> = servers.iter().filter_map(failed).collect();
        // Servers may fail for different reasons. Show each reason once.
        all.sort();
        all.dedup();
        if all.is_empty() {
            return;
        }
        let words = all.join("; ");
        let mut last = self.lock();
        if last.as_ref() != Some(&words) {
            warn!(error = words, "no connection to the fleet's server");
            *last = Some(words);
        }
    }

    /// Clears the error once there is a connection.
    pub(super) fn clear(&self) {
        *self.lock() = None;
    }

    /// The error in words, with the fix.
    pub(super) fn words(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fix for an error of the library.
fn fix(error: &str) -> &'static str {
    if error.contains("authorization violation") || error.contains("signing nonce") {
        ". Fix: make the server accept the credentials in fleet.credentials_file or \
         fleet.token_file, or replace them"
    } else if error.contains("certificate") {
        ". Fix: make the server's certificate name the host in fleet.url, and put its issuer's \
         certificate into fleet.ca_file"
    } else if error.contains("failed to lookup address") {
        // The library looks names up within the sandbox: see `crate::resolver`.
        ". Fix: put the server's address into fleet.url instead of its name; or, if \
         /etc/resolv.conf was replaced since weir was started, restart weir"
    } else {
        ""
    }
}
