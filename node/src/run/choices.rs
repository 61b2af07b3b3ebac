//! What a run chooses where the configuration leaves a choice.

use anyhow::{Context as _, anyhow, bail};
use rustix::thread::sched_getaffinity;
use tracing::warn;

use weir_config::{Auto, Config, IoMode};
use weir_dataplane::{Io, Reads};

/// How the workers move packets: by io_uring, where the kernel has it.
pub(super) fn io(mode: &IoMode) -> anyhow::Result<Io> {
    match (mode, weir_dataplane::probe()) {
        (IoMode::Syscall, _) => Ok(Io::Syscall),
        (IoMode::UringSingle, Ok(_)) => Ok(Io::Uring(Reads::Single)),
        (IoMode::Auto | IoMode::Uring, Ok(reads)) => Ok(Io::Uring(reads)),
        (IoMode::Uring | IoMode::UringSingle, Err(error)) => bail!(
            "io_uring cannot be used here ({error}). Fix: allow it (sysctl \
             kernel.io_uring_disabled=0; in a container, a seccomp profile with io_uring), or set \
             node.io to \"auto\"."
        ),
        (IoMode::Auto, Err(error)) => {
            warn!(%error, "io_uring cannot be used here: plain system calls use more CPU");
            Ok(Io::Syscall)
        }
    }
}

/// Tells the operator what of the workers' I/O is slower than it could be.
pub(super) fn io_notes(config: &Config, io: Io) -> Vec<String> {
    let single =
        "io_uring reads the TUN device one packet at a time (Linux 6.7 has multishot reads)";
    let apart = "datagrams are sent one by one (node.udp_segmentation is false)";
    let notes = [
        (io == Io::Uring(Reads::Single)).then_some(single),
        (!config.node.udp_segmentation).then_some(apart),
    ];
    notes.into_iter().flatten().map(str::to_owned).collect()
}

/// The cores of the workers: the configured ones, or the first of those that we may use. And the cores
/// that help them with the cipher.
pub(super) fn cores(config: &Config) -> anyhow::Result<(Vec<usize>, Vec<usize>)> {
    let allowed = sched_getaffinity(None).context("cannot read the CPU cores of this process")?;
    let allowed: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let [wanted, helpers] =
        [("cores", &config.node.cores), ("cipher_cores", &config.node.cipher_cores)].map(
            |(key, cores)| {
                let cores: Vec<usize> = cores.iter().map(|core| usize::from(*core)).collect();
                match cores.iter().find(|core| !allowed.contains(core)) {
                    Some(core) => Err(anyhow!(
                        "node.{key}: this process may not use core {core}. It may use {allowed:?}."
                    )),
                    None => Ok(cores),
                }
            },
        );
    let (wanted, helpers) = (wanted?, helpers?);
    let cores = if wanted.is_empty() {
        allowed.into_iter().filter(|core| !helpers.contains(core)).collect()
    } else {
        wanted
    };
    if cores.is_empty() {
        bail!("node.cipher_cores names all cores. Fix: leave one for a worker");
    }
    let count = match &config.node.workers {
        Auto::Auto => cores.len(),
        Auto::Set(count) => usize::from(*count),
    };
    // More workers than cores share them.
    Ok((cores.iter().copied().cycle().take(count).collect(), helpers))
}
