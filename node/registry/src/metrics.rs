//! The registry as Prometheus sees it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::{
    encoding::text,
    metrics::{counter::ConstCounter, family::Family, gauge::ConstGauge},
    registry::Registry as Exporter,
};

use crate::{refusal::Refusal, registry::Size};

/// What is counted since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    stored: AtomicU64,
    copied: AtomicU64,
    refused: [AtomicU64; Refusal::WORDS.len()],
    requests_refused: AtomicU64,
    connections_refused: AtomicU64,
    slow_readers: AtomicU64,
    connections: AtomicU64,
    peers_connected: AtomicU64,
}

impl Metrics {
    /// An event was published and stored.
    pub(crate) fn stored(&self) {
        self.stored.fetch_add(1, Relaxed);
    }

    /// An event was copied from a peer.
    pub(crate) fn copied(&self) {
        self.copied.fetch_add(1, Relaxed);
    }

    /// An event was refused.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let at = Refusal::WORDS.iter().position(|word| *word == refusal.word());
        if let Some(count) = at.and_then(|at| self.refused.get(at)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A subscription or a query was refused, because its network asks too often.
    pub(crate) fn request_refused(&self) {
        self.requests_refused.fetch_add(1, Relaxed);
    }

    /// A connection was refused.
    pub(crate) fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    /// A client read too slowly.
    pub(crate) fn slow_reader(&self) {
        self.slow_readers.fetch_add(1, Relaxed);
    }

    /// A connection began.
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// A connection ended.
    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// A peer was reached.
    pub(crate) fn peer_connected(&self) {
        self.peers_connected.fetch_add(1, Relaxed);
    }

    /// A peer was lost.
    pub(crate) fn peer_disconnected(&self) {
        self.peers_connected.fetch_sub(1, Relaxed);
    }

    /// All metrics as text (OpenMetrics 1.0).
    ///
    /// # Errors
    ///
    /// Only when memory cannot be written to, which does not happen.
    pub fn encode(&self, size: Size) -> Result<String, std::fmt::Error> {
        let mut exporter = Exporter::with_prefix("weir_registry");
        let count = |value: &AtomicU64| ConstCounter::new(value.load(Relaxed));
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        for (name, help, value) in [
            ("events_stored", "Events that clients published and that were stored", &self.stored),
            ("events_copied", "Events that were copied from peers", &self.copied),
            (
                "requests_refused",
                "Subscriptions and queries of networks that asked too often",
                &self.requests_refused,
            ),
            (
                "connections_refused",
                "Connections beyond the limits, in total or of one network",
                &self.connections_refused,
            ),
            (
                "slow_readers",
                "Clients that read too slowly for their subscriptions",
                &self.slow_readers,
            ),
        ] {
            exporter.register(name, help, count(value));
        }
        let connections = self.connections.load(Relaxed) as usize;
        let peers = self.peers_connected.load(Relaxed) as usize;
        for (name, help, value) in [
            ("listings", "Listings that are stored", size.listings),
            ("listings_hidden", "Listings whose node has not answered yet", size.hidden),
            ("events", "Events of all kinds that are stored", size.events),
            ("events_bytes", "The memory of the events with their indexes, about", size.bytes),
            ("connections", "Connections of clients that are open", connections),
            ("peers_connected", "Peers that the registry is connected to", peers),
        ] {
            exporter.register(name, help, gauge(value));
        }
        let refused = Family::<Vec<(&'static str, &'static str)>, Count>::default();
        for (word, value) in Refusal::WORDS.iter().zip(&self.refused) {
            refused.get_or_create(&vec![("reason", *word)]).inc_by(value.load(Relaxed));
        }
        exporter.register("events_refused", "Events that were refused, by reason", refused);
        let mut encoded = String::with_capacity(8 * 1024);
        text::encode(&mut encoded, &exporter)?;
        Ok(encoded)
    }
}

type Count = prometheus_client::metrics::counter::Counter;
