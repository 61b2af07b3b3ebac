//! The relay's end of a WebSocket.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    clock,
    record::Record,
    registry::Registry,
    relay::{Answer, Client, Session, end_of_stored, event, notice},
};

/// The time that a client has to read one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// The time that a client has to read all stored events of a subscription.
const STORED_TIMEOUT: Duration = Duration::from_secs(300);
/// The interval of pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Pings without any answer after which a client is gone.
const MAX_SILENT_PINGS: u32 = 3;

/// The connection is over.
struct Over;

/// Serves a client until it goes, or does not read.
pub(crate) async fn serve(mut socket: WebSocket, client: Client, registry: Arc<Registry>) {
    let mut session = Session::new(client);
    let mut live = registry.subscribe();
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = 0;
    loop {
        let done = tokio::select! {
            message = socket.recv() => {
                silent = 0;
                match message {
                    Some(Ok(Message::Text(text))) => {
                        let answer = session.take(&text, &registry, clock::now());
                        send_answer(&mut socket, answer).await
                    }
                    Some(Ok(Message::Binary(_))) => {
                        let text = "invalid: messages are text (NIP-01)";
                        send(&mut socket, notice(text).into()).await
                    }
                    // axum answers pings.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Over),
                }
            }
            record = live.recv() => match record {
                Ok(record) => send_event(&mut socket, &session, &record).await,
                Err(RecvError::Lagged(_)) => {
                    registry.metrics().slow_reader();
                    let text = "rate-limited: you read too slowly and missed events: subscribe again";
                    send_all(&mut socket, session.close_all(text)).await
                }
                Err(RecvError::Closed) => Err(Over),
            },
            _ = pings.tick() => {
                silent += 1;
                if silent > MAX_SILENT_PINGS {
                    Err(Over)
                } else {
                    send_message(&mut socket, Message::Ping(Default::default())).await
                }
            }
        };
        if done.is_err() {
            return;
        }
    }
}

async fn send_answer(socket: &mut WebSocket, answer: Option<Answer>) -> Result<(), Over> {
    match answer {
        None => Ok(()),
        Some(Answer::Message(text) | Answer::Refused(text)) => send(socket, text.into()).await,
        Some(Answer::Bye(text)) => {
            send(socket, text.into()).await?;
            Err(Over)
        }
        Some(Answer::Stored { subscription, events }) => {
            let stored = async {
                for record in events {
                    send(socket, event(&subscription, &record).into()).await?;
                }
                send(socket, end_of_stored(&subscription).into()).await
            };
            timeout(STORED_TIMEOUT, stored).await.unwrap_or(Err(Over))
        }
    }
}

async fn send_event(
    socket: &mut WebSocket,
    session: &Session,
    record: &Record,
) -> Result<(), Over> {
    for text in session.events(record) {
        send(socket, text.into()).await?;
    }
    Ok(())
}

async fn send_all(socket: &mut WebSocket, texts: Vec<String>) -> Result<(), Over> {
    for text in texts {
        send(socket, text.into()).await?;
    }
    Ok(())
}

async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> Result<(), Over> {
    send_message(socket, Message::Text(text)).await
}

async fn send_message(socket: &mut WebSocket, message: Message) -> Result<(), Over> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Over),
    }
}
