//! What a connection changes on the machine, in the order of its tunnels.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use rtnetlink::Handle;
use tokio::time::sleep;

use super::{
    Ended, Options, Signals,
    live::{Live, Observed},
};
use crate::{
    ENTRY_INTERFACE, Slot,
    change_over::{self, Action, Cause, ChangeOver, Event},
    clock,
    dns::Dns,
    entries::Entries,
    firewall::{self, Allowed, Held},
    gateway, link, lockdown,
    routes::{self, Hops, Rank},
    spare::Spares,
    state::{Directory, Money, State, Status},
};

/// The interval at which the table and the resolver are put back if another program changed them,
/// and the status is written, in nanoseconds.
const CHECK_INTERVAL: u64 = clock::SECOND;

/// A connection, as it is now.
pub(super) struct Connection<'a> {
    pub(super) handle: &'a Handle,
    directory: &'a Directory,
    pub(super) options: Options,
    pub(super) say: &'a mut dyn FnMut(&str),
    dns: Dns,
    pub(super) change: ChangeOver,
    pub(super) spares: Spares,
    pub(super) entries: Entries,
    pub(super) entry_spares: Spares,
    pub(super) tunnels: [Option<Live>; 2],
    /// `None` if there is none, or it could not be made: then it is tried again at `next_entry`.
    pub(super) entry: Option<Live>,
    pub(super) next_entry: u64,
    /// What was last said to be wrong with the entry, for as long as it is.
    pub(super) entry_fault: Option<String>,
    pub(super) status: Status,
    written: Option<Status>,
    next_check: u64,
    pub(super) was_connected: bool,
    was_stuck: bool,
    /// What was paid before, and what may be paid.
    pub(super) whole_budget: u64,
}

/// The place of a slot's tunnel.
pub(super) const fn place(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        handle: &'a Handle,
        directory: &'a Directory,
        mut options: Options,
        say: &'a mut dyn FnMut(&str),
    ) -> Self {
        Self {
            handle,
            directory,
            dns: Dns::find(directory),
            change: ChangeOver::new(options.candidates.len()),
            spares: Spares::new(options.buyer.take()),
            entries: Entries::new(options.entries.len()),
            entry_spares: Spares::new(options.entry_buyer.take()),
            whole_budget: options.spent.saturating_add(options.budget),
            options,
            say,
            tunnels: [None, None],
            entry: None,
            next_entry: 0,
            entry_fault: None,
            status: Status::default(),
            written: None,
            next_check: 0,
            was_connected: false,
            was_stuck: false,
        }
    }

    /// Closes the machine: before anything else, and before anything is up.
    pub(super) async fn close(&mut self) -> anyhow::Result<()> {
        self.load()?;
        if self.options.lockdown {
            lockdown::install(self.options.lan)?;
        }
        for interface in Slot::ALL.map(Slot::interface).into_iter().chain([ENTRY_INTERFACE]) {
            link::remove(self.handle, interface).await?;
        }
        routes::remove_all(self.handle).await?;
        let hops = if self.options.entries.is_empty() { Hops::One } else { Hops::Two };
        routes::close(self.handle, self.options.lan, hops).await?;
        self.check_entries()?;
        self.enter().await.context("cannot make the tunnel to the entry")?;
        self.status.state = State::Connecting;
        self.write();
        if self.dns == Dns::Shared {
            (self.say)(
                "This network namespace shares /etc/resolv.conf with the machine, so weir leaves it \
                 as it is. DNS works if the resolvers in it can be reached through the tunnel.",
            );
        }
        Ok(())
    }

    /// Loads the table, with the endpoints of the tunnels that there are.
    pub(super) fn load(&self) -> anyhow::Result<()> {
        firewall::load(&self.allowed())
    }

    /// The tunnels whose sessions wait for money, with the services that take it.
    pub(super) fn held(&self) -> Vec<Held> {
        let slots = Slot::ALL.into_iter().zip(&self.tunnels);
        let tunnels = slots.map(|(slot, live)| (slot.interface(), live));
        let all = tunnels.chain([(ENTRY_INTERFACE, &self.entry)]);
        all.filter_map(|(interface, live)| {
            let live = live.as_ref().filter(|live| live.is_held)?;
            Some(Held { interface, gateway: live.gateway.as_ref()?.address().ip() })
        })
        .collect()
    }

    fn allowed(&self) -> Allowed {
        let entry = self.options.entries.get(self.entries.current()).map(|entry| firewall::Entry {
            endpoint: entry.endpoint,
            gateway: entry.conf.gateway().map(|address| SocketAddr::new(address, gateway::PORT)),
        });
        let held = self.held();
        let mut allowed = Allowed { lan: self.options.lan, entry, held, ..Allowed::default() };
        for live in self.tunnels.iter().flatten() {
            allowed.endpoints.push(live.endpoint);
            allowed.inner.extend(live.inner.iter());
        }
        allowed
    }

    pub(super) async fn work(&mut self, signals: &mut Signals) -> anyhow::Result<Ended> {
        loop {
            let now = clock::now();
            self.step(Event::Time).await?;
            self.observe_entry(now).await?;
            for slot in Slot::ALL {
                self.observe(now, slot).await?;
            }
            if let Err(ended) = signals.or(self.pay(now)).await {
                return Ok(ended);
            }
            self.spare(now);
            if now >= self.next_check {
                self.next_check = now + CHECK_INTERVAL;
                self.check()?;
            }
            let tick = Duration::from_nanos(change_over::tick(self.change.is_trying()));
            if let Err(ended) = signals.or(sleep(tick)).await {
                return Ok(ended);
            }
        }
    }

    /// Tells the state machine what happened, and does what it says.
    async fn step(&mut self, event: Event) -> anyhow::Result<()> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.change.handle(clock::now(), event) {
                match action {
                    Action::Open { slot, candidate } => {
                        if let Err(error) = self.open(slot, candidate).await {
                            (self.say)(&format!("cannot make a tunnel: {error:#}"));
                            self.forget(candidate).await?;
                            events.push(Event::CannotOpen(slot));
                        }
                    }
                    Action::Activate(slot) => self.activate(slot).await?,
                    Action::Close(slot) => self.remove(slot).await?,
                    Action::Doubt => self.doubt_entry(clock::now()).await?,
                }
            }
        }
        if self.change.is_stuck() && !self.was_stuck {
            self.was_stuck = true;
            (self.say)(
                "No node is left that may be used. This machine stays closed; to open it: weir \
                 disconnect",
            );
        }
        Ok(())
    }

    async fn open(&mut self, slot: Slot, number: usize) -> anyhow::Result<()> {
        let Some(candidate) = self.options.candidates.get(number).cloned() else {
            bail!("there is no candidate {number}");
        };
        (self.say)(&format!("Trying {} at {}.", candidate.name, candidate.endpoint));
        // Its datagrams may leave before there are any: the first one begins the handshake, and is
        // repeated only after 5 s.
        let mut allowed = self.allowed();
        allowed.endpoints.push(candidate.endpoint);
        allowed.inner.extend(candidate.conf.addresses.iter().map(ipnet::IpNet::addr));
        firewall::load(&allowed)?;
        let (mark, reached) = self.through();
        routes::add_endpoint(self.handle, candidate.endpoint.ip(), reached).await?;
        let (kind, mtu) = (self.options.kind, self.max_mtu());
        let live = Live::start(self.handle, slot.interface(), candidate, kind, mark, mtu).await?;
        let exit = live.exit();
        if let Some(place) = self.tunnels.get_mut(place(slot)) {
            *place = Some(live);
        }
        routes::set(self.handle, &exit, Rank::Waiting).await
    }

    /// A tunnel could not be made: nothing leaves to its node.
    async fn forget(&mut self, candidate: usize) -> anyhow::Result<()> {
        if let Some(candidate) = self.options.candidates.get(candidate) {
            let address = candidate.endpoint.ip();
            if !self.tunnels.iter().flatten().any(|other| other.endpoint.ip() == address) {
                routes::remove_endpoint(self.handle, address, self.through().1).await?;
            }
        }
        self.load()
    }

    async fn activate(&mut self, slot: Slot) -> anyhow::Result<()> {
        let Some(Some(live)) = self.tunnels.get_mut(place(slot)) else { return Ok(()) };
        routes::set(self.handle, &live.exit(), Rank::Active).await?;
        live.begin(clock::now());
        self.spares.connected(clock::now());
        self.entry_spares.connected(clock::now());
        let (name, engine) = (live.name.clone(), live.tunnel.engine());
        let families = live.families();
        let servers = live.dns.clone();
        self.status = Status {
            state: State::Connected,
            node: Some(name.clone()),
            endpoint: Some(live.endpoint.to_string()),
            interface: Some(slot.interface().to_owned()),
            engine: Some(engine.to_owned()),
            since: Some(clock::unix_now()),
            country: live.country.clone(),
            entry: self.status.entry.take(),
            last_change: self.status.last_change.take(),
            ..Status::default()
        };
        self.was_connected = true;
        if let Err(error) = self.dns.set(&servers, slot.interface()) {
            (self.say)(&format!("names are not resolved through the tunnel: {error:#}"));
        }
        (self.say)(&format!(
            "Connected to {name} over {} with {engine} ({families}). Nothing leaves beside it.",
            slot.interface()
        ));
        self.write();
        Ok(())
    }

    async fn remove(&mut self, slot: Slot) -> anyhow::Result<()> {
        let Some(live) = self.tunnels.get_mut(place(slot)).and_then(Option::take) else {
            return Ok(());
        };
        let address = live.endpoint.ip();
        self.remember(&live);
        live.tunnel.stop(self.handle).await?;
        if !self.tunnels.iter().flatten().any(|other| other.endpoint.ip() == address) {
            routes::remove_endpoint(self.handle, address, self.through().1).await?;
        }
        if self.change.active().is_none() {
            self.status = Status {
                state: State::Connecting,
                entry: self.status.entry.take(),
                last_change: self.status.last_change.take(),
                ..Status::default()
            };
            self.write();
        }
        self.load()
    }

    pub(super) fn remember(&mut self, live: &Live) {
        if let Some(remember) = &mut self.options.remember {
            remember(live.visit(clock::now()));
        }
    }

    /// The tunnel to an exit.
    pub(super) fn exit_mut(&mut self, slot: Slot) -> Option<&mut Live> {
        self.tunnels.get_mut(place(slot))?.as_mut()
    }

    /// Looks at one tunnel.
    async fn observe(&mut self, now: u64, slot: Slot) -> anyhow::Result<()> {
        let is_active = self.change.active().is_some_and(|(active, _)| active == slot);
        let is_entry_in_doubt = self.is_entry_in_doubt();
        let Some(live) = self.exit_mut(slot) else { return Ok(()) };
        let observed = match is_active {
            // Nothing of an exit gets through while the entry is not paid, or dead.
            true if is_entry_in_doubt => Observed::Nothing,
            true => live.watch(now),
            false => live.try_once(now),
        };
        match observed {
            Observed::Nothing => Ok(()),
            Observed::Answered => self.step(Event::Answered(slot)).await,
            Observed::Failed(cause) => self.failed(slot, cause, "").await,
        }
    }

    pub(super) async fn failed(
        &mut self,
        slot: Slot,
        cause: Cause,
        detail: &str,
    ) -> anyhow::Result<()> {
        let name = self.exit_mut(slot).map(|live| {
            live.failure = Some(cause);
            live.name.clone()
        });
        let name = name.unwrap_or_default();
        let text = format!("{name}: {}{detail}", cause.as_str());
        if self.status.last_change.as_ref() != Some(&text) {
            (self.say)(&format!("{text}."));
            self.status.last_change = Some(text);
        }
        self.step(Event::Failed(slot, cause)).await
    }

    /// Puts back what another program changed, and writes the status.
    fn check(&mut self) -> anyhow::Result<()> {
        if !firewall::is_loaded()? {
            (self.say)("Another program removed the nftables table inet weir_connect. It is back.");
            self.load()?;
        }
        if let Some((slot, _)) = self.change.active()
            && let Some(Some(live)) = self.tunnels.get(place(slot))
        {
            if let Dns::File(_) = self.dns {
                self.dns.set(&live.dns, slot.interface())?;
            }
            if let Ok(counts) = live.tunnel.counts()
                && (self.status.received, self.status.sent) != (counts.received, counts.sent)
            {
                (self.status.received, self.status.sent) = (counts.received, counts.sent);
                self.status.counted_ms = Some(clock::unix_millis());
            }
        }
        self.write();
        Ok(())
    }

    pub(super) fn write(&mut self) {
        self.status.money = self.options.payer.as_ref().map(|payer| Money {
            unit: payer.unit().to_owned(),
            spent: self.whole_budget.saturating_sub(self.options.budget),
            budget: self.whole_budget,
        });
        if self.written.as_ref() == Some(&self.status) {
            return;
        }
        match self.directory.write(&self.status) {
            Ok(()) => self.written = Some(self.status.clone()),
            Err(error) => (self.say)(&format!("{error:#}")),
        }
    }

    /// Ends the tunnels. The machine stays closed.
    pub(super) async fn end(mut self) {
        for slot in Slot::ALL {
            let Some(live) = self.tunnels.get_mut(place(slot)).and_then(Option::take) else {
                continue;
            };
            // One that is still tried has not failed.
            if live.has_answered() {
                self.remember(&live);
            }
            live.tunnel.stop(self.handle).await.ok();
        }
        if let Some(entry) = self.entry.take() {
            if entry.has_answered() || entry.failure.is_some() {
                self.remember(&entry);
            }
            entry.tunnel.stop(self.handle).await.ok();
        }
        self.options.entries.clear();
        if self.was_connected {
            // No tunnel: no endpoint.
            self.load().ok();
        }
        self.status = Status { state: State::Closed, ..Status::default() };
        self.write();
    }
}
