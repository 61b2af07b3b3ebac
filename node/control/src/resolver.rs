//! Addresses of names, for what the node itself connects to.
//!
//! The C library opens `/etc/resolv.conf`, `/etc/hosts` and their like again whenever they were
//! replaced, and other programs replace them by rename. Landlock binds a rule on a file to the file
//! that there was, and a rule on `/etc` would show what is secret there to a node whose user owns
//! it. So a process of its own looks names up: a user who owns nothing, who may read `/etc`, and
//! whom the node can only ask for names. What DNS servers answer is parsed there, too.

mod outside;
pub mod servers;

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, TryLockError},
    time::Duration,
};

use anyhow::Context as _;
use tracing::info;

pub use self::outside::{FileAccess, serve};

/// The hidden command that [`serve`] is behind.
pub const COMMAND: &str = "resolve-names";

/// How long an answer may take. The C library asks up to three servers twice, for 5 s each.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the process may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What looks names up. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Option<Arc<Mutex<Outside>>>);

/// The process, from here. It ends when this is dropped.
#[derive(Debug)]
struct Outside {
    stream: BufReader<UnixStream>,
    asked: u64,
    _child: Option<Child>,
}

impl Resolver {
    /// One without a process of its own, for a node without a sandbox.
    #[must_use]
    pub fn inside() -> Self {
        Self::default()
    }

    /// Starts the process. To be called before the sandbox is entered.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not say that it is ready.
    pub fn start() -> anyhow::Result<Self> {
        let (ours, theirs) =
            UnixStream::pair().context("cannot create a socket for the resolver")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(COMMAND).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn().context("cannot start the resolver process")?;
        drop(command);
        ours.set_read_timeout(Some(START_TIMEOUT))?;
        let mut stream = BufReader::new(ours);
        let mut ready = String::new();
        stream.read_line(&mut ready).context("the resolver process is not ready")?;
        if !FileAccess::parse(&ready).context("it ended at once")?.is_all() {
            info!(
                "the resolver keeps the present files of /etc. Fix: start weir with CAP_SETUID \
                 and CAP_SETGID, or restart it after /etc/resolv.conf is replaced"
            );
        }
        stream.get_ref().set_read_timeout(Some(TIMEOUT))?;
        let outside = Outside { stream, asked: 0, _child: Some(child) };
        Ok(Self(Some(Arc::new(Mutex::new(outside)))))
    }

    /// Looks up the names of relays.
    pub(crate) fn for_relays(&self) -> weir_market::client::Lookup {
        let resolver = self.clone();
        Arc::new(move |host, port| {
            let resolver = resolver.clone();
            Box::pin(async move { resolver.lookup(&host, port).await })
        })
    }

    /// The addresses of a host, which may be an address itself.
    ///
    /// # Errors
    ///
    /// When it has none, and when nobody answers.
    pub async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
        if let Ok(address) = literal {
            return Ok(vec![(address, port).into()]);
        }
        let Some(outside) = self.0.clone() else {
            return Ok(tokio::net::lookup_host((host, port)).await?.collect());
        };
        let host = host.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            outside.lock().unwrap_or_else(PoisonError::into_inner).ask(&host)
        });
        let found = asked.await.map_err(io::Error::other)??;
        Ok(found.into_iter().map(|address| (address, port).into()).collect())
    }
}

impl Resolver {
    /// The name servers that this machine asks now. Does not wait for others who ask.
    ///
    /// # Errors
    ///
    /// When the file that names them cannot be read; [`io::ErrorKind::WouldBlock`] while a name is
    /// being looked up.
    pub fn name_servers(&self) -> io::Result<Vec<IpAddr>> {
        let Some(outside) = &self.0 else { return Ok(servers::read()?.0) };
        match outside.try_lock() {
            Ok(mut outside) => outside.ask(outside::NAME_SERVERS),
            Err(TryLockError::Poisoned(outside)) => outside.into_inner().ask(outside::NAME_SERVERS),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Outside {
    fn ask(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked += 1;
        let question = outside::Question { number: self.asked, host };
        writeln!(self.stream.get_mut(), "{question}")?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                let ended = "the resolver process has ended: restart weir";
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, ended));
            }
            // Others are answers to who did not wait for them.
            let Some(answer) = outside::Answer::parse(&line) else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            if answer.number == self.asked {
                return answer.found.map_err(io::Error::other);
            }
        }
    }
}

#[cfg(test)]
mod tests;
