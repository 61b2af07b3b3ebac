//! One tunnel of a connection, and what is known of its node.

use std::net::{IpAddr, SocketAddr};

use rtnetlink::Handle;
use tokio::task::JoinHandle;
use weir_wireguard::keys::print_public;

use crate::{
    bill::{Bill, Comparison, Counted},
    change_over::Cause,
    clock::{self, MILLISECOND, SECOND},
    gateway::{Gateway, Given},
    health::{Failure, Health, Step},
    link,
    pay::{Decision, Left, PayLoop},
    probe::Probe,
    receipt::{Fault, Receipts, Verified, store::Store},
    routes::Exit,
    source::Candidate,
    tunnel::{Kind, Tunnel},
    visit::Visit,
};

/// Between two probes of a node that has not answered yet, in nanoseconds.
const FIRST_PROBES: u64 = 200 * MILLISECOND;
/// Between two questions what is left.
const POLL_INTERVAL: u64 = 5 * SECOND;
/// Between two looks at the own count, in nanoseconds.
const LOOK_INTERVAL: u64 = SECOND / 2;
/// The part of what was left after which the node is asked again: an eighth.
const LEFT_PART: u64 = 8;
/// The same, where nobody answers them: not a weir, or one without payments.
const IDLE_POLL_INTERVAL: u64 = 60 * SECOND;
/// Between two questions for the usage receipt: a node signs one every minute.
const RECEIPT_INTERVAL: u64 = 15 * SECOND;
/// Questions in a row without an answer after which nobody answers them.
const MAX_UNANSWERED: u32 = 6;

/// What a look at a tunnel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    Nothing,
    Answered,
    Failed(Cause),
}

/// What the money says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Account {
    Good,
    Cheats(String),
    OutOfMoney,
    Pay { at_most: u64 },
}

/// What the gateway said.
#[derive(Debug)]
pub(super) struct Said {
    /// What the session has left.
    pub(super) left: Left,
    /// The usage receipt, if it was asked for and there was an answer.
    pub(super) receipt: Option<Given>,
}

/// What became of a usage receipt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// It is the one that was known, or there is none yet.
    Known,
    /// The node gives none, although the configuration names the key for them. Said once.
    Missing,
    /// It is right.
    New(Box<Verified>),
    /// It is not.
    Wrong(Fault),
}

/// A tunnel that is up.
pub(super) struct Live {
    pub(super) name: String,
    pub(super) endpoint: SocketAddr,
    pub(super) inner: Vec<IpAddr>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) tunnel: Tunnel,
    pub(super) gateway: Option<Gateway>,
    /// Why it is to be left.
    pub(super) failure: Option<Cause>,
    exit: Option<String>,
    opened: u64,
    answered: Option<u64>,
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
    probe: Option<Probe>,
    /// Of the interface, in bytes.
    mtu: u16,
    /// Whether it carries other tunnels.
    is_entry: bool,
    /// What it had received at the last look.
    heard: u64,
    next_probe: u64,
    health: Option<Health>,
    pub(super) pay: PayLoop,
    /// What the node last said is left, in bytes.
    left_bytes: Option<u64>,
    /// When the own count is next looked at.
    next_look: u64,
    comparison: Comparison,
    /// What was counted when the node was asked for its bill.
    asked: Counted,
    next_poll: u64,
    unanswered: u32,
    poll: Option<JoinHandle<anyhow::Result<Said>>>,
    pub(super) country: Option<String>,
    receipts: Receipts,
    next_receipt: u64,
    /// Whether the configuration promises receipts, and nothing else was said yet.
    expects_receipts: bool,
    /// Whether its session waits for money: then everything but payments is held back here, because a
    /// node takes few datagrams of a paused session, whatever is in them.
    pub(super) is_held: bool,
}

impl Live {
    pub(super) async fn start(
        handle: &Handle,
        interface: &'static str,
        candidate: Candidate,
        kind: Kind,
        mark: u32,
        max_mtu: u16,
    ) -> anyhow::Result<Self> {
        let Candidate { name, exit, mut conf, endpoint } = candidate;
        let opened = clock::now();
        conf.mtu = conf.mtu.min(max_mtu);
        let tunnel = Tunnel::start(handle, interface, &conf, endpoint, Some(mark), kind).await?;
        let public_key = print_public(&conf.private_key.public());
        let before = Store::default().load(&public_key);
        let probe = conf.gateway().map(|gateway| Probe::new(interface, gateway)).transpose()?;
        Ok(Self {
            name,
            endpoint,
            inner: conf.addresses.iter().map(ipnet::IpNet::addr).collect(),
            dns: conf.dns.clone(),
            tunnel,
            gateway: conf.gateway().map(|gateway| Gateway::new(gateway, interface)),
            failure: None,
            exit,
            opened,
            answered: None,
            v4: conf.exit_address(false),
            v6: conf.exit_address(true),
            probe,
            mtu: conf.mtu,
            is_entry: false,
            heard: 0,
            next_probe: 0,
            health: None,
            pay: PayLoop::default(),
            left_bytes: None,
            next_look: 0,
            comparison: Comparison::default(),
            asked: Counted::default(),
            next_poll: 0,
            unanswered: 0,
            poll: None,
            receipts: Receipts::new(&public_key, conf.receipts.as_deref(), before),
            next_receipt: 0,
            expects_receipts: conf.receipts.is_some(),
            is_held: false,
            country: conf.country,
        })
    }

    /// It carries other tunnels, whose bytes show that it is there. What is said to the node itself
    /// has this mark, because the other tunnels' routes come first.
    pub(super) fn into_entry(mut self, mark: u32) -> anyhow::Result<Self> {
        self.is_entry = true;
        self.gateway = self.gateway.map(|gateway| gateway.marked(mark));
        self.probe = self.probe.map(|probe| probe.marked(mark)).transpose()?;
        Ok(self)
    }

    /// Lowers the MTU, if it is larger than this.
    pub(super) async fn lower_mtu(&mut self, handle: &Handle, mtu: u16) -> anyhow::Result<()> {
        if self.mtu > mtu {
            link::set_mtu(handle, self.tunnel.index, mtu.into()).await?;
            self.mtu = mtu;
        }
        Ok(())
    }

    /// The time since it was made, in nanoseconds.
    pub(super) const fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.opened)
    }

    /// Whether it is used, and has not answered of late.
    pub(super) fn is_doubtful(&self) -> bool {
        self.health.as_ref().is_some_and(Health::is_doubtful)
    }

    /// Its default routes.
    pub(super) fn exit(&self) -> Exit {
        Exit::new(self.tunnel.index, self.v4, self.v6)
    }

    /// What leaves by it, in words.
    pub(super) const fn families(&self) -> &'static str {
        match (self.v4.is_some(), self.v6.is_some()) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4; this exit has no IPv6, which is refused",
            _ => "IPv6; this exit has no IPv4, which is refused",
        }
    }

    /// It is used from now on.
    pub(super) fn begin(&mut self, now: u64) {
        self.answered.get_or_insert(now);
        let counts = self.tunnel.counts().unwrap_or_default();
        self.health = Some(Health::new(now, counts.sent, counts.received));
    }

    /// Whether it carries everything, so that it is watched.
    pub(super) const fn is_used(&self) -> bool {
        self.health.is_some()
    }

    pub(super) const fn has_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// What it was like, now that it is left.
    pub(super) fn visit(&self, now: u64) -> Visit {
        let counts = self.tunnel.counts().unwrap_or_default();
        let never = self.answered.is_none().then_some(Cause::NoAnswer);
        let since = |began: u64, end: u64| end.saturating_sub(began);
        Visit {
            exit: self.exit.clone(),
            connect_ms: self.answered.map(|at| since(self.opened, at) / MILLISECOND),
            seconds: self.answered.map_or(0, |at| since(at, now) / SECOND),
            received: counts.received,
            sent: counts.sent,
            // The consumer's own budget is no fault of the exit.
            failure: self.failure.filter(|cause| *cause != Cause::OutOfMoney).or(never),
        }
    }

    /// Looks whether a node has answered for the first time. Where nothing answers probes, a
    /// handshake has to do.
    pub(super) fn try_once(&mut self, now: u64) -> Observed {
        let is_established = || self.tunnel.counts().is_ok_and(|counts| counts.is_established);
        let is_there = match &mut self.probe {
            Some(probe) => {
                let is_answered = probe.is_answered();
                if !is_answered && now >= self.next_probe {
                    self.next_probe = now + FIRST_PROBES;
                    probe.send();
                }
                is_answered || self.is_entry && is_established()
            }
            None => is_established(),
        };
        if is_there { Observed::Answered } else { Observed::Nothing }
    }

    /// Looks whether the node in use still answers and carries traffic.
    pub(super) fn watch(&mut self, now: u64) -> Observed {
        // Somebody removed the interface: it answers nothing any more.
        let Ok(counts) = self.tunnel.counts() else { return Observed::Failed(Cause::NoAnswer) };
        let health = self.health.get_or_insert_with(|| Health::new(now, 0, 0));
        // An entry that answers no probes carries the answers of others.
        let is_heard = self.is_entry && counts.received > self.heard;
        self.heard = counts.received;
        if self.probe.as_ref().is_some_and(Probe::is_answered) || is_heard {
            health.answered();
        }
        match health.look(now, counts.sent, counts.received, self.probe.is_some()) {
            Step::Wait => Observed::Nothing,
            Step::Probe => {
                if let Some(probe) = &mut self.probe {
                    probe.send();
                }
                Observed::Nothing
            }
            Step::Leave(failure) => Observed::Failed(match failure {
                Failure::NoAnswer => Cause::NoAnswer,
                Failure::NoTraffic => Cause::NoTraffic,
            }),
        }
    }

    /// What the node has just said about the session, if it has.
    pub(super) async fn poll(&mut self, now: u64) -> Option<Said> {
        if let Some(poll) = self.poll.take_if(|poll| poll.is_finished()) {
            let said = poll.await.ok().and_then(Result::ok);
            self.is_held = match &said {
                Some(said) => said.left.is_out_of_credit(),
                None => self.is_held || self.is_used_up(),
            };
            self.unanswered = if said.is_some() { 0 } else { self.unanswered.saturating_add(1) };
            let is_idle = self.unanswered >= MAX_UNANSWERED;
            self.next_poll = now + if is_idle { IDLE_POLL_INTERVAL } else { POLL_INTERVAL };
            return said;
        }
        if self.poll.is_none() && (now >= self.next_poll || self.runs_out(now)) {
            let gateway = self.gateway.clone()?;
            self.asked = self.tunnel.counts().unwrap_or_default().counted();
            let wants_receipt = now >= self.next_receipt;
            if wants_receipt {
                self.next_receipt = now + RECEIPT_INTERVAL;
            }
            self.poll = Some(tokio::spawn(async move {
                let receipt = if wants_receipt { gateway.receipt().await.ok() } else { None };
                // Asked for later, so it is at least what the receipt says.
                let left = gateway.left().await?;
                Ok(Said { left, receipt })
            }));
        }
        None
    }

    /// Asks what is left before the next time.
    pub(super) fn poll_soon(&mut self) {
        self.next_poll = 0;
    }

    /// What the tunnel has carried since the node was asked, by the own count, in bytes.
    fn carried_since(&self) -> Option<u64> {
        Some(self.tunnel.counts().ok()?.total().saturating_sub(self.asked.carried))
    }

    /// Whether what was left should be used up, by the own count. A node whose session is paused may
    /// not get the question.
    pub(super) fn is_used_up(&self) -> bool {
        let used = self.left_bytes.zip(self.carried_since());
        used.is_some_and(|(left, used)| used >= left - left / LEFT_PART)
    }

    /// Whether a good part of what was left is used since then, by the own count: the node is asked
    /// before the next time.
    fn runs_out(&mut self, now: u64) -> bool {
        let Some(left) = self.left_bytes.filter(|_| now >= self.next_look) else { return false };
        self.next_look = now + LOOK_INTERVAL;
        self.unanswered == 0 && self.carried_since().is_some_and(|used| used > left / LEFT_PART)
    }

    /// Takes what the node answered about its usage receipt, and the bill that was asked for after it.
    pub(super) fn receive(&mut self, given: Given, billed: u64) -> Receipt {
        let answer = match given {
            Given::Answer(answer) => *answer,
            Given::Unreadable => return Receipt::Wrong(Fault::Unreadable),
            Given::Nothing if self.expects_receipts => {
                self.expects_receipts = false;
                return Receipt::Missing;
            }
            Given::Nothing => return Receipt::Known,
        };
        let taken = self.receipts.take(answer, billed);
        match (taken, self.receipts.pinned()) {
            (Err(fault), _) => Receipt::Wrong(fault),
            (Ok(Some(receipt)), Some(pinned)) => Receipt::New(Box::new(Verified {
                node: self.name.clone(),
                pinned: pinned.clone(),
                receipt,
                at: clock::unix_now(),
            })),
            (Ok(_), _) => Receipt::Known,
        }
    }

    /// Compares the bill with the tunnel's own count, and says whether to pay.
    pub(super) fn account(&mut self, now: u64, left: &Left, budget: u64) -> Account {
        if let Ok(after) = self.tunnel.counts()
            && let Bill::TooHigh { billed, counted } =
                self.comparison.compare(left.used_bytes, self.asked, after.counted())
        {
            return Account::Cheats(format!(": {billed} bytes, of which {counted} were carried"));
        }
        self.left_bytes = left.bytes;
        match self.pay.decide(now, left, budget) {
            Decision::Nothing => Account::Good,
            Decision::Pay { at_most } => Account::Pay { at_most },
            Decision::OutOfMoney => Account::OutOfMoney,
        }
    }
}
