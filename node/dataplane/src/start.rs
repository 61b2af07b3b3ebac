//! The packet path as a whole: its threads, and how the control plane speaks to them.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::thread::{CpuSet, sched_setaffinity};
use tracing::{error, warn};
use weir_common::{DropReason, PeerIndex, Slot};

use crate::{
    direct::DirectQueues,
    handshake::{Directory, HandshakeInbox, Handshakes, Limits, Parts},
    inbox::{Inbox, Inboxes, Order},
    peer::Peer,
    pipeline::{Pipeline, Shared},
    stats::{Without, WorkerStats, total},
    syscall,
    udp::Sockets,
    uring::{self, Reads},
    worker::{Worker, WorkerIo},
};
use weir_accounts::{Boundaries, Drops, PeerControl, PeerSpec};
use weir_wireguard::{identity::Identities, tunnel::Tunnel};

/// How long a worker may take to let go of a slot before that is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way in which packets come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring.
    Uring(Reads),
    /// Plain system calls.
    Syscall,
}

impl Io {
    /// As in the configuration.
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
    /// What its workers share. The number of workers is that of `queues`.
    pub shared: Shared,
    /// The node's keys; they may change while it runs.
    pub identities: Arc<Identities>,
    /// How packets come and go.
    pub io: Io,
    /// The core of each worker.
    pub cores: Vec<usize>,
    /// The sockets of each worker.
    pub sockets: Vec<Sockets>,
    /// The sockets of each worker for the direct way; none at all, or those of every worker.
    pub direct: Vec<DirectQueues>,
    /// The TUN queue of each worker.
    pub queues: Vec<OwnedFd>,
    /// The sockets of the handshake thread.
    pub handshake_sockets: Sockets,
    /// Whether eBPF brings initiations to the handshake thread's sockets.
    pub handshakes_steered: bool,
    /// How many handshakes are let through.
    pub limits: Limits,
    /// Is told of a thread that ended though nobody stopped it: from then on the node does not
    /// serve everybody.
    pub on_end: OnEnd,
}

/// What is told of a [`ThreadEnded`], on the thread that ends.
pub type OnEnd = Arc<dyn Fn(ThreadEnded) + Send + Sync>;

/// A thread of the packet path ended though nobody stopped it.
#[derive(Debug, thiserror::Error)]
#[error("{thread} ended")]
pub struct ThreadEnded {
    thread: String,
    #[source]
    reason: io::Error,
}

/// The running packet path. Dropping it without [`Dataplane::stop`] leaves its threads running.
pub struct Dataplane {
    handle: Arc<Handle>,
    handshakes: Arc<HandshakeInbox>,
    threads: Vec<JoinHandle<()>>,
}

struct Handle {
    identities: Arc<Identities>,
    shared: Shared,
    inboxes: Inboxes,
    directory: Arc<Directory>,
    /// One of each worker, and the handshake thread's.
    stats: Vec<Arc<WorkerStats>>,
}

impl Dataplane {
    /// Starts the workers and the handshake thread, without sessions.
    ///
    /// # Errors
    ///
    /// Fails when a thread or an inbox cannot be made.
    pub fn start(start: Start) -> io::Result<Self> {
        let workers = start.queues.len();
        let inboxes: Inboxes =
            (0..workers).map(|_| Inbox::new().map(Arc::new)).collect::<io::Result<_>>()?;
        let handshakes = Arc::new(HandshakeInbox::new()?);
        let stats: Vec<_> = (0..=workers).map(|_| Arc::new(WorkerStats::default())).collect();
        let directory = Arc::new(Directory::default());
        let mut threads = Vec::new();
        let mut direct = start.direct.into_iter();
        let own = start.sockets.into_iter().zip(start.queues).zip(inboxes.iter()).zip(&stats);
        for (index, (((sockets, tun), inbox), stats)) in own.enumerate() {
            let pipeline = Pipeline::new(start.shared.clone(), index as u32, Arc::clone(stats));
            let worker = Worker::new(
                pipeline,
                Arc::clone(inbox),
                Arc::clone(&inboxes),
                Arc::clone(&handshakes),
            );
            let io = WorkerIo { sockets, tun };
            let direct = direct.next().unwrap_or_default();
            let (kind, core) = (start.io, start.cores.get(index).copied());
            let work = move || work(worker, &io, direct, kind, core);
            threads.push(spawn(format!("weir-worker-{index}"), &start.on_end, work)?);
        }
        let parts = Parts {
            identities: Arc::clone(&start.identities),
            permutation: start.shared.permutation,
            directory: Arc::clone(&directory),
            accounts: Arc::clone(&start.shared.accounts),
            workers: Arc::clone(&inboxes),
            inbox: Arc::clone(&handshakes),
            sockets: start.handshake_sockets,
            listens: start.handshakes_steered,
            stats: stats.last().map(Arc::clone).unwrap_or_default(),
            limits: start.limits,
        };
        let answer = move || Handshakes::new(parts).run();
        threads.push(spawn("weir-handshake".into(), &start.on_end, answer)?);
        let handle = Arc::new(Handle {
            identities: start.identities,
            shared: start.shared,
            inboxes,
            directory,
            stats,
        });
        Ok(Self { handle, handshakes, threads })
    }

    /// How the control plane speaks to the workers.
    #[must_use]
    pub fn control(&self) -> Arc<dyn PeerControl> {
        Arc::clone(&self.handle) as Arc<dyn PeerControl>
    }

    /// How to speak to the handshake thread.
    #[must_use]
    pub fn handshakes(&self) -> Arc<HandshakeInbox> {
        Arc::clone(&self.handshakes)
    }

    /// How to read what they count.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts(Arc::clone(&self.handle))
    }

    /// Ends all threads and waits for them.
    pub fn stop(self) {
        for inbox in self.handle.inboxes.iter() {
            inbox.orders.push(Order::Stop);
            inbox.bell().ring();
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

fn work(
    worker: Worker,
    io: &WorkerIo,
    direct: DirectQueues,
    kind: Io,
    core: Option<usize>,
) -> io::Result<()> {
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        cores.set(core);
        if let Err(error) = sched_setaffinity(None, &cores) {
            warn!(core, %error, "cannot pin a worker to its core");
        }
    }
    match kind {
        Io::Uring(reads) => uring::run(worker, io, direct, reads),
        Io::Syscall => syscall::run(worker, io, direct),
    }
}

impl PeerControl for Handle {
    fn add(&self, peer: PeerSpec) {
        let Some(inbox) = self.inboxes.get(peer.slot.worker(self.inboxes.len() as u32) as usize)
        else {
            return;
        };
        let index: PeerIndex = self.shared.permutation.index_of(peer.slot);
        // Whoever has the node's other key is recognised by its first initiation.
        let tunnel = Tunnel::new(&self.identities.get().current, peer.public_key.0, index);
        let accounts = Arc::clone(&self.shared.accounts);
        inbox.orders.push(Order::Add(Box::new(Peer::new(&peer, tunnel, accounts))));
        inbox.bell().ring();
        self.directory.insert(peer.public_key.0, peer.slot);
    }

    fn remove(&self, slot: Slot) {
        let worker = slot.worker(self.inboxes.len() as u32) as usize;
        let Some(inbox) = self.inboxes.get(worker) else { return };
        self.directory.remove(slot);
        let (done, gone) = mpsc::sync_channel(1);
        inbox.orders.push(Order::Remove(slot, done));
        inbox.bell().ring();
        if gone.recv_timeout(PATIENCE).is_err() {
            error!(worker, "a worker does not respond");
        }
    }
}

/// Reads the counters of a packet path.
#[derive(Clone)]
pub struct Counts(Arc<Handle>);

impl Counts {
    /// Packets per super-packet, of all workers.
    #[must_use]
    pub fn boundaries(&self) -> Boundaries {
        total(self.0.stats.iter().map(|stats| stats.boundaries()))
    }

    /// What workers do without, because the kernel refuses it: a line for each offload.
    #[must_use]
    pub fn refused_offloads(&self) -> Vec<String> {
        let count = |of: fn(&Without) -> &AtomicBool| {
            self.0.stats.iter().filter(|stats| of(&stats.without).load(Relaxed)).count()
        };
        let each = [
            (count(|it| &it.tun_tcp), "TCP super-packets at the TUN device, written one by one"),
            (count(|it| &it.tun_udp), "UDP super-packets at the TUN device, written one by one"),
            (count(|it| &it.udp_segmentation), "UDP segmentation, datagrams sent one by one"),
        ];
        let refused = each.into_iter().filter(|(workers, _)| *workers > 0);
        refused
            .map(|(workers, what)| {
                format!("the kernel does not support {what} (workers: {workers})")
            })
            .collect()
    }

    /// Handshakes completed.
    #[must_use]
    pub fn handshakes(&self) -> u64 {
        self.0.stats.iter().map(|stats| stats.handshakes.load(Relaxed)).sum()
    }

    /// Cookies asked for.
    #[must_use]
    pub fn cookies(&self) -> u64 {
        self.0.stats.iter().map(|stats| stats.cookies.load(Relaxed)).sum()
    }

    /// CPU time of each worker.
    #[must_use]
    pub fn cpu(&self) -> Vec<Duration> {
        let workers = self.0.stats.split_last().map(|(_, workers)| workers).unwrap_or_default();
        workers.iter().map(|stats| Duration::from_nanos(stats.cpu_nanos.load(Relaxed))).collect()
    }

    /// Packets dropped, by reason; all reasons of the packet path. `guard` adds what the kernel's
    /// guard dropped.
    #[must_use]
    pub fn drops(&self, guard: impl Fn(DropReason) -> u64) -> Vec<Drops> {
        let one = |reason: &DropReason| Drops {
            stage: reason.stage().as_str().into(),
            reason: reason.as_str().into(),
            packets: guard(*reason)
                + self.0.stats.iter().map(|stats| stats.dropped(*reason)).sum::<u64>(),
        };
        DropReason::ALL.iter().map(one).collect()
    }
}
