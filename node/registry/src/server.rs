//! A running registry.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock,
    http::{App, PeerAddresses, router},
    info::Description,
    listener::{Connections, Limited, Limits, Origin},
    peers::Peers,
    registry::{Registry, Rules},
    snapshot,
    store::Capacity,
};

/// How often what has expired is forgotten.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a changed registry is written to its snapshot.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);

/// A registry that listens and is not served yet.
pub struct Server {
    listener: TcpListener,
    registry: Arc<Registry>,
    app: App,
    peers: Peers,
    snapshot: Option<PathBuf>,
}

/// The rules that a configuration says.
#[must_use]
pub fn rules(config: &weir_config::Registry) -> Rules {
    Rules {
        capacity: Capacity {
            events: config.max_listings as usize,
            bytes: (config.max_mib as usize) << 20,
        },
        keys_per_network: config.keys_per_network,
        events_per_second: config.events_per_second,
        proof_of_work: u8::try_from(config.proof_of_work).unwrap_or(u8::MAX),
        dial_back: config.dial_back,
    }
}

impl Server {
    /// Reads the snapshot and listens.
    ///
    /// # Errors
    ///
    /// When the snapshot cannot be read or written, the address is taken, or a peer's URL is wrong.
    pub async fn bind(config: &weir_config::Registry, version: &str) -> anyhow::Result<Self> {
        let registry = Arc::new(Registry::new(rules(config)));
        let path = (!config.snapshot.is_empty()).then(|| PathBuf::from(&config.snapshot));
        if let Some(path) = &path {
            restore(path, &registry)?;
        }
        let listen = config.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!(
                "cannot listen on {listen}. Choose another address and port with --listen or \
                 registry.listen"
            )
        })?;
        let addresses = PeerAddresses::default();
        let ca_file = (!config.ca_file.is_empty()).then(|| Path::new(&config.ca_file));
        let peers = Peers::new(&config.peers, ca_file, addresses.clone())?;
        let limits = Limits {
            total: config.max_connections as usize,
            per_network: config.connections_per_network as usize,
            proxies: config.proxies.clone(),
        };
        let description = Description {
            title: config.title.clone(),
            version: version.to_owned(),
            wireguard_key: None,
        };
        let app = App {
            registry: Arc::clone(&registry),
            connections: Connections::new(limits, Arc::clone(&registry)),
            peers: addresses,
            proxies: config.proxies.clone().into(),
            description: Arc::new(description),
        };
        Ok(Self { listener, registry, app, peers, snapshot: path })
    }

    /// The address on which it listens.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What is stored.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Serves until `stop` is done, and then writes the snapshot.
    ///
    /// # Errors
    ///
    /// When the last snapshot cannot be written.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let registry = Arc::clone(&self.registry);
        tasks.spawn(expire(Arc::clone(&registry)));
        tasks.spawn(self.peers.run(Arc::clone(&registry)));
        if let Some(path) = self.snapshot.clone() {
            tasks.spawn(keep(path, Arc::clone(&registry)));
        }
        let listener = Limited::new(self.listener, self.app.connections.clone());
        let service = router(self.app).into_make_service_with_connect_info::<Origin>();
        tokio::select! {
            served = axum::serve(listener, service) => served?,
            () = stop => {}
        }
        tasks.shutdown().await;
        if let Some(path) = &self.snapshot {
            let events = snapshot::write(path, &registry)?;
            tracing::info!(events, "wrote the snapshot");
        }
        Ok(())
    }
}

fn restore(path: &Path, registry: &Registry) -> anyhow::Result<()> {
    let restored = snapshot::read(path, registry, clock::now().unix)?;
    tracing::info!(
        events = restored.events,
        left_out = restored.left_out,
        "read the snapshot {}",
        path.display()
    );
    // What cannot be written is known now, and not in a minute.
    snapshot::write(path, registry)?;
    Ok(())
}

async fn expire(registry: Arc<Registry>) {
    let mut ticks = interval(EXPIRE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registry.expire(clock::now().unix);
    }
}

/// Writes the snapshot again and again, if something has changed.
async fn keep(path: PathBuf, registry: Arc<Registry>) {
    let mut ticks = interval(SNAPSHOT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = registry.changes();
    loop {
        ticks.tick().await;
        let changes = registry.changes();
        if changes == written {
            continue;
        }
        let (path, all) = (path.clone(), Arc::clone(&registry));
        let done = tokio::task::spawn_blocking(move || snapshot::write(&path, &all)).await;
        match done {
            Ok(Ok(_)) => written = changes,
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(_) => {}
        }
    }
}
