//! One process, and in it one task, changes a wallet at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::WalletError;

/// How long to wait for another process.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The interval at which the lock is tried.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// The lock, which the kernel releases when this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of this file, and waits if another has it.
    pub(crate) async fn take(path: &Path) -> Result<Self, WalletError> {
        let failed = |source| WalletError::File { doing: "lock", path: path.into(), source };
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        let end = Instant::now() + TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if Instant::now() > end => {
                    return Err(WalletError::Busy(path.with_extension("db")));
                }
                Err(TryLockError::WouldBlock) => sleep(RETRY_DELAY).await,
            }
        }
    }
}
