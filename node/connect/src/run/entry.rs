//! The tunnel to the entry, through which the exits are reached, and the change to another entry.

use anyhow::bail;

use super::{
    Options,
    connection::Connection,
    live::{Live, Observed},
};
use crate::{
    ENTRY_INTERFACE, INNER_MARK, MARK,
    change_over::{CONNECT_TIMEOUT, Cause, RETRY_DELAY},
    routes::{self, Reached},
    source::Candidate,
    state,
};

/// What WireGuard adds to a packet, in bytes: the headers of IPv6 and UDP, its own, and the tag.
const MAX_OVERHEAD: u16 = 80;

/// What a node is in a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Exit,
    Entry,
}

impl Role {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Entry => "entry",
        }
    }
}

impl Connection<'_> {
    /// Refuses entries that are at the address of an exit.
    ///
    /// # Errors
    ///
    /// Names the first.
    pub(super) fn check_entries(&self) -> anyhow::Result<()> {
        match self.options.entries.iter().find(|entry| self.is_shared(entry, Role::Entry)) {
            Some(Candidate { name, .. }) => {
                bail!("{name} is at the same address as an exit. Fix: name another node with --via")
            }
            None => Ok(()),
        }
    }

    /// Whether an entry is at the address of an exit, or an exit at the address of an entry.
    pub(super) fn is_shared(&self, candidate: &Candidate, role: Role) -> bool {
        let Options { candidates, entries, .. } = &self.options;
        let others = match role {
            Role::Exit => entries,
            Role::Entry => candidates,
        };
        others.iter().any(|other| other.endpoint.ip() == candidate.endpoint.ip())
    }

    /// Makes the tunnel to the entry, if there is one. It carries the other tunnels and nothing else.
    pub(super) async fn enter(&mut self) -> anyhow::Result<()> {
        let number = self.entries.current();
        let Some(candidate) = self.options.entries.get(number).cloned() else { return Ok(()) };
        let Candidate { name, endpoint, .. } = &candidate;
        let (node, endpoint) = (name.clone(), *endpoint);
        (self.say)(&format!("Going through {node} at {endpoint}."));
        self.status.entry = Some(state::Entry { node, endpoint: endpoint.to_string() });
        routes::add_endpoint(self.handle, endpoint.ip(), Reached::Directly).await?;
        let (handle, kind) = (self.handle, self.options.kind);
        let live = Live::start(handle, ENTRY_INTERFACE, candidate, kind, MARK, u16::MAX).await?;
        // Nothing but the exits' datagrams and what is said to the entry goes through it.
        let live = live.into_entry(INNER_MARK)?;
        routes::set_entry(handle, &live.exit()).await?;
        self.entry = Some(live);
        let mtu = self.max_mtu();
        for exit in self.tunnels.iter_mut().flatten() {
            exit.lower_mtu(handle, mtu).await?;
        }
        Ok(())
    }

    /// The mark of tunnels to exits, and how they are reached.
    pub(super) const fn through(&self) -> (u32, Reached) {
        match self.options.entries.is_empty() {
            true => (MARK, Reached::Directly),
            false => (INNER_MARK, Reached::ThroughEntry),
        }
    }

    /// The largest MTU inside a tunnel to an exit that fits any of the entries.
    pub(super) fn max_mtu(&self) -> u16 {
        let of_entries = self.options.entries.iter().map(|entry| entry.conf.mtu);
        of_entries.map(|mtu| mtu.saturating_sub(MAX_OVERHEAD)).min().unwrap_or(u16::MAX)
    }

    /// Whether what is wrong with an exit may be the entry's fault.
    pub(super) fn is_entry_in_doubt(&self) -> bool {
        !self.options.entries.is_empty()
            && self.entry.as_ref().is_none_or(|entry| entry.is_held || entry.is_doubtful())
    }

    /// Looks at the tunnel to the entry.
    pub(super) async fn observe_entry(&mut self, now: u64) -> anyhow::Result<()> {
        let Some(entry) = &mut self.entry else {
            if !self.options.entries.is_empty() && now >= self.next_entry {
                self.entries.leave(Cause::NoAnswer);
                self.change_entry(now).await?;
            }
            return Ok(());
        };
        let observed = match entry.is_used() {
            true => entry.watch(now),
            false => match entry.try_once(now) {
                Observed::Nothing if entry.age(now) >= CONNECT_TIMEOUT => {
                    Observed::Failed(Cause::NoAnswer)
                }
                observed => observed,
            },
        };
        match observed {
            Observed::Nothing if !entry.is_used() || entry.is_doubtful() => {}
            Observed::Nothing => self.entry_recovered(),
            Observed::Answered => {
                entry.begin(now);
                self.entry_recovered();
            }
            Observed::Failed(cause) => self.entry_failed(now, cause, "").await?,
        }
        Ok(())
    }

    /// The entry answers again. That it cheats or is not paid is no matter of answers.
    fn entry_recovered(&mut self) {
        if let Some(entry) = &mut self.entry
            && let Some(Cause::NoAnswer | Cause::NoTraffic) = entry.failure
        {
            (entry.failure, self.entry_fault) = (None, None);
        }
    }

    /// No exit answers. If the entry does, it may be that it carries nothing to them.
    pub(super) async fn doubt_entry(&mut self, now: u64) -> anyhow::Result<()> {
        if self.entries.spares() == 0 || self.is_entry_in_doubt() {
            return Ok(());
        }
        self.entry_failed(now, Cause::NoTraffic, "").await
    }

    /// The entry is left for another one, if there is one.
    pub(super) async fn entry_failed(
        &mut self,
        now: u64,
        cause: Cause,
        detail: &str,
    ) -> anyhow::Result<()> {
        let Some(entry) = &mut self.entry else { return Ok(()) };
        let text = format!("{}, the entry: {}{detail}", entry.name, cause.as_str());
        entry.failure = Some(cause);
        let is_left = self.entries.leave(cause).is_some();
        if self.entry_fault.as_ref() != Some(&text) {
            let fix = if is_left { "" } else { " Fix: connect again with another --via." };
            (self.say)(&format!("{text}.{fix}"));
            self.status.last_change = Some(text.clone());
            self.entry_fault = Some(text);
        }
        if is_left {
            return self.change_entry(now).await;
        }
        Ok(())
    }

    /// Goes through the entry that is the current one by now. The exits' sessions go on: they see
    /// another address of the consumer.
    async fn change_entry(&mut self, now: u64) -> anyhow::Result<()> {
        if let Some(old) = self.entry.take() {
            self.remember(&old);
            let address = old.endpoint.ip();
            old.tunnel.stop(self.handle).await?;
            routes::remove_endpoint(self.handle, address, Reached::Directly).await?;
        }
        self.load()?;
        if let Err(error) = self.enter().await {
            (self.say)(&format!("cannot make the tunnel to the entry: {error:#}"));
            self.next_entry = now + RETRY_DELAY;
            if self.entry.is_none()
                && let Some(entry) = self.options.entries.get(self.entries.current())
            {
                let address = entry.endpoint.ip();
                routes::remove_endpoint(self.handle, address, Reached::Directly).await?;
            }
        }
        self.entry_fault = None;
        self.change.begin_again(now);
        if let Some((slot, _)) = self.change.active()
            && let Some(exit) = self.exit_mut(slot)
        {
            exit.begin(now);
        }
        self.write();
        Ok(())
    }
}
