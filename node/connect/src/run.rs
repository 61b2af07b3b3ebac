//! A connection, from closing the machine to its end.

use std::future::Future;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    disconnect,
    firewall::{self, Lan},
    link,
    pay::Payer,
    routes,
    source::Candidate,
    spare::Buyer,
    state::Directory,
    tunnel::Kind,
    visit::Remember,
};

mod connection;
mod entry;
mod live;
mod money;

use connection::Connection;

/// What a connection is to do.
pub struct Options {
    /// The nodes, the first first.
    pub candidates: Vec<Candidate>,
    /// The nodes through one of whose tunnels the others are reached, the first first; none for the
    /// direct way. The entry sees who connects, and the exit sees to whom.
    pub entries: Vec<Candidate>,
    /// The local network.
    pub lan: Lan,
    /// Which WireGuard.
    pub kind: Kind,
    /// Whether the machine is to be closed after a reboot too.
    pub lockdown: bool,
    /// How to pay, if at all.
    pub payer: Option<Box<dyn Payer>>,
    /// Who buys another exit before it is needed, if anybody does. It has the payer's unit.
    pub buyer: Option<Box<dyn Buyer>>,
    /// Who buys another entry before it is needed, if anybody does.
    pub entry_buyer: Option<Box<dyn Buyer>>,
    /// What may be paid, in the payer's unit.
    pub budget: u64,
    /// What was paid before, in the payer's unit.
    pub spent: u64,
    /// Is told of each exit that is left.
    pub remember: Option<Remember>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By SIGINT: everything is undone.
    Open,
    /// By SIGTERM or SIGHUP: the tunnel is gone, and the machine is closed.
    Closed,
}

/// Connects, and stays connected until a signal. `say` is told what happens, in words.
///
/// # Errors
///
/// When there is another connection, or the machine cannot be closed. If it was not closed before,
/// everything is undone then.
pub fn run(options: Options, say: &mut dyn FnMut(&str)) -> anyhow::Result<Ended> {
    let directory = Directory::here();
    let _lock = match directory.lock()? {
        Ok(lock) => lock,
        Err(pid) => bail!(
            "weir connect runs already (process {pid}). Fix: see it with \"weir connect --status\", \
             or end it first: weir disconnect"
        ),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let handle = link::netlink().context("cannot open netlink")?;
        routes::check_free(&handle).await?;
        let was_closed = firewall::is_loaded()?;
        let mut signals = Signals::new()?;
        let mut connection = Connection::new(&handle, &directory, options, say);
        let done = match connection.close().await {
            Ok(()) => connection.work(&mut signals).await,
            Err(error) => Err(error),
        };
        let was_connected = connection.was_connected;
        connection.end().await;
        match done {
            Ok(Ended::Open) => {
                disconnect::undo(&handle, &directory).await?;
                Ok(Ended::Open)
            }
            Ok(Ended::Closed) => Ok(Ended::Closed),
            Err(error) if !was_closed && !was_connected => {
                disconnect::undo(&handle, &directory).await.ok();
                Err(error)
            }
            Err(error) => Err(error.context(
                "the connection has failed. This machine stays closed; to open it: weir disconnect",
            )),
        }
    })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The first of a signal and some work.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            _ = self.interrupt.recv() => Err(Ended::Open),
            _ = self.terminate.recv() => Err(Ended::Closed),
            _ = self.hang_up.recv() => Err(Ended::Closed),
            done = work => Ok(done),
        }
    }
}
