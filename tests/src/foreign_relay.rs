//! nostr-relay: a Nostr relay of other people's making, in a namespace.

use std::{
    env, fs,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{Namespace, until};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running relay; gone when dropped.
#[derive(Debug)]
pub struct ForeignRelay {
    address: SocketAddrV4,
    child: Child,
    _directory: TempDir,
}

impl ForeignRelay {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed, ends or does not answer; the error has what it wrote.
    pub fn start(namespace: &Namespace, address: SocketAddrV4) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let config = format!(
            "DEBUG: false\nrelay_name: other people's\nstorage:\n  \
             sqlalchemy.url: sqlite+aiosqlite:///{}\n  validators:\n    \
             - nostr_relay.validators.is_signed\ngunicorn:\n  bind: {address}\n  workers: 1\n  \
             loglevel: warning\n  worker_class: uvicorn.workers.UvicornWorker\n",
            at("events.sqlite3").display()
        );
        fs::write(at("relay.yaml"), config)?;
        let mut command = namespace.command(program()?.to_str().context("a path")?);
        command.arg("-c").arg(at("relay.yaml")).arg("serve");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(at("log"))?);
        let mut relay = Self { address, child: command.spawn()?, _directory: directory };
        let answers = until("the foreign relay answers", START_TIMEOUT, || {
            if let Some(status) = relay.child.try_wait()? {
                return Ok(Err(status));
            }
            let url = format!("http://{address}/");
            namespace.run(&format!("curl -sf -H Accept:application/nostr+json {url}")).map(Ok)
        });
        let log = || fs::read_to_string(relay._directory.path().join("log")).unwrap_or_default();
        match answers {
            Ok(Ok(about)) => ensure!(about.contains("other people's"), "{about}"),
            Ok(Err(status)) => bail!("it ended with {status}:\n{}", log()),
            Err(error) => bail!("{error:#}:\n{}", log()),
        }
        Ok(relay)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Its URL for Nostr clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for ForeignRelay {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn program() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = target.join("tools/nostr-relay/bin/nostr-relay");
    ensure!(program.exists(), "{} is missing: cargo xtask setup", program.display());
    Ok(program)
}
