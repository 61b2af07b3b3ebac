//! `weir registry`.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use weir_config::{Config, WebSocketUrl};
use weir_registry::server::Server;

use crate::logging::Log;

#[derive(Debug, Subcommand)]
pub(super) enum RegistryCommand {
    /// Run a registry until SIGTERM or SIGINT; it needs neither root nor a node
    #[command(after_help = "Examples:\n  weir registry run --config /etc/weir/registry.toml\n  \
        weir registry run --listen 127.0.0.1:7447 --snapshot \"$HOME/listings\"\n  \
        weir registry run --listen '[::]:7447' --peer wss://registry.example\n\n\
        The settings are in the section [registry] of the configuration; options override them.\n\
        The page is at http://ADDRESS:PORT/, and Nostr clients use ws://ADDRESS:PORT.")]
    Run {
        /// Address and port for clients, the page, the API and metrics
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
        /// Another registry to copy listings from, instead of those in the configuration; repeatable
        #[arg(long, value_name = "URL")]
        peer: Vec<String>,
        /// The file that keeps the listings over a restart; \"\" for none
        #[arg(long, value_name = "FILE")]
        snapshot: Option<String>,
    },
}

/// Runs a registry.
pub(super) fn run(config: Config, command: RegistryCommand) -> anyhow::Result<()> {
    let RegistryCommand::Run { listen, peer, snapshot } = command;
    let mut settings = config.registry;
    settings.listen = listen.unwrap_or(settings.listen);
    if let Some(path) = snapshot {
        settings.snapshot = path;
    }
    if !peer.is_empty() {
        for url in &peer {
            url.parse::<WebSocketUrl>()
                .context("--peer: write for example wss://registry.example")?;
        }
        settings.peers = peer;
    }
    Log::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the start, so that none is lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::bind(&settings, env!("CARGO_PKG_VERSION")).await?;
        tracing::info!(peers = settings.peers.len(), "registry listens on {}", server.address()?);
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(%error, "cannot tell systemd that the registry is ready");
        }
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.serve(stop).await
    })
}
