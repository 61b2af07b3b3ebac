//! Runs a few netlink requests from code that is not async, or is but must not move to another
//! thread, and so to another network namespace.

use std::{io, thread};

use rtnetlink::Handle;

/// Why netlink did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("{0}")]
    Kernel(io::Error),
    /// There was no answer, or none that could be understood.
    #[error("netlink: {0}")]
    Protocol(String),
    /// No socket, or no thread.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}

impl NetlinkError {
    /// Whether the kernel knows no such interface.
    pub(crate) fn is_no_device(&self) -> bool {
        matches!(self, Self::Kernel(error) if error.raw_os_error() == Some(libc::ENODEV))
    }
}

impl From<rtnetlink::Error> for NetlinkError {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(error) => Self::Kernel(error.to_io()),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// Does `work` with a netlink handle, in the network namespace of the caller.
pub(crate) fn run<T, W>(work: W) -> Result<T, NetlinkError>
where
    T: Send,
    W: AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
{
    // A thread of its own, which begins in the namespace of the one that starts it: a runtime
    // cannot be entered from within another.
    let serve = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            let connection = tokio::spawn(connection);
            let result = work(handle).await;
            connection.abort();
            Ok(result?)
        })
    };
    thread::scope(|scope| {
        scope
            .spawn(serve)
            .join()
            .unwrap_or_else(|_| Err(NetlinkError::Protocol("the thread for it failed".into())))
    })
}
