//! A Nostr relay of the tests' own, over real WebSockets, which is honest or lies.
//!
//! It is no part of weir: it reads events as plain JSON, so that a mistake of weir's reader does not
//! hide here.

use std::{
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use crate::Namespace;

/// A relay in a namespace. It ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// What it has, newest events of each key and `d` tag only.
    events: Vec<Value>,
    /// Everything that it was sent, in order.
    received: Vec<Value>,
    /// Every request, in order.
    requests: Vec<Value>,
    connections: usize,
    /// What it answers to events instead of taking them.
    refusal: Option<String>,
    /// Messages that it sends to every request, whatever they are.
    lies: Vec<String>,
    /// The most events that it sends to one request.
    page: usize,
}

impl Relay {
    /// Starts a relay at this address of a namespace.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let address = SocketAddr::new(address, port);
        let listener = namespace.enter(|| {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { page: 500, ..State::default() }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    served = serve(listener, shared) => served.unwrap_or_default(),
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The events that it has.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.state().events.clone()
    }

    /// Every event that it was ever sent.
    #[must_use]
    pub fn received(&self) -> Vec<Value> {
        self.state().received.clone()
    }

    /// Every request (`REQ`) that it got.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.state().requests.clone()
    }

    /// The connections that were made to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// Has it refuse events with this reason, or take them.
    pub fn refuse(&self, reason: Option<&str>) {
        self.state().refusal = reason.map(str::to_owned);
    }

    /// Gives it events, which it serves without looking at them.
    pub fn put(&self, events: impl IntoIterator<Item = Value>) {
        self.state().events.extend(events);
    }

    /// Forgets every event.
    pub fn forget(&self) {
        self.state().events.clear();
    }

    /// Sends these messages to every request, before the events. `SUB` stands for the subscription.
    pub fn lie(&self, messages: impl IntoIterator<Item = String>) {
        self.state().lies.extend(messages);
    }

    /// Sends at most so many events to one request.
    pub fn set_page(&self, events: usize) {
        self.state().page = events;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

async fn serve(listener: StdListener, state: Arc<Mutex<State>>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // What goes wrong with one client is the test's to notice.
            drop(answer(stream, &state).await);
        });
    }
}

async fn answer(stream: tokio::net::TcpStream, state: &Mutex<State>) -> Result<()> {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    lock().connections += 1;
    let mut socket = accept_async(stream).await?;
    while let Some(message) = tokio::time::timeout(Duration::from_secs(60), socket.next()).await? {
        let Message::Text(text) = message? else { continue };
        let message: Value = serde_json::from_str(&text)?;
        let answers = match message[0].as_str() {
            Some("EVENT") => vec![lock().take(&message[1])],
            Some("REQ") => lock().select(&message)?,
            _ => Vec::new(),
        };
        for answer in answers {
            socket.send(Message::text(answer)).await?;
        }
    }
    Ok(())
}

impl State {
    fn take(&mut self, event: &Value) -> String {
        self.received.push(event.clone());
        if let Some(reason) = &self.refusal {
            return json!(["OK", event["id"], false, reason]).to_string();
        }
        let own = |other: &Value| other["pubkey"] == event["pubkey"];
        if event["kind"] == 5 {
            self.events.retain(|other| !(own(other) && other["kind"] == 30402));
        } else {
            let same = |other: &Value| own(other) && other["kind"] == event["kind"];
            self.events.retain(|other| !(same(other) && tag(other, "d") == tag(event, "d")));
        }
        self.events.push(event.clone());
        json!(["OK", event["id"], true, ""]).to_string()
    }

    fn select(&mut self, request: &Value) -> Result<Vec<String>> {
        self.requests.push(request.clone());
        let name = request[1].as_str().context("a name")?;
        let filter = &request[2];
        let kinds = filter["kinds"].as_array().context("kinds")?;
        let mut found: Vec<&Value> = self
            .events
            .iter()
            .filter(|event| kinds.contains(&event["kind"]))
            .filter(|event| filter["since"].as_u64() <= event["created_at"].as_u64())
            .filter(|event| {
                filter["until"]
                    .as_u64()
                    .is_none_or(|until| event["created_at"].as_u64() <= Some(until))
            })
            .collect();
        found.sort_by_key(|event| std::cmp::Reverse(event["created_at"].as_u64()));
        let limit = filter["limit"].as_u64().unwrap_or(u64::MAX);
        found.truncate(usize::try_from(limit)?.min(self.page));
        let lies = self.lies.iter().map(|lie| lie.replace("SUB", name));
        let events = found.iter().map(|event| json!(["EVENT", name, event]).to_string());
        let end = std::iter::once(json!(["EOSE", name]).to_string());
        Ok(lies.chain(events).chain(end).collect())
    }
}

/// The first value of the first tag of this name.
#[must_use]
pub fn tag<'e>(event: &'e Value, name: &str) -> Option<&'e str> {
    let tags = event["tags"].as_array()?;
    tags.iter().find(|tag| tag[0] == name)?[1].as_str()
}
