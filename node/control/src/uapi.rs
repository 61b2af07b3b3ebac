//! Serves WireGuard's cross-platform userspace API (<https://www.wireguard.com/xplatform/>), which
//! `wg show` uses: `get=1` on a socket named after the interface. `set=1` is refused, because only
//! weir's own API creates sessions and records them in the ledger.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use crate::api::socket::{self, SocketError, SocketFile};
use weir_config::Shared;
use weir_sessions::{Sessions, wg_quick::PeerTemplate};

mod text;

/// The maximum number of connections at once.
const MAX_CONNECTIONS: usize = 16;
/// The maximum length of a line in bytes. No valid line is longer.
const MAX_LINE: u64 = 4096;
/// The maximum number of lines of a request. A refused request is read to its end first, so that
/// the client gets the answer instead of a broken connection.
const MAX_LINES: usize = 65_536;
/// The time that a client may take to send a line, or to read the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// The protocol's answer for `EPERM`.
const NOT_PERMITTED: &str = "errno=-1\n\n";
/// The protocol's answer for `EINVAL`.
const INVALID: &str = "errno=-22\n\n";

/// The state that answers are made from. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    /// The sessions, which are the peers.
    pub sessions: Arc<Sessions>,
    /// The template of consumers' configurations, which has the node's key.
    pub template: Shared<PeerTemplate>,
    /// The node's UDP port.
    pub listen_port: u16,
    /// Whether answers contain consumers' endpoints.
    pub endpoints: bool,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("listen_port", &self.listen_port).finish_non_exhaustive()
    }
}

/// The path of an interface's socket, where `wg` looks for it.
#[must_use]
pub fn path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.sock"))
}

/// The bound socket, with mode 0600. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Uapi {
    listener: UnixListener,
    _file: SocketFile,
}

impl Uapi {
    /// Binds the socket, replacing one that a dead node left. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When another program answers there, something else lies there, or the file system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, file) = socket::bind(path, None)?;
        Ok(Self { listener, _file: file })
    }

    /// Answers requests until it is dropped.
    pub async fn serve(self, device: Device) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let device = device.clone();
                    tokio::spawn(async move {
                        // A client that disconnects or is too slow needs no handling.
                        converse(stream, device, IO_TIMEOUT).await.ok();
                        drop(permit);
                    });
                }
                // Probably no file descriptor is left; wait until others are closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Answers a client's requests in order.
async fn converse(
    mut stream: UnixStream,
    device: Device,
    io_timeout: Duration,
) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    loop {
        let answer = match read_request(&mut read, io_timeout).await? {
            Request::Get => {
                let device = device.clone();
                tokio::task::spawn_blocking(move || text::describe(&device)).await?
            }
            Request::Set => NOT_PERMITTED.to_owned(),
            Request::Invalid => {
                timeout(io_timeout, write.write_all(INVALID.as_bytes())).await??;
                return Ok(());
            }
            Request::Closed => return Ok(()),
        };
        timeout(io_timeout, write.write_all(answer.as_bytes())).await??;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Get,
    Set,
    /// Not a request of this protocol.
    Invalid,
    /// The client has closed.
    Closed,
}

/// Reads one request to its empty line.
async fn read_request(
    read: &mut (impl AsyncBufRead + Unpin),
    io_timeout: Duration,
) -> std::io::Result<Request> {
    let mut line = Vec::new();
    let mut request = None;
    for _ in 0..MAX_LINES {
        line.clear();
        let mut limited = (&mut *read).take(MAX_LINE);
        let count = timeout(io_timeout, limited.read_until(b'\n', &mut line)).await??;
        let Some(text) = line.strip_suffix(b"\n") else {
            let is_end = count == 0 && request.is_none();
            return Ok(if is_end { Request::Closed } else { Request::Invalid });
        };
        request = match (request, text) {
            (None, b"get=1") => Some(Request::Get),
            (None, b"set=1") => Some(Request::Set),
            (Some(request), b"") => return Ok(request),
            // The keys of a set.
            (Some(Request::Set), _) => request,
            _ => return Ok(Request::Invalid),
        };
    }
    Ok(Request::Invalid)
}

#[cfg(test)]
mod tests;
