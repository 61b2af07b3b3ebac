//! A container, by runc, as Docker would start it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;
use weir_tests::{Namespace, command, process, until};

use crate::{
    compose::Service,
    spec::{ETC, spec},
};

const READY: Duration = Duration::from_secs(30);

/// What containers are made of.
pub(crate) struct Image<'a> {
    /// The image's files.
    pub(crate) root: PathBuf,
    /// What its Dockerfile says: command, health check, stop signal.
    pub(crate) config: Value,
    /// The network of the machine.
    pub(crate) network: &'a Namespace,
    /// Where containers and named volumes are kept.
    pub(crate) work: PathBuf,
}

/// A container that runs or has ended. Nothing is left of it when this is dropped.
pub(crate) struct Container<'a> {
    image: &'a Image<'a>,
    service: Service,
    name: String,
    bundle: PathBuf,
    runc: Child,
}

impl<'a> Container<'a> {
    /// Makes a container and starts what is in it.
    pub(crate) fn start(image: &'a Image<'a>, service: &Service, name: &str) -> Result<Self> {
        Self::start_with(image, service, name, |_| ())
    }

    /// As [`Self::start`], with what runc is told changed.
    pub(crate) fn start_with(
        image: &'a Image<'a>,
        service: &Service,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let bundle = image.work.join(name);
        let part = |part: &str| bundle.join(part);
        for directory in ["root", "upper", "work", "etc"] {
            fs::create_dir_all(part(directory)).context("cannot make a container's directory")?;
        }
        // Docker copies the machine's.
        for name in ETC {
            fs::copy(Path::new("/etc").join(name), part("etc").join(name))
                .with_context(|| format!("cannot copy /etc/{name}"))?;
        }
        let network = Path::new("/run/netns").join(image.network.name());
        let id = format!("weir-image-test-{}-{name}", std::process::id());
        let mut spec = spec(
            service,
            &image.config,
            &part("root"),
            &network,
            &format!("/{id}"),
            &part("etc"),
            &image.work.join("volumes"),
        )?;
        change(&mut spec);
        fs::write(part("config.json"), serde_json::to_string_pretty(&spec)?)?;
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.root.display(),
            part("upper").display(),
            part("work").display()
        );
        let layers = std::ffi::CString::new(layers)?;
        mount("overlay", part("root"), "overlay", MountFlags::empty(), layers.as_c_str())
            .context("cannot mount the container's files")?;
        let log = File::create(part("log"))?;
        let mut command = runc(image);
        command.arg("run").arg("--bundle").arg(&bundle).arg(&id);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let runc = command.spawn().context("cannot start runc")?;
        Ok(Self { image, service: service.clone(), name: id, bundle, runc })
    }

    /// Waits until the image's own health check passes, and gives what it says.
    pub(crate) fn wait_healthy(&mut self) -> Result<String> {
        let check = self.image.config["Healthcheck"]["Test"].as_array().context("no check")?;
        let words: Vec<_> = check.iter().filter_map(Value::as_str).collect();
        let (kind, words) = words.split_first().context("the health check is empty")?;
        ensure!(*kind == "CMD", "a health check of kind {kind}");
        until("the health check passes", READY, || {
            let ended = self.runc.try_wait()?;
            Ok(match ended {
                Some(status) => Err(anyhow::anyhow!("the container ended: {status}")),
                None => Ok(self.exec(words)?),
            })
        })?
        .with_context(|| self.log())
    }

    /// Runs a command in there, as `docker exec` does.
    pub(crate) fn exec(&self, words: &[&str]) -> Result<String> {
        command::run(runc(self.image).arg("exec").arg(&self.name).args(words))
    }

    /// The number of its first process, outside.
    pub(crate) fn pid(&self) -> Result<u32> {
        let state = command::run(runc(self.image).arg("state").arg(&self.name))?;
        let state: Value = serde_json::from_str(&state)?;
        Ok(u32::try_from(state["pid"].as_u64().context("no pid")?)?)
    }

    /// Ends it as `docker stop` does: with the image's signal, and within the time of the compose
    /// file.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        let signal = self.image.config["StopSignal"].as_str().context("no stop signal")?;
        let limit = Duration::from_secs(self.service.stop_grace_period()?);
        self.end(signal, limit)
    }

    /// Kills it, so that it can clean nothing up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.end("KILL", READY).map(|_| ())
    }

    /// What the compose file says of it.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// Sends a signal to its first process, as `docker kill` does.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        command::run(runc(self.image).arg("kill").arg(&self.name).arg(signal)).map(|_| ())
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_for_end(&mut self) -> Result<ExitStatus> {
        process::wait(&mut self.runc, READY).with_context(|| self.log())
    }

    /// Everything that it has written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.bundle.join("log")).unwrap_or_default()
    }

    fn end(&mut self, signal: &str, limit: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        process::wait(&mut self.runc, limit).with_context(|| self.log())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        command::run(runc(self.image).args(["delete", "--force"]).arg(&self.name)).ok();
        process::wait(&mut self.runc, READY).ok();
        unmount(self.bundle.join("root"), UnmountFlags::DETACH).ok();
        fs::remove_dir_all(&self.bundle).ok();
    }
}

fn runc(image: &Image<'_>) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(image.work.join("runc"));
    command
}
