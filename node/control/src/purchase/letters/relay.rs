//! A line to one relay (NIP-01 over WebSocket), held for as long as the node runs.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use nostr::event::Event;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use weir_config::WebSocketUrl;
use weir_ledger::unix_now;
use weir_market::{
    client::{Connector, Socket},
    event::SEALED,
    purchase::letter::MAX_LETTER,
};

use super::Letters;

/// The time in which a relay must take a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the relay is asked whether it is there, and how long it may say nothing.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(90);
/// The waits between attempts: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(300);
/// How far back a letter's time of creation may be (NIP-59), in seconds, with some for clocks.
const MAX_BACKDATED: u64 = 2 * 86_400 + 3600;
/// How many letters the relay is asked for that came while there was no line.
const STORED: u32 = 100;
/// The longest message of a relay, in bytes.
const MAX_MESSAGE: usize = MAX_LETTER + 16 * 1024;
/// Answers that wait to be sent.
const MAX_ANSWERS: usize = 64;
const SUBSCRIPTION: &str = "weir";

/// A line to a relay.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) url: WebSocketUrl,
    pub(super) connector: Connector,
    pub(super) letters: Letters,
}

impl Line {
    /// Holds the line until `stopped` says so.
    pub(super) async fn hold(self, mut stopped: watch::Receiver<bool>) {
        let mut wait = FIRST_WAIT;
        let mut failed_before = false;
        loop {
            let (up, is_up) = watch::channel(false);
            let error = tokio::select! {
                error = self.connect_and_serve(up) => error,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            if *is_up.borrow() {
                (wait, failed_before) = (FIRST_WAIT, false);
            }
            if !failed_before {
                tracing::warn!(
                    relay = %self.url,
                    "no letters come from a relay now, and it is tried again: {error:#}"
                );
                failed_before = true;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    /// Serves until the line breaks, and says why it did.
    async fn connect_and_serve(&self, up: watch::Sender<bool>) -> anyhow::Error {
        let served = self.serve(up).await.err();
        served.unwrap_or_else(|| anyhow::anyhow!("the relay has closed the connection"))
    }

    async fn serve(&self, up: watch::Sender<bool>) -> anyhow::Result<()> {
        let mut socket = self.connector.socket(&self.url, MAX_MESSAGE).await?;
        let filter = json!({
            "kinds": [SEALED],
            "#p": [self.letters.address()],
            "since": unix_now().saturating_sub(MAX_BACKDATED),
            "limit": STORED,
        });
        send(&mut socket, Message::text(json!(["REQ", SUBSCRIPTION, filter]).to_string())).await?;
        up.send_replace(true);
        tracing::info!(relay = %self.url, "letters are awaited at a relay");
        let (answers, mut to_send) = mpsc::channel::<Event>(MAX_ANSWERS);
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A relay answers pings.
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                received = socket.next() => {
                    let Some(message) = received.transpose()? else { return Ok(()) };
                    heard = Instant::now();
                    if let Message::Text(text) = message {
                        self.receive(text.as_str(), &answers)?;
                    }
                }
                Some(answer) = to_send.recv() => {
                    let message = format!(r#"["EVENT",{}]"#, answer.as_json());
                    send(&mut socket, Message::text(message)).await?;
                }
                _ = pings.tick() => {
                    ensure!(heard.elapsed() < SILENCE_TIMEOUT, "it says nothing");
                    send(&mut socket, Message::Ping(Vec::new().into())).await?;
                }
            }
        }
    }

    /// Takes a message of the relay.
    fn receive(&self, text: &str, answers: &mpsc::Sender<Event>) -> anyhow::Result<()> {
        match Said::read(text) {
            Some(Said::Letter(letter)) => {
                let (letters, answers) = (self.letters.clone(), answers.clone());
                tokio::spawn(async move {
                    if let Some(answer) = letters.answer(*letter).await {
                        // What a broken line does not take is asked for again.
                        answers.try_send(answer).ok();
                    }
                });
            }
            Some(Said::Refused(why)) => anyhow::bail!("it closes the subscription: {why:?}"),
            Some(Said::NotTaken(why)) => {
                tracing::warn!(relay = %self.url, why, "a relay does not take an answer");
            }
            None => {}
        }
        Ok(())
    }
}

async fn send(socket: &mut Socket, message: Message) -> anyhow::Result<()> {
    let sent = timeout(SEND_TIMEOUT, socket.send(message)).await;
    ensure!(sent.context("it takes nothing")?.is_ok(), "the connection is broken");
    Ok(())
}

/// What matters of what a relay says.
enum Said {
    Letter(Box<Event>),
    /// The subscription has ended.
    Refused(String),
    /// An answer is not taken.
    NotTaken(String),
}

impl Said {
    fn read(text: &str) -> Option<Self> {
        let mut words: Vec<Value> = serde_json::from_str(text).ok()?;
        let short = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str).unwrap_or_default();
            text.chars().filter(|letter| !letter.is_control()).take(200).collect::<String>()
        };
        match words.first()?.as_str()? {
            "EVENT" if words.len() == 3 && words[1] == SUBSCRIPTION => {
                let event = serde_json::from_value(words.pop()?).ok()?;
                Some(Self::Letter(Box::new(event)))
            }
            "CLOSED" if words.get(1)? == SUBSCRIPTION => Some(Self::Refused(short(words.get(2)))),
            "OK" if words.get(2)? == &Value::Bool(false) => {
                Some(Self::NotTaken(short(words.get(3))))
            }
            _ => None,
        }
    }
}
