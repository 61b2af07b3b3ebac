//! The node as Prometheus sees it, read from the node at the moment of each scrape,
//! so that counting for it costs a packet nothing.

use std::sync::Arc;

use prometheus_client::{encoding::text, registry::Registry};

use crate::view::SharedView;
use weir_config::Shared;
use weir_sessions::Sessions;

mod collector;
mod plain;
mod write;

/// A form in which metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus before that, which is what simple programs read.
    Plain,
}

impl Form {
    /// The form for who accepts this, as HTTP's `Accept` says it.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Plain,
        }
    }

    /// Its content type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Which sessions have series of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// Whether any has.
    pub per_session: bool,
    /// The maximum number of sessions, the first by slot. A metric counts the rest.
    pub max_sessions: usize,
}

/// The registry of all of weir's metrics.
#[must_use]
pub fn registry(sessions: Arc<Sessions>, view: SharedView, series: Shared<Series>) -> Registry {
    let mut registry = Registry::with_prefix("weir");
    let collector = collector::NodeCollector::new(sessions, view, series);
    registry.register_collector(Box::new(collector));
    registry
}

/// All metrics now, as text.
///
/// # Errors
///
/// Only when memory cannot be written to, which does not happen.
pub fn encode(registry: &Registry, form: Form) -> Result<String, std::fmt::Error> {
    let mut text = String::with_capacity(16 * 1024);
    text::encode(&mut text, registry)?;
    Ok(match form {
        Form::OpenMetrics => text,
        Form::Plain => plain::from_open_metrics(&text),
    })
}

#[cfg(test)]
pub(crate) mod tests;
