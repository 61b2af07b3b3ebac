//! What a running node logs, and where.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::filter_fn,
    fmt,
    layer::SubscriberExt as _,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

use weir_config::{LogFormat, LogLevel};

/// The variable of the environment that says more exactly what is logged.
const VARIABLE: &str = "WEIR_LOG";

/// The running log.
#[derive(Clone, Debug)]
pub struct Log {
    levels: Handle<EnvFilter, Registry>,
    by_environment: bool,
}

impl Log {
    /// Logs to standard error from now on, as the configuration says, or `WEIR_LOG` if it is set.
    ///
    /// # Errors
    ///
    /// When `WEIR_LOG` cannot be understood.
    pub fn start(config: &weir_config::Log) -> anyhow::Result<Self> {
        let environment = std::env::var(VARIABLE).ok();
        let levels = match &environment {
            Some(levels) => EnvFilter::try_new(levels).with_context(|| {
                format!("{VARIABLE} is {levels:?}: try info, debug or weir::api=debug")
            })?,
            None => filter(config.level),
        };
        // boringtun logs what could tell one consumer from another, and hickory the names that they
        // ask for; cashu says of each forged token that it is one. No level lets that out.
        let secretive = ["boringtun", "hickory", "cashu"];
        let allowed = filter_fn(move |metadata| {
            !secretive.iter().any(|library| metadata.target().starts_with(library))
        });
        // Colours are for a terminal: in the journal and in files they are noise.
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        let lines = match config.format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let (levels, handle) = reload::Layer::new(levels);
        let lines = lines.with_filter(allowed);
        tracing_subscriber::registry().with(levels).with(lines).try_init().context("cannot log")?;
        // Else what libraries write would stay at the first level after a reload.
        log::set_max_level(log::LevelFilter::Trace);
        Ok(Self { levels: handle, by_environment: environment.is_some() })
    }

    /// Logs at another level from now on. Says what the operator should know.
    ///
    /// # Errors
    ///
    /// When nothing is logged any more.
    pub fn set(&self, level: LogLevel) -> anyhow::Result<Vec<String>> {
        if self.by_environment {
            return Ok(vec![format!("{VARIABLE} is set and overrides log.level")]);
        }
        self.levels.reload(filter(level)).context("cannot change the log level")?;
        Ok(Vec::new())
    }
}

/// Of libraries nothing below `info`: nobody has looked at what they say there about consumers. The
/// NATS library would tell each of its attempts to connect, every four seconds.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(match level {
        LogLevel::Error => "error,async_nats=off",
        LogLevel::Warn => "warn,async_nats=off",
        LogLevel::Info => "info,async_nats=off",
        LogLevel::Debug => "info,async_nats=off,weir=debug",
    })
}
