//! What `compose.yaml` may say. What this does not know is an error, so that nothing in the file
//! stays untried.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The directory of the compose file, to which the paths in it are relative.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/docker");
const SERVICE: &str = "weir";
/// Lines that are for nodes with a configuration.
const CONFIGURED: [&str; 2] = ["# command: ", "# - /etc/weir:"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    services: BTreeMap<String, Service>,
    #[serde(default)]
    volumes: BTreeMap<String, Option<Empty>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: String,
    dockerfile: String,
}

/// A service, with the defaults of Docker for what is not there.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    build: Build,
    network_mode: String,
    /// What the image's program is given, in place of what the image says.
    pub(crate) command: Option<Vec<String>>,
    /// Device files of the machine.
    #[serde(default)]
    pub(crate) devices: Vec<PathBuf>,
    #[serde(default)]
    cap_drop: Vec<String>,
    #[serde(default)]
    cap_add: Vec<String>,
    #[serde(default)]
    security_opt: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    /// Where file systems in memory are mounted.
    #[serde(default)]
    pub(crate) tmpfs: Vec<PathBuf>,
    /// Limits by their name without `RLIMIT_`; -1 is none.
    #[serde(default)]
    pub(crate) ulimits: BTreeMap<String, i64>,
    stop_grace_period: String,
    restart: String,
}

/// What `security_opt` says.
#[derive(Default)]
pub(crate) struct Security {
    /// Whether set-user-id programs are ordinary ones.
    pub(crate) no_new_privileges: bool,
    /// Docker's seccomp profile of the container's own.
    pub(crate) seccomp: Option<Value>,
    /// Whether `/proc` and `/sys` are as the kernel has them.
    pub(crate) systempaths_unconfined: bool,
    /// Whether the AppArmor profile `docker-default` stays away.
    pub(crate) apparmor_unconfined: bool,
}

/// A volume: where it is, where the container sees it, and whether it can only read it.
pub(crate) struct Volume {
    /// Where it is.
    pub(crate) source: Source,
    /// Where the container sees it.
    pub(crate) target: PathBuf,
    /// Whether nothing can be written there.
    pub(crate) read_only: bool,
}

/// Where a volume is.
pub(crate) enum Source {
    /// A directory of the machine.
    Machine(PathBuf),
    /// One of Docker's own, by its name.
    Named(String),
}

/// The service of the compose file, as it is.
pub(crate) fn service() -> Result<Service> {
    parse(&text()?)
}

/// The service once the operator has taken the signs off the lines for a configuration.
pub(crate) fn configured() -> Result<Service> {
    let mut text = text()?;
    for line in CONFIGURED {
        ensure!(text.matches(line).count() == 1, "compose.yaml has not one line {line:?}");
        text = text.replace(line, &line[2..]);
    }
    parse(&text)
}

fn text() -> Result<String> {
    let path = Path::new(DIRECTORY).join("compose.yaml");
    fs::read_to_string(path).context("cannot read compose.yaml")
}

fn parse(text: &str) -> Result<Service> {
    let mut file: File = serde_saphyr::from_str(text).context("compose.yaml")?;
    let service = file.services.remove(SERVICE).context("compose.yaml has no service weir")?;
    ensure!(file.services.is_empty(), "compose.yaml has a service that this does not try");
    let root = Path::new(DIRECTORY).join(&service.build.context).canonicalize()?;
    let built = root.join(&service.build.dockerfile).canonicalize()?;
    let tried = Path::new(DIRECTORY).join("Dockerfile").canonicalize()?;
    ensure!(built == tried, "compose.yaml builds {}", built.display());
    ensure!(service.network_mode == "host", "network_mode is {:?}", service.network_mode);
    ensure!(service.restart == "on-failure", "restart is {:?}", service.restart);
    for volume in service.volumes()? {
        if let Source::Named(name) = volume.source {
            ensure!(file.volumes.contains_key(&name), "compose.yaml declares no volume {name}");
        }
    }
    Ok(service)
}

impl Service {
    /// The capabilities that are left.
    pub(crate) fn capabilities(&self) -> Result<Vec<String>> {
        // The others would have to be taken from those that Docker gives by itself.
        ensure!(self.cap_drop == ["ALL"], "cap_drop is {:?}", self.cap_drop);
        Ok(self.cap_add.iter().map(|name| format!("CAP_{name}")).collect())
    }

    /// The volumes, in order.
    pub(crate) fn volumes(&self) -> Result<Vec<Volume>> {
        let volume = |text: &String| {
            let mut parts = text.split(':');
            let source = parts.next().context("an empty volume")?;
            let target =
                parts.next().with_context(|| format!("a volume without a name: {text}"))?;
            let read_only = match parts.next() {
                None => false,
                Some("ro") => true,
                Some(_) => bail!("options of a volume that are not known here: {text}"),
            };
            let source = match source.starts_with('/') {
                true => Source::Machine(source.into()),
                false => Source::Named(source.to_owned()),
            };
            Ok(Volume { source, target: target.into(), read_only })
        };
        self.volumes.iter().map(volume).collect()
    }

    /// The same service without a line of `security_opt`.
    pub(crate) fn without(&self, option: &str) -> Result<Self> {
        let mut service = self.clone();
        service.security_opt.retain(|line| line != option);
        let gone = service.security_opt.len() + 1 == self.security_opt.len();
        ensure!(gone, "compose.yaml has no security_opt {option:?}");
        Ok(service)
    }

    /// What `security_opt` says.
    pub(crate) fn security(&self) -> Result<Security> {
        let mut security = Security::default();
        for option in &self.security_opt {
            match option.split_once(['=', ':']) {
                Some(("no-new-privileges", "true")) => security.no_new_privileges = true,
                Some(("systempaths", "unconfined")) => security.systempaths_unconfined = true,
                Some(("apparmor", "unconfined")) => security.apparmor_unconfined = true,
                Some(("seccomp", file)) => {
                    let text = fs::read_to_string(Path::new(DIRECTORY).join(file))
                        .with_context(|| format!("cannot read {file}"))?;
                    security.seccomp = Some(serde_json::from_str(&text).context("seccomp")?);
                }
                _ => bail!("security_opt {option:?} is not known here"),
            }
        }
        Ok(security)
    }

    /// For how many seconds Docker waits for the end.
    pub(crate) fn stop_grace_period(&self) -> Result<u64> {
        let seconds = self.stop_grace_period.strip_suffix('s').context("no seconds")?;
        seconds.parse().context("stop_grace_period")
    }
}
