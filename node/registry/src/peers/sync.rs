//! One connection to a peer: what it has is fetched by reconciliation (NIP-77), again each minute,
//! and what it hears meanwhile comes by a subscription.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr::{
    event::{Event, EventId, Kind},
    filter::Filter,
    message::{ClientMessage, RelayMessage, SubscriptionId},
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use weir_market::client::Socket;

use crate::{
    admission::COPIED_KINDS,
    clock,
    refusal::Refusal,
    registry::{PeerAllowance, Registry},
    relay::{MAX_FRAME, from_hex, to_hex, vector},
};

/// The time in which a peer must answer, and take a message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The time between two reconciliations.
const SYNC_INTERVAL: Duration = Duration::from_secs(60);
/// Events that are fetched by one request.
const FETCH: usize = 500;
/// Events of a peer that were refused and are not fetched again; the list is emptied beyond it.
const MAX_REFUSED: usize = 50_000;
/// Messages of one reconciliation: enough for a million events.
const MAX_ROUNDS: usize = 200;

const LIVE: &str = "live";
const SYNC: &str = "sync";
const FETCHED: &str = "fetch";

/// What is remembered of a peer from one connection to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    refused: HashSet<[u8; 32]>,
    allowance: PeerAllowance,
}

/// One reconciliation as it goes on.
enum Progress {
    /// Messages go back and forth. The peer has the events that are needed.
    Comparing {
        set: Box<Negentropy<'static, NegentropyStorageVector>>,
        need: Vec<Id>,
        rounds: usize,
    },
    /// Events are fetched, some at a time.
    Fetching { left: VecDeque<[u8; 32]>, copied: usize },
    /// It is over. The next begins then.
    Waiting(Instant),
}

pub(super) struct Link<'r> {
    socket: Socket,
    registry: &'r Registry,
    memory: &'r mut Memory,
    name: &'r str,
    progress: Progress,
}

fn kinds() -> Filter {
    Filter::new().kinds(COPIED_KINDS.map(Kind::from))
}

impl<'r> Link<'r> {
    pub(super) fn new(
        socket: Socket,
        registry: &'r Registry,
        memory: &'r mut Memory,
        name: &'r str,
    ) -> Self {
        let progress = Progress::Waiting(Instant::now());
        Self { socket, registry, memory, name, progress }
    }

    /// Copies from the peer until the connection ends, which is always an error.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        // Without stored events: those are reconciled.
        let live = ClientMessage::req(SubscriptionId::new(LIVE), vec![kinds().limit(0)]);
        self.send(&live).await?;
        let mut heard = Instant::now();
        loop {
            let wake = match &self.progress {
                Progress::Waiting(at) => *at,
                _ => heard + ANSWER_TIMEOUT,
            };
            tokio::select! {
                message = self.socket.next() => {
                    heard = Instant::now();
                    match message.context("the peer has closed the connection")?? {
                        Message::Text(text) => self.take(&text).await?,
                        Message::Close(_) => bail!("the peer has closed the connection"),
                        _ => {}
                    }
                }
                () = sleep_until(wake) => match self.progress {
                    Progress::Waiting(_) => {
                        heard = Instant::now();
                        self.begin().await?;
                    }
                    _ => bail!("the peer does not answer"),
                }
            }
        }
    }

    async fn send(&mut self, message: &ClientMessage<'_>) -> anyhow::Result<()> {
        let sent = self.socket.send(Message::text(message.as_json()));
        timeout(ANSWER_TIMEOUT, sent).await.context("the peer does not read")??;
        Ok(())
    }

    async fn begin(&mut self) -> anyhow::Result<()> {
        let all = self.registry.all();
        let copied = all.iter().filter(|record| COPIED_KINDS.contains(&record.kind));
        let set = vector(copied.map(|record| (record.created_at, record.id)))?;
        let mut set = Box::new(Negentropy::owned(set, MAX_FRAME)?);
        let first = to_hex(&set.initiate()?);
        self.progress = Progress::Comparing { set, need: Vec::new(), rounds: 0 };
        let open = ClientMessage::neg_open(SubscriptionId::new(SYNC), kinds(), first);
        self.send(&open).await
    }

    async fn take(&mut self, text: &str) -> anyhow::Result<()> {
        // What the library does not know is no harm.
        let Ok(message) = RelayMessage::from_json(text) else { return Ok(()) };
        match message {
            RelayMessage::Event { subscription_id, event } => match subscription_id.as_str() {
                LIVE => {
                    self.copy(&event);
                }
                FETCHED => {
                    let is_new = self.copy(&event);
                    if let Progress::Fetching { copied, .. } = &mut self.progress {
                        *copied += usize::from(is_new);
                    }
                }
                _ => {}
            },
            RelayMessage::EndOfStoredEvents(id) if id.as_str() == FETCHED => self.fetch().await?,
            RelayMessage::NegMsg { subscription_id, message }
                if subscription_id.as_str() == SYNC =>
            {
                self.compare(&message).await?;
            }
            RelayMessage::NegErr { message, .. } => {
                let word: String = message.chars().take(120).collect();
                bail!(
                    "the peer refuses to reconcile ({word}). Fix: this registry must be among the \
                     peers of {}, under a name that has this machine's address",
                    self.name
                );
            }
            RelayMessage::Closed { subscription_id, message } => {
                let word: String = message.chars().take(120).collect();
                bail!("the peer has ended the subscription {subscription_id}: {word}");
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes an event; `true` if it is new and stored.
    fn copy(&mut self, event: &Event) -> bool {
        let copied = self.registry.copy(event, &mut self.memory.allowance, clock::now());
        match copied {
            Ok(()) => return true,
            Err(Refusal::Duplicate | Refusal::PeerKeys | Refusal::Full) => {}
            Err(_) => {
                if self.memory.refused.len() >= MAX_REFUSED {
                    self.memory.refused.clear();
                }
                self.memory.refused.insert(event.id.to_bytes());
            }
        }
        false
    }

    async fn compare(&mut self, message: &str) -> anyhow::Result<()> {
        let Progress::Comparing { set, need, rounds } = &mut self.progress else { return Ok(()) };
        *rounds += 1;
        ensure!(*rounds <= MAX_ROUNDS, "the reconciliation does not end");
        let query = from_hex(message).context("the peer's reconciliation is not hex")?;
        match set.reconcile_with_ids(&query, &mut Vec::new(), need)? {
            Some(answer) => {
                let answer = ClientMessage::NegMsg {
                    subscription_id: std::borrow::Cow::Owned(SubscriptionId::new(SYNC)),
                    message: to_hex(&answer).into(),
                };
                self.send(&answer).await
            }
            None => {
                let left: BTreeSet<[u8; 32]> = need
                    .drain(..)
                    .map(Id::to_bytes)
                    .filter(|id| !self.memory.refused.contains(id))
                    .filter(|id| !self.registry.contains(id))
                    .collect();
                self.progress = Progress::Fetching { left: left.into_iter().collect(), copied: 0 };
                let close = ClientMessage::NegClose {
                    subscription_id: std::borrow::Cow::Owned(SubscriptionId::new(SYNC)),
                };
                self.send(&close).await?;
                self.fetch().await
            }
        }
    }

    async fn fetch(&mut self) -> anyhow::Result<()> {
        let Progress::Fetching { left, copied } = &mut self.progress else { return Ok(()) };
        let some: Vec<[u8; 32]> = left.drain(..FETCH.min(left.len())).collect();
        if some.is_empty() {
            if *copied > 0 {
                tracing::info!(peer = self.name, events = *copied, "copied from a peer");
            }
            self.progress = Progress::Waiting(Instant::now() + SYNC_INTERVAL);
            return Ok(());
        }
        let ids = some.iter().filter_map(|id| EventId::from_slice(id).ok());
        let filter = Filter::new().ids(ids).limit(some.len());
        let request = ClientMessage::req(SubscriptionId::new(FETCHED), vec![filter]);
        self.send(&request).await
    }
}
