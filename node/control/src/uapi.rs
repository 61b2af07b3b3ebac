//! What `wg show` and the programs that know WireGuard's userspace API see: `get=1` on a socket
//! named after the interface. Nothing can be set there: sessions are made by weir's own API, which
//! writes them down.

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
/// The maximum length of a line in bytes. No line that means anything is longer.
const MAX_LINE: u64 = 4096;
/// Lines of a request that are read to its end before it is refused: the client shall find the
/// answer, not a broken connection.
const MAX_LINES: usize = 65_536;
/// The time that a client may take to send a line, or to read the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// "Operation not permitted", as this protocol has it.
const NOT_PERMITTED: &str = "errno=-1\n\n";
/// "Invalid argument".
const INVALID: &str = "errno=-22\n\n";

/// What the answers are made of. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    /// The sessions, which are the peers.
    pub sessions: Arc<Sessions>,
    /// What consumers are told: it has the key of the node.
    pub template: Shared<PeerTemplate>,
    /// The node's UDP port.
    pub listen_port: u16,
    /// Whether to say where consumers are.
    pub endpoints: bool,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("listen_port", &self.listen_port).finish_non_exhaustive()
    }
}

/// The socket for an interface, by which `wg` finds it.
#[must_use]
pub fn path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.sock"))
}

/// The bound socket, for its owner alone; its file goes when this does.
#[derive(Debug)]
pub struct Uapi {
    listener: UnixListener,
    _file: SocketFile,
}

impl Uapi {
    /// Binds the socket. What a dead node left is replaced. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When another program answers there, something else lies there, or the file system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, file) = socket::bind(path, None)?;
        Ok(Self { listener, _file: file })
    }

    /// Answers until it is dropped.
    pub async fn serve(self, device: Device) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let device = device.clone();
                    tokio::spawn(async move {
                        // Clients that go, or are too slow, are no concern of ours.
                        converse(stream, device, IO_TIMEOUT).await.ok();
                        drop(permit);
                    });
                }
                // Most likely no descriptor is left: others will be given back.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Answers one request after the other.
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
