//! The counters of the packet path, for the control plane.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use weir_common::DropReason;

use crate::stats::{Without, WorkerStats, total};
use weir_accounts::{Boundaries, Drops};

/// Reads the counters of a packet path.
#[derive(Clone)]
pub struct Counts(
    /// The counters of each worker, and then those of the handshake thread.
    pub(crate) Arc<[Arc<WorkerStats>]>,
);

impl Counts {
    /// The packets per super-packet, of all workers together.
    #[must_use]
    pub fn boundaries(&self) -> Boundaries {
        total(self.0.iter().map(|stats| stats.boundaries()))
    }

    /// The offloads that the kernel refuses: a line for each.
    #[must_use]
    pub fn refused_offloads(&self) -> Vec<String> {
        let count = |of: fn(&Without) -> &AtomicBool| {
            self.0.iter().filter(|stats| of(&stats.without).load(Relaxed)).count()
        };
        let each = [
            (count(|it| &it.tun_tcp), "TCP super-packets at the TUN device, written one by one"),
            (count(|it| &it.tun_udp), "UDP super-packets at the TUN device, written one by one"),
            (count(|it| &it.udp_segmentation), "UDP segmentation, datagrams sent one by one"),
        ];
        let refused = each.into_iter().filter(|(workers, _)| *workers > 0);
        refused
            .map(|(workers, what)| format!("the kernel refuses {what} (workers: {workers})"))
            .collect()
    }

    /// The number of completed handshakes.
    #[must_use]
    pub fn handshakes(&self) -> u64 {
        self.0.iter().map(|stats| stats.handshakes.load(Relaxed)).sum()
    }

    /// The number of cookie replies.
    #[must_use]
    pub fn cookies(&self) -> u64 {
        self.0.iter().map(|stats| stats.cookies.load(Relaxed)).sum()
    }

    /// The CPU time of each worker.
    #[must_use]
    pub fn cpu(&self) -> Vec<Duration> {
        let workers = self.0.split_last().map(|(_, workers)| workers).unwrap_or_default();
        workers.iter().map(|stats| Duration::from_nanos(stats.cpu_nanos.load(Relaxed))).collect()
    }

    /// The number of dropped packets for each drop reason. `guard` returns those of the guard, which
    /// are added.
    #[must_use]
    pub fn drops(&self, guard: impl Fn(DropReason) -> u64) -> Vec<Drops> {
        let one = |reason: &DropReason| Drops {
            stage: reason.stage().as_str().into(),
            reason: reason.as_str().into(),
            packets: guard(*reason)
                + self.0.iter().map(|stats| stats.dropped(*reason)).sum::<u64>(),
        };
        DropReason::ALL.iter().map(one).collect()
    }
}
