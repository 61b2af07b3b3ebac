//! Starts and stops the threads of the packet path.

use std::{io, os::fd::OwnedFd, sync::Arc, thread::JoinHandle};

use rustix::thread::{CpuSet, sched_setaffinity};
use tracing::{error, warn};

use crate::{
    control::Control,
    counts::Counts,
    exit::{ExitEvents, ExitPlan, Exits},
    handshake::{Handshakes, Limits, Parts, directory::Directory, mailbox::HandshakeMailbox},
    io::{
        WorkerIo,
        syscall::Syscall,
        udp::Sockets,
        uring::{Reads, Uring},
        xsk::XskQueues,
    },
    mailbox::{Command, Mailbox, Mailboxes},
    pipeline::{Pipeline, Shared},
    stats::WorkerStats,
    worker::Worker,
};
use weir_accounts::PeerControl;
use weir_wireguard::identity::Identities;

/// The kind of backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring.
    Uring(Reads),
    /// Plain system calls.
    Syscall,
}

impl Io {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uring(_) => "uring",
            Self::Syscall => "syscall",
        }
    }
}

/// What the packet path is started with.
pub struct Start {
    /// What the workers share. There are as many workers as `queues`.
    pub shared: Shared,
    /// The node's keys, which may change at run time.
    pub identities: Arc<Identities>,
    /// The kind of backend.
    pub io: Io,
    /// The core of each worker.
    pub cores: Vec<usize>,
    /// The sockets of each worker.
    pub sockets: Vec<Sockets>,
    /// The AF_XDP sockets of each worker. Either empty, or one entry for each worker.
    pub xsk: Vec<XskQueues>,
    /// The exit of each worker past the kernel, with its socket on the uplink. Either empty, or one
    /// entry for each worker.
    pub exits: Vec<(ExitPlan, OwnedFd)>,
    /// The TUN queue of each worker.
    pub queues: Vec<OwnedFd>,
    /// The sockets of the handshake thread.
    pub handshake_sockets: Sockets,
    /// Whether eBPF steers initiations to the handshake thread's sockets.
    pub handshakes_steered: bool,
    /// The limits on handshakes.
    pub limits: Limits,
    /// Called when a thread ends by itself. From then on the node does not serve all sessions.
    pub on_end: OnEnd,
}

/// Called with a [`ThreadEnded`], on the thread that ends.
pub type OnEnd = Arc<dyn Fn(ThreadEnded) + Send + Sync>;

/// A thread of the packet path ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("{thread} ended")]
pub struct ThreadEnded {
    thread: String,
    #[source]
    reason: io::Error,
}

/// The running packet path. Dropping it without [`Dataplane::stop`] leaves its threads running.
pub struct Dataplane {
    control: Arc<Control>,
    stats: Arc<[Arc<WorkerStats>]>,
    handshakes: Arc<HandshakeMailbox>,
    events: Arc<ExitEvents>,
    threads: Vec<JoinHandle<()>>,
}

impl Dataplane {
    /// Starts the workers and the handshake thread, without sessions.
    ///
    /// # Errors
    ///
    /// Fails if a thread or a mailbox cannot be created.
    pub fn start(start: Start) -> io::Result<Self> {
        let workers = start.queues.len();
        let mailboxes: Mailboxes =
            (0..workers).map(|_| Mailbox::new().map(Arc::new)).collect::<io::Result<_>>()?;
        let handshakes = Arc::new(HandshakeMailbox::new()?);
        let stats: Arc<[_]> = (0..=workers).map(|_| Arc::new(WorkerStats::default())).collect();
        let directory = Arc::new(Directory::default());
        let mut threads = Vec::new();
        let mut xsk = start.xsk.into_iter();
        let capacity = start.exits.iter().map(|(plan, _)| plan.nat.max_flows).sum();
        let mut exits = start.exits.into_iter();
        let events = Arc::new(ExitEvents::new(workers, capacity));
        let own =
            start.sockets.into_iter().zip(start.queues).zip(mailboxes.iter()).zip(stats.iter());
        for (index, (((sockets, tun), mailbox), stats)) in own.enumerate() {
            let mut pipeline = Pipeline::new(start.shared.clone(), index as u32, Arc::clone(stats));
            let xsk = xsk.next().unwrap_or_default();
            let uplink = exits.next().map(|(plan, uplink)| {
                pipeline.exit_by(plan, Arc::clone(&events));
                uplink
            });
            if xsk.sockets().next().is_some() {
                pipeline.divide_small();
            }
            let worker = Worker::new(
                pipeline,
                Arc::clone(mailbox),
                Arc::clone(&mailboxes),
                Arc::clone(&handshakes),
            );
            let io = WorkerIo { sockets, tun, uplink };
            let (kind, core) = (start.io, start.cores.get(index).copied());
            let mailbox = Arc::clone(mailbox);
            let work = move || {
                pin(core);
                let waker = mailbox.waker();
                match kind {
                    Io::Uring(reads) => worker.run(Uring::new(&io, waker, xsk, reads)?),
                    Io::Syscall => worker.run(Syscall::new(&io, waker, xsk)),
                }
            };
            threads.push(spawn(format!("weir-worker-{index}"), &start.on_end, work)?);
        }
        let parts = Parts {
            identities: Arc::clone(&start.identities),
            permutation: start.shared.permutation,
            directory: Arc::clone(&directory),
            accounts: Arc::clone(&start.shared.accounts),
            workers: Arc::clone(&mailboxes),
            mailbox: Arc::clone(&handshakes),
            sockets: start.handshake_sockets,
            listens: start.handshakes_steered,
            stats: stats.last().map(Arc::clone).unwrap_or_default(),
            limits: start.limits,
        };
        let answer = move || Handshakes::new(parts).run();
        threads.push(spawn("weir-handshake".into(), &start.on_end, answer)?);
        let control = Arc::new(Control {
            identities: start.identities,
            shared: start.shared,
            mailboxes,
            directory,
        });
        Ok(Self { control, stats, handshakes, events, threads })
    }

    /// The handle to the exits of the workers past the kernel.
    #[must_use]
    pub fn exits(&self) -> Exits {
        Exits { mailboxes: Arc::clone(&self.control.mailboxes), events: Arc::clone(&self.events) }
    }

    /// The handle through which the control plane adds and removes sessions.
    #[must_use]
    pub fn control(&self) -> Arc<dyn PeerControl> {
        Arc::clone(&self.control) as Arc<dyn PeerControl>
    }

    /// The mailbox of the handshake thread.
    #[must_use]
    pub fn handshakes(&self) -> Arc<HandshakeMailbox> {
        Arc::clone(&self.handshakes)
    }

    /// The counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts(Arc::clone(&self.stats))
    }

    /// Ends all threads and waits for them.
    pub fn stop(self) {
        for mailbox in self.control.mailboxes.iter() {
            mailbox.commands.push(Command::Stop);
            mailbox.waker().wake();
        }
        self.handshakes.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a data plane thread panicked");
            }
        }
    }
}

fn spawn(
    thread: String,
    on_end: &OnEnd,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let on_end = Arc::clone(on_end);
    std::thread::Builder::new().name(thread.clone()).spawn(move || {
        if let Err(reason) = body() {
            on_end(ThreadEnded { thread, reason });
        }
    })
}

/// Pins the calling thread to a core.
pub(crate) fn pin(core: Option<usize>) {
    let Some(core) = core else { return };
    let mut cores = CpuSet::new();
    cores.set(core);
    if let Err(error) = sched_setaffinity(None, &cores) {
        warn!(core, %error, "cannot pin a thread to its core");
    }
}
