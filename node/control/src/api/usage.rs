//! The requests about usage records.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::{Api, error::ApiError, off_thread, view::UsagePage};
use weir_ledger::{MAX_RECORDS, UsageLog, UsageRecord};

/// The interval of comment lines on an idle stream. They show each end that the other is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The delay after a failure to read the ledger.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The query of usage records.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
}

type UsageQuery = Result<Query<From>, QueryRejection>;

pub(super) async fn page(
    State(api): State<Api>,
    query: UsageQuery,
) -> Result<impl IntoResponse, ApiError> {
    let From { after, limit } = read(query)?;
    let limit = limit.unwrap_or(MAX_RECORDS);
    let page = off_thread(move || {
        let records = api.usage.after(after, limit)?;
        let cursor = records.last().map_or(after, |record| record.cursor);
        Ok::<_, ApiError>(UsagePage { records, cursor, signer: api.usage.signer() })
    });
    Ok(Json(page.await??))
}

pub(super) async fn stream(
    State(api): State<Api>,
    query: UsageQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    // A client that reconnects sends the last cursor that it received.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let cursor = last.unwrap_or(read(query)?.after);
    let (usage, written) = (api.usage.clone(), api.usage.watch());
    let reader = Reader { usage, written, cursor, records: VecDeque::new() };
    let events = stream::unfold(reader, async |mut reader| {
        let record = reader.next().await?;
        let event = Event::default().id(record.cursor.to_string()).event("usage");
        let event = event.json_data(&record).unwrap_or_default();
        Some((Ok::<_, Infallible>(event), reader))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE_INTERVAL)))
}

/// Reads the records in order, and waits for new ones at the end.
struct Reader {
    usage: UsageLog,
    written: watch::Receiver<u64>,
    cursor: u64,
    records: VecDeque<UsageRecord>,
}

impl Reader {
    async fn next(&mut self) -> Option<UsageRecord> {
        loop {
            if let Some(record) = self.records.pop_front() {
                self.cursor = record.cursor;
                return Some(record);
            }
            self.written.borrow_and_update();
            let (usage, cursor) = (self.usage.clone(), self.cursor);
            match off_thread(move || usage.after(cursor, MAX_RECORDS)).await {
                Ok(Ok(records)) if records.is_empty() => self.written.changed().await.ok()?,
                Ok(Ok(records)) => self.records = records.into(),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        }
    }
}

fn read(query: UsageQuery) -> Result<From, ApiError> {
    let Query(from) = query.map_err(|e| {
        let what = format!("{}; expected ?after=CURSOR&limit=1 to {MAX_RECORDS}", e.body_text());
        ApiError::bad_request("bad_query", what)
    })?;
    Ok(from)
}
