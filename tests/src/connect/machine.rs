//! `weir connect` in the consumer's namespace.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Lab, Namespace, command, node::binary, process, sweep, until};

/// What the consumer's resolver is before anything is connected.
pub const RESOLV_CONF: &str = "nameserver 192.0.2.53\n";
/// The time in which anything that a test waits for happens.
const LIMIT: Duration = Duration::from_secs(60);

/// A consumer's machine, with a resolver's file of its own.
pub struct Machine<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
    child: Option<Child>,
}

impl<'a> Machine<'a> {
    /// The machine of a lab's consumer.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&sweep::directory()).tempdir()?;
        let machine = Self { namespace: &lab.consumer, directory, child: None };
        fs::write(machine.resolv_conf(), RESOLV_CONF)?;
        fs::create_dir(machine.kept())?;
        Ok(machine)
    }

    /// Its resolver's file.
    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// What is `/var/lib/weir-connect` there.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.directory.path().join("kept")
    }

    /// Writes a configuration of a node. Returns its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn conf(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// `weir` on it, with its own `/etc/resolv.conf` and `/var/lib`. The process is the command's own.
    ///
    /// # Errors
    /// If weir is not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command("unshare");
        let script = r#"resolv=$0; kept=$1; shift
            mount --bind "$resolv" /etc/resolv.conf && mount -t tmpfs tmpfs /var/lib &&
            mkdir /var/lib/weir-connect && mount --bind "$kept" /var/lib/weir-connect && exec "$@""#;
        command.args(["--mount", "sh", "-c", script]).arg(self.resolv_conf()).arg(self.kept());
        command.arg(binary()?).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `weir` to its end.
    ///
    /// # Errors
    /// If it fails.
    pub fn weir(&self, arguments: &[&str]) -> Result<String> {
        command::run(&mut self.command(arguments)?)
    }

    /// Starts `weir connect`, and waits until it has closed the machine.
    ///
    /// # Errors
    /// If it ends.
    pub fn start(&mut self, arguments: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "it is connected already");
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.command(&[&["connect"], arguments].concat())?;
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        until("weir closes the machine", LIMIT, || {
            self.check_running()?;
            self.namespace.run("nft list table inet weir_connect").map(drop)
        })
    }

    /// Starts `weir connect`, and waits until it is connected.
    ///
    /// # Errors
    /// If it ends, or is not connected in time.
    pub fn connect(&mut self, arguments: &[&str]) -> Result<()> {
        self.start(arguments)?;
        self.wait_connected("")
    }

    /// Waits until it is connected with a node of this name; with any, if that is empty.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_connected(&mut self, node: &str) -> Result<()> {
        let done = until("a connection", LIMIT, || {
            self.check_running()?;
            let status = self.status()?;
            let name = status["node"].as_str().unwrap_or_default();
            ensure!(status["state"] == "connected" && name.contains(node), "{status}");
            Ok(())
        });
        done.with_context(|| format!("weir connect wrote:\n{}", self.log()))
    }

    /// `weir connect --status --json`.
    ///
    /// # Errors
    /// If it fails.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.weir(&["connect", "--status", "--json"])?)?)
    }

    /// Sends the connection a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.child.as_ref().context("it is not connected")?, signal)
    }

    /// Sends the connection a signal that ends it, and waits for the end.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        let mut child = self.child.take().context("it is not connected")?;
        process::signal(&child, signal)?;
        process::wait(&mut child, LIMIT)?;
        Ok(())
    }

    /// `weir disconnect`.
    ///
    /// # Errors
    /// If it fails, or the connection does not end.
    pub fn disconnect(&mut self) -> Result<String> {
        let said = self.weir(&["disconnect"])?;
        if let Some(mut child) = self.child.take() {
            process::wait(&mut child, LIMIT)?;
        }
        Ok(said)
    }

    /// Everything that a connection may change: rules, routes, interfaces, tables, the resolver.
    /// Addresses that the kernel makes up by itself are left out.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn everything(&self) -> Result<String> {
        let mut all = fs::read_to_string(self.resolv_conf())?;
        for line in [
            "ip -4 rule",
            "ip -6 rule",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "ip -o link",
            "nft list ruleset",
        ] {
            let said = self.namespace.run(line)?;
            let kept = said.lines().filter(|line| !line.contains("fe80:"));
            all.extend(kept.map(|line| format!("{line}\n")));
        }
        Ok(all)
    }

    /// Everything that `weir connect` wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// That a ping to an address is answered, sooner or later.
    ///
    /// # Errors
    /// If it is not.
    pub fn reaches(&self, address: IpAddr) -> Result<()> {
        until("an answer through the tunnel", LIMIT, || {
            self.namespace.run(&format!("ping -n -q -c 1 -W 1 {address}")).map(drop)
        })
        .with_context(|| format!("weir connect wrote:\n{}", self.log()))
    }

    fn check_running(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("weir connect ended: {status}\n{}", self.log());
        }
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("connect.log")
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
        self.weir(&["disconnect"]).ok();
    }
}
