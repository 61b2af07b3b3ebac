//! The configuration that Docker makes for runc of a compose file and an image.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};
use serde_json::{Value, json};

use crate::compose::{Security, Service, Source};

/// Where Docker leaves what the kernel shows, unless the system's paths are unconfined.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// What it hides.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Of what the AppArmor profile `docker-default` denies to write, what a node must. Where the
/// kernel has no AppArmor, a read-only mount stands for it.
const APPARMOR: &[&str] = &["/proc/sys", "/sys/fs/bpf"];
/// The files that Docker makes for each container.
pub(crate) const ETC: &[&str] = &["resolv.conf", "hosts", "hostname"];

/// The configuration of a container.
///
/// `etc` has the files that Docker makes for it, `volumes` is where named volumes are.
pub(crate) fn spec(
    service: &Service,
    image: &Value,
    root: &Path,
    network: &Path,
    cgroup: &str,
    etc: &Path,
    volumes: &Path,
) -> Result<Value> {
    let security = service.security()?;
    let mut kept = service.capabilities()?;
    if !may_raise_limits()? {
        // What a node asks for instead of the limit, before it gives this up.
        kept.push("CAP_IPC_LOCK".to_owned());
    }
    let (devices, rules) = devices(service)?;
    let (read_only, masked) = paths(&security);
    let limits = limits(service)?.into_iter().map(|(name, limit)| {
        let name = format!("RLIMIT_{}", name.to_uppercase());
        json!({ "type": name, "soft": limit, "hard": limit })
    });
    let limits: Vec<_> = limits.collect();
    ensure!(image["User"].as_str().unwrap_or_default().is_empty(), "the image has a user");
    let mut arguments = image["Entrypoint"].as_array().cloned().unwrap_or_default();
    match &service.command {
        Some(command) => arguments.extend(command.iter().map(|word| json!(word))),
        None => arguments.extend(image["Cmd"].as_array().cloned().unwrap_or_default()),
    }
    let seccomp = security.seccomp.as_ref().context("no seccomp profile")?;
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": arguments,
            "env": image["Env"],
            "cwd": "/",
            "capabilities": {
                "bounding": kept, "effective": kept, "permitted": kept,
            },
            "rlimits": limits,
            "noNewPrivileges": security.no_new_privileges,
        },
        "root": { "path": root, "readonly": false },
        "mounts": mounts(service, etc, volumes)?,
        "linux": {
            "namespaces": [
                { "type": "mount" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" },
                { "type": "network", "path": network },
            ],
            "cgroupsPath": cgroup,
            "devices": devices,
            "resources": { "devices": rules },
            "readonlyPaths": read_only,
            "maskedPaths": masked,
            "seccomp": translated(seccomp)?,
        },
    }))
}

fn paths(security: &Security) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut read_only, mut masked) = (Vec::new(), Vec::new());
    if !security.systempaths_unconfined {
        read_only.extend(READ_ONLY);
        masked.extend(MASKED);
    }
    if !security.apparmor_unconfined {
        read_only.extend(APPARMOR);
    }
    (read_only, masked)
}

/// The limits by name. Where this machine's root may not raise its own, they end there.
pub(crate) fn limits(service: &Service) -> Result<Vec<(&str, u64)>> {
    let attainable = |(name, limit): (&'static str, Resource)| -> Result<_> {
        let wanted = service.ulimits.get(name).with_context(|| format!("no ulimit {name}"))?;
        // As Docker does: -1 is the largest number.
        let wanted = wanted.cast_unsigned();
        let own = getrlimit(limit).maximum.unwrap_or(u64::MAX);
        Ok((name, if may_raise_limits()? { wanted } else { wanted.min(own) }))
    };
    let known = [("core", Resource::Core), ("memlock", Resource::Memlock)];
    for name in service.ulimits.keys() {
        ensure!(known.iter().any(|(known, _)| known == name), "ulimit {name} is not known here");
    }
    known.into_iter().map(attainable).collect()
}

/// Not in a container of this machine's own, which lacks CAP_SYS_RESOURCE.
fn may_raise_limits() -> Result<bool> {
    Ok(capabilities(None)?.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// The device files, and what the control group lets be opened.
fn devices(service: &Service) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    let character = |major: u32, minor: u32| json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    // null, zero, full, random, urandom, tty, console.
    let usual = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1)];
    rules.extend(usual.map(|(major, minor)| character(major, minor)));
    let mut devices = Vec::new();
    for path in &service.devices {
        let device = fs::metadata(path).with_context(|| format!("no {}", path.display()))?.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        rules.push(character(major, minor));
        devices.push(json!({
            "type": "c", "path": path, "major": major, "minor": minor,
            "fileMode": 0o666, "uid": 0, "gid": 0,
        }));
    }
    Ok((devices, rules))
}

/// What is mounted, the shorter paths first, so that none hides another.
fn mounts(service: &Service, etc: &Path, volumes: &Path) -> Result<Vec<Value>> {
    let mount = |target: &str, kind: &str, source: &str, options: &str| {
        let options: Vec<_> = options.split(',').collect();
        json!({ "destination": target, "type": kind, "source": source, "options": options })
    };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
    ];
    let own = mounts.len();
    for volume in service.volumes()? {
        let source = match volume.source {
            Source::Machine(path) => path,
            Source::Named(name) => volumes.join(name),
        };
        // Docker makes what is not there.
        fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
        let options = if volume.read_only { "rbind,rprivate,ro" } else { "rbind,rprivate" };
        mounts.push(mount(text(&volume.target)?, "bind", text(&source)?, options));
    }
    for target in &service.tmpfs {
        mounts.push(mount(text(target)?, "tmpfs", "tmpfs", "noexec,nosuid,nodev,rprivate"));
    }
    for name in ETC {
        let source = etc.join(name);
        mounts.push(mount(&format!("/etc/{name}"), "bind", text(&source)?, "rbind,rprivate"));
    }
    let depth =
        |mount: &Value| Path::new(mount["destination"].as_str()?).components().count().into();
    mounts[own..].sort_by_key(|mount| -> Option<usize> { depth(mount) });
    Ok(mounts)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}

/// Docker's form of a seccomp profile as runc has it.
fn translated(profile: &Value) -> Result<Value> {
    let here = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase());
    let architectures = profile["archMap"].as_array().context("no archMap")?;
    let own = architectures.iter().find(|entry| entry["architecture"] == here.as_str());
    let own = own.with_context(|| format!("the seccomp profile has no {here}"))?;
    let mut names = vec![own["architecture"].clone()];
    names.extend(own["subArchitectures"].as_array().cloned().unwrap_or_default());
    let mut rules = profile["syscalls"].as_array().cloned().context("no syscalls")?;
    for rule in &mut rules {
        let fields = rule.as_object_mut().context("no rule")?;
        fields.remove("comment");
        for name in fields.keys() {
            let known = ["names", "action", "errnoRet", "args"].contains(&name.as_str());
            ensure!(known, "a seccomp rule has {name}, which is not known here");
        }
    }
    Ok(json!({
        "defaultAction": profile["defaultAction"],
        "architectures": names,
        "syscalls": rules,
    }))
}
