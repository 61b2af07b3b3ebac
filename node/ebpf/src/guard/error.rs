//! Why the guard cannot be had, in words that say what to do.

use std::{error::Error, fs, io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, XdpError, links::LinkError},
};
use weir_common::Account;

use super::XdpMode;

/// Why the guard cannot be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The kernel lets us load no eBPF at all.
    #[error("the kernel refuses to load eBPF: {advice}")]
    Refused {
        /// What is missing.
        advice: String,
        /// The kernel's answer.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A program did not pass the verifier, or could not be used.
    #[error("cannot use the eBPF program {program}: {source}")]
    Program {
        /// Its name in the object.
        program: &'static str,
        /// The kernel's answer.
        source: Box<ProgramError>,
    },
    /// The object as a whole was refused.
    #[error("cannot load the eBPF object: {0}")]
    Load(#[source] Box<EbpfError>),
    /// The embedded object has no program or map of this name and kind.
    #[error("the embedded eBPF object lacks {0}: rebuild it with `cargo xtask build-ebpf`")]
    Object(&'static str),
    /// A map could not be read or written.
    #[error("cannot use an eBPF map: {0}")]
    Map(#[source] MapError),
    /// The programs' log could not be opened.
    #[error("cannot read the eBPF programs' log: {0}")]
    Log(#[source] aya_log::Error),
    /// The accounts could not be mapped.
    #[error("cannot map the accounts into memory: {0}")]
    Accounts(#[source] io::Error),
    /// The accounts that a killed node left are of another version's layout.
    #[error(
        "{} holds a map of {found}-byte records, but this version's accounts have {} bytes: stop \
         the other version cleanly first, or remove the file and with it the counts since the \
         last ledger entry",
        path.display(), size_of::<Account>()
    )]
    Layout {
        /// The pinned map.
        path: PathBuf,
        /// The size of its records, in bytes.
        found: u32,
    },
    /// A pin could not be made or removed.
    #[error("cannot create or remove the pin {}: {source} (is it in a bpffs?)", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Not one socket for each worker, and one for the handshakes.
    #[error("{given} UDP sockets were given to steer to, but there must be {wanted}")]
    Sockets {
        /// How many there were.
        given: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// XDP could not be attached, and the policy wants it.
    #[error("cannot attach XDP to interface {ifindex} in {mode} mode: {advice}")]
    Attach {
        /// The interface.
        ifindex: u32,
        /// The mode tried.
        mode: &'static str,
        /// What stands in the way, and what helps.
        advice: String,
    },
}

impl GuardError {
    pub(super) fn load(error: EbpfError) -> Self {
        match errno(&error) {
            Some(libc::EPERM | libc::EACCES) => {
                Self::Refused { advice: missing_capabilities(), source: Box::new(error) }
            }
            _ => Self::Load(Box::new(error)),
        }
    }

    pub(super) fn program(program: &'static str, error: ProgramError) -> Self {
        if is_refusal(&error) {
            return Self::Refused { advice: missing_capabilities(), source: Box::new(error) };
        }
        Self::Program { program, source: Box::new(error) }
    }

    pub(super) fn pin(path: PathBuf, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Pin { path, source: source.into() }
    }

    pub(super) fn attach(ifindex: u32, mode: &XdpMode, error: &ProgramError) -> Self {
        let advice = attach_advice(errno(error), &chain(error));
        Self::Attach { ifindex, mode: mode.as_str(), advice }
    }

    pub(super) fn link(path: PathBuf, error: LinkError) -> Self {
        Self::Pin { path, source: Box::new(error) }
    }
}

/// Whether the kernel lacks a permission of ours, rather than a feature. The verifier says EACCES
/// too, but then it has something to say.
pub(super) fn is_refusal(error: &ProgramError) -> bool {
    errno(error) == Some(libc::EPERM)
}

/// The errno at the bottom of an error.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        if let Some(XdpError::NetlinkError(netlink)) = error.downcast_ref() {
            return netlink.raw_os_error();
        }
        current = error.source();
    }
    None
}

/// An error and its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(cause) = current {
        text = format!("{text}: {cause}");
        current = cause.source();
    }
    text
}

fn attach_advice(errno: Option<i32>, detail: &str) -> String {
    let advice = match errno {
        Some(libc::EPERM | libc::EACCES) => return missing_capabilities(),
        Some(libc::ENODEV) => "the interface is gone",
        Some(libc::EOPNOTSUPP) => {
            "its driver does not support XDP; use `xdp = \"generic\"` or \"auto\" to go on \
             without the driver"
        }
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached; `ip link show` names it, and `ip link set dev … xdp \
             off` removes it"
        }
        Some(libc::ERANGE | libc::EINVAL | libc::E2BIG) => {
            "its driver refuses XDP with the present settings: usually the MTU is too large, LRO \
             is on, or there are too few queues"
        }
        Some(libc::ENOMEM) => "there is not enough memory for the driver's queues",
        _ => "the kernel refuses",
    };
    format!("{advice} ({detail})")
}

/// Which of the capabilities that eBPF takes the process does not have.
fn missing_capabilities() -> String {
    const SYS_ADMIN: u32 = 21;
    const WANTED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (39, "CAP_BPF"), (38, "CAP_PERFMON")];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or_default();
    let has = |bit: u32| effective >> bit & 1 == 1;
    let missing: Vec<_> =
        WANTED.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name).collect();
    if missing.is_empty() || has(SYS_ADMIN) {
        "the process has the capabilities for it, so a container's seccomp filter, an LSM or \
         kernel lockdown stands in the way"
            .to_owned()
    } else {
        format!(
            "the process lacks {}; run it as root, or grant it (systemd: AmbientCapabilities=, \
             containers: --cap-add)",
            missing.join(" and ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_cause_behind_the_number() {
        let cases = [
            (libc::EOPNOTSUPP, "driver does not support XDP"),
            (libc::EBUSY, "another XDP program"),
            (libc::ERANGE, "MTU"),
            (libc::ENODEV, "gone"),
        ];
        for (errno, text) in cases {
            let advice = attach_advice(Some(errno), "detail");
            assert!(advice.contains(text) && advice.contains("detail"), "{advice}");
        }
    }

    #[test]
    fn the_errno_is_found_below_other_errors() {
        let io_error = io::Error::from_raw_os_error(libc::EBUSY);
        let error = ProgramError::SyscallError(aya::sys::SyscallError { call: "x", io_error });
        assert_eq!(errno(&error), Some(libc::EBUSY));
    }
}
