//! A NATS server with JetStream, as a fleet has one.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use async_nats::{Client, ConnectOptions};
use tempfile::TempDir;

use crate::{Namespace, until};

/// Who has it may connect.
const TOKEN: &str = "a token of the fleet";

/// A server whose stream is on the disk; gone when dropped.
#[derive(Debug)]
pub struct Server<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl<'a> Server<'a> {
    /// Starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(namespace: &'a Namespace, address: Ipv4Addr) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let address = SocketAddr::from((address, 4222));
        let config = format!(
            "listen: \"{address}\"\njetstream {{ store_dir: \"{}\" }}\n\
             authorization {{ token: \"{TOKEN}\" }}\n",
            directory.path().display()
        );
        fs::write(directory.path().join("nats.conf"), config)?;
        fs::write(directory.path().join("token"), TOKEN)?;
        let mut server = Self { namespace, directory, address, child: None };
        server.restart()?;
        Ok(server)
    }

    /// Starts it again with what is on its disk.
    ///
    /// # Errors
    /// If it does not take connections.
    pub fn restart(&mut self) -> Result<()> {
        let log = self.directory.path().join("nats.log");
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.namespace.command("nats-server");
        command.arg("-c").arg(self.directory.path().join("nats.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("cannot start nats-server")?);
        until("nats-server answers", Duration::from_secs(20), || {
            self.namespace.enter(|| Ok(TcpStream::connect(self.address)?)).map(drop)
        })
        .with_context(|| self.log())
    }

    /// Kills it, so that it can write nothing down any more.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("nats-server does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The file for `fleet.token_file`.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    /// Its address for `fleet.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Does something with a connection to it.
    ///
    /// # Errors
    /// If there is no connection, or what `work` gives.
    pub fn with<T: Send>(&self, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        self.namespace.enter(|| {
            // All in this thread, which is in the namespace.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let options = ConnectOptions::new().token(TOKEN.to_owned());
                work(options.connect(self.url()).await.with_context(|| self.log())?).await
            })
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("nats.log")).unwrap_or_default()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.kill().ok();
    }
}
