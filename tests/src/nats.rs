//! A NATS server with JetStream, as a fleet has one.

mod authority;
mod operator;

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

pub use self::{authority::Authority, operator::Operator};
use crate::{Namespace, until};

/// Who has it may connect.
const TOKEN: &str = "a token of the fleet";

/// A server whose stream is on the disk; gone when dropped.
#[derive(Debug)]
pub struct Server<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
    address: SocketAddr,
    is_secure: bool,
    child: Option<Child>,
}

impl<'a> Server<'a> {
    /// Starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(namespace: &'a Namespace, address: Ipv4Addr) -> Result<Self> {
        let mut server = Self::prepare(namespace, address, false)?;
        server.configure(&format!("authorization {{ token: \"{TOKEN}\" }}\n"))?;
        fs::write(server.path("token"), TOKEN)?;
        server.restart()?;
        Ok(server)
    }

    /// Starts one that speaks TLS alone, and knows the accounts of an operator.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn secured(
        namespace: &'a Namespace,
        address: Ipv4Addr,
        authority: &Authority,
        operator: &Operator,
    ) -> Result<Self> {
        let mut server = Self::prepare(namespace, address, true)?;
        server.secure(authority, operator)?;
        server.restart()?;
        Ok(server)
    }

    /// Has a secured one, from its next start on, a certificate by another authority, and know
    /// another operator. What it has stored stays, for those whose accounts stay.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn secure(&self, authority: &Authority, operator: &Operator) -> Result<()> {
        let (certificate, key) = authority.sign(self.address.ip())?;
        fs::write(self.path("certificate.pem"), certificate)?;
        fs::write(self.path("key.pem"), key)?;
        fs::write(self.ca_file(), authority.certificate())?;
        fs::write(self.credentials_file(), operator.payment_layer()?)?;
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| self.path(name));
        self.configure(&format!(
            "tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n{}",
            operator.config()?
        ))
    }

    fn prepare(namespace: &'a Namespace, address: Ipv4Addr, is_secure: bool) -> Result<Self> {
        let address = SocketAddr::from((address, 4222));
        Ok(Self { namespace, directory: tempfile::tempdir()?, address, is_secure, child: None })
    }

    fn configure(&self, more: &str) -> Result<()> {
        let (address, store) = (self.address, self.directory.path());
        let config = format!("listen: \"{address}\"\njetstream {{ store_dir: {store:?} }}\n{more}");
        Ok(fs::write(self.path("nats.conf"), config)?)
    }

    /// Starts it again with what is on its disk.
    ///
    /// # Errors
    /// If it does not take connections.
    pub fn restart(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path("nats.log"))?;
        let mut command = self.namespace.command("nats-server");
        command.arg("-c").arg(self.path("nats.conf"));
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
        self.path("token")
    }

    /// The certificate of who signed a secured one's.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Its address for `fleet.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_secure { "tls" } else { "nats" }, self.address)
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
                let options = ConnectOptions::new();
                let options = match self.is_secure {
                    true => {
                        options
                            .add_root_certificates(self.ca_file())
                            .credentials_file(self.credentials_file())
                            .await?
                    }
                    false => options.token(TOKEN.to_owned()),
                };
                work(options.connect(self.url()).await.with_context(|| self.log())?).await
            })
        })
    }

    fn credentials_file(&self) -> PathBuf {
        self.path("payment-layer.creds")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("nats.log")).unwrap_or_default()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.kill().ok();
    }
}
