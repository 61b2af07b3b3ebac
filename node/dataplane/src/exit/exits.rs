//! The exits of all workers, as the control plane sees them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, mpsc},
    time::Duration,
};

use tracing::error;
use weir_common::{Slot, exit::ExitConfig};
use weir_nat::{FlowCounts, Policy, V6};
use weir_packet::ethernet::NextHops;

use super::{Exit, ExitEvents, OwnedBlock, events::OpenFlows};
use crate::mailbox::{Command, Mailboxes};

/// How long to wait until a worker has answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The handle to the exits.
#[derive(Clone)]
pub struct Exits {
    pub(crate) mailboxes: Mailboxes,
    pub(crate) events: Arc<ExitEvents>,
}

impl Exits {
    /// Judges all flows by another policy: each at its next packet. When it returns, no worker judges
    /// by the old one any more.
    pub fn set_policy(&self, policy: &Arc<dyn Policy>) {
        self.each(|| {
            let policy = Arc::clone(policy);
            move |exit: &mut Exit| exit.set_policy(policy)
        })
        .wait();
    }

    /// Sends by other next hops.
    pub fn set_hops(&self, hops: &Arc<NextHops>) {
        self.each(|| {
            let hops = Arc::clone(hops);
            move |exit: &mut Exit| exit.set_hops(hops)
        });
    }

    /// Translates to other addresses. The flows of those that are gone end. `guard` says the same
    /// as the guard's configuration does.
    pub fn set_addresses(&self, v4: &[Ipv4Addr], v6: V6, guard: ExitConfig) {
        self.each(|| {
            let v4 = v4.to_vec();
            move |exit: &mut Exit| exit.set_addresses(v4, v6, guard)
        });
    }

    /// Sets how many flows a session can have from now on.
    pub fn set_session_flows(&self, limit: u32) {
        self.each(|| move |exit: &mut Exit| exit.set_session_flows(limit)).wait();
    }

    /// Gives a session a block of ports that it had before a restart.
    pub fn restore_block(&self, slot: Slot, address: IpAddr, first: u16) {
        self.send(slot, Box::new(move |exit| exit.restore_block(slot, address, first)));
    }

    /// The open flows of each of these sessions. Empty for one whose worker does not answer.
    #[must_use]
    pub fn session_flows(&self, slots: &[Slot]) -> Vec<FlowCounts> {
        let mut waiting = Vec::new();
        for worker in 0..self.mailboxes.len() as u32 {
            let (answer, answered) = mpsc::sync_channel(1);
            let all = slots.to_vec();
            let workers = self.mailboxes.len() as u32;
            let own = move |slot: &Slot| slot.worker(workers) == worker;
            let ask = move |exit: &mut Exit| {
                let counts = all.iter().map(|slot| {
                    if own(slot) { exit.session_flows(*slot) } else { FlowCounts::default() }
                });
                // Who asked may have stopped waiting.
                answer.try_send(counts.collect::<Vec<_>>()).ok();
            };
            self.send(Slot(worker), Box::new(ask));
            waiting.push(answered);
        }
        let mut counts = vec![FlowCounts::default(); slots.len()];
        for (worker, answered) in waiting.into_iter().enumerate() {
            let Ok(own) = answered.recv_timeout(ANSWER_TIMEOUT) else { continue };
            for ((count, own), slot) in counts.iter_mut().zip(own).zip(slots) {
                if slot.worker(self.mailboxes.len() as u32) as usize == worker {
                    *count = own;
                }
            }
        }
        counts
    }

    /// The open flows of all sessions, about once a second.
    #[must_use]
    pub fn open_flows(&self) -> FlowCounts {
        self.events.open.iter().map(OpenFlows::read).fold(FlowCounts::default(), |sum, own| {
            FlowCounts { tcp: sum.tcp + own.tcp, udp: sum.udp + own.udp, icmp: sum.icmp + own.icmp }
        })
    }

    /// The most flows that there can be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.events.capacity
    }

    /// Whether a session has taken or given back a block of ports.
    #[must_use]
    pub fn has_block_events(&self) -> bool {
        !self.events.blocks.is_empty()
    }

    /// Removes and returns the next block of ports that a session has taken or given back.
    #[must_use]
    pub fn next_block_event(&self) -> Option<OwnedBlock> {
        self.events.blocks.pop()
    }

    /// Changes the exit of each worker, soon.
    fn each<C: FnOnce(&mut Exit) + Send + 'static>(&self, change: impl Fn() -> C) -> Changed {
        let (done, changed) = mpsc::channel();
        for worker in 0..self.mailboxes.len() as u32 {
            let (change, done) = (change(), done.clone());
            let change = move |exit: &mut Exit| {
                change(exit);
                // Nobody may wait.
                done.send(()).ok();
            };
            self.send(Slot(worker), Box::new(change));
        }
        Changed(changed)
    }

    /// Sends a change to the worker of a slot.
    fn send(&self, slot: Slot, change: Box<dyn FnOnce(&mut Exit) + Send>) {
        let worker = slot.worker(self.mailboxes.len() as u32) as usize;
        let Some(mailbox) = self.mailboxes.get(worker) else { return };
        mailbox.commands.push(Command::Exit(change));
        mailbox.waker().wake();
    }
}

/// What the workers were told. Each says when it has done it.
struct Changed(mpsc::Receiver<()>);

impl Changed {
    /// Waits until all workers have done it.
    fn wait(self) {
        loop {
            match self.0.recv_timeout(ANSWER_TIMEOUT) {
                Ok(()) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return error!("a worker does not answer: its exit is not changed yet");
                }
            }
        }
    }
}
