//! What a running node logs, and where.

use std::io;

use anyhow::Context as _;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// The NATS library would tell each of its attempts to connect, every four seconds.
const USUAL: &str = "info,async_nats=off";

/// Logs to standard error from now on: `info` and above, or what `WEIR_LOG` says.
///
/// # Errors
///
/// When `WEIR_LOG` cannot be understood.
pub(super) fn start() -> anyhow::Result<()> {
    let wish = std::env::var("WEIR_LOG").unwrap_or_else(|_| USUAL.to_owned());
    let levels = EnvFilter::try_new(&wish)
        .with_context(|| format!("WEIR_LOG is {wish:?}: try info, debug or weir::api=debug"))?;
    // boringtun logs what could tell one consumer from another, and hickory the names that they
    // ask for; no level lets that out.
    let secretive = ["boringtun", "hickory"];
    let allowed = filter_fn(move |metadata| {
        !secretive.iter().any(|library| metadata.target().starts_with(library))
    });
    let lines = fmt::layer().with_writer(io::stderr).with_filter(allowed);
    tracing_subscriber::registry().with(levels).with(lines).try_init().context("cannot log")?;
    Ok(())
}
