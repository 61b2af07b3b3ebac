//! What the eBPF programs log: states that should be impossible.

#![expect(unsafe_code, reason = "tokio wants a promise about the file descriptor")]

use std::io;

use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// The reading end of the programs' log. Must be kept as long as the programs run.
pub struct GuardLog(pub(super) EbpfLogger<&'static dyn ::log::Log>);

impl std::fmt::Debug for GuardLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuardLog")
    }
}

impl GuardLog {
    /// Hands every record on to the `log` crate's logger, for as long as it is polled.
    ///
    /// # Errors
    ///
    /// Fails when the log cannot be waited for.
    pub async fn forward(self) -> io::Result<()> {
        // SAFETY: the logger owns its file descriptor, and neither closes nor changes it until it
        // is dropped, which the registration outlives by nothing: it owns the logger.
        let mut log = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE)? };
        loop {
            let mut ready = log.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}
