//! The one ledger of a running node, shared by those that write it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{Ledger, LedgerError, PortLog, Retention, UsageLog, status::Status};

/// The node's ledger, for those that write it. Readers of usage records get a [`UsageLog`] instead.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedLedger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// The cursor of the last usage record.
    written: watch::Sender<u64>,
    status: Status,
}

impl SharedLedger {
    /// Shares a ledger.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn new(ledger: Ledger) -> Result<Self, LedgerError> {
        let (written, _) = watch::channel(ledger.last_cursor()?);
        let status = Status::new(ledger.earned()?);
        Ok(Self(Arc::new(Shared { ledger: Mutex::new(ledger), written, status })))
    }

    /// Waits until nobody else uses the ledger, which may take as long as their writes to the disk.
    /// Never call this on the packet path.
    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the readers of usage records. Call it under the lock under which records were written.
    pub fn announce(&self, ledger: &Ledger) {
        if let Ok(cursor) = ledger.last_cursor() {
            self.0.written.send_replace(cursor);
        }
    }

    /// Deletes the usage records whose time is over, and returns how many. It releases the ledger
    /// after every few, so that nobody waits for long. See [`Ledger::forget`].
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written. The next call continues.
    pub fn forget(&self, kept: Retention, receivers: &[&str]) -> Result<usize, LedgerError> {
        let mut gone = 0;
        loop {
            let swept = self.lock().forget(kept, receivers)?;
            gone += swept.gone;
            if !swept.goes_on {
                return Ok(gone);
            }
        }
    }

    /// The usage records, for a reader.
    #[must_use]
    pub fn usage_log(&self) -> UsageLog {
        UsageLog::new(self.clone())
    }

    /// Who held which port, for a reader.
    #[must_use]
    pub fn port_log(&self) -> PortLog {
        PortLog::new(self.clone())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.written.subscribe()
    }

    pub(crate) fn status(&self) -> &Status {
        &self.0.status
    }
}
