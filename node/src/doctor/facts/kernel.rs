//! What the kernel offers, and what it allows this process.

use std::path::Path;

use super::{Known, read};
use weir_dataplane::Reads;
use weir_ebpf_loader::try_load;
use weir_host::{nft, tun::Tun};
use weir_testkit::Namespace;
use weir_wireguard::aead;

/// The kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release, such as `6.1.0-18-amd64`.
    pub release: Known<String>,
    /// The capabilities in effect, one bit each.
    pub capabilities: Known<u64>,
    /// 0 without a seccomp filter, 2 with one.
    pub seccomp: Known<u8>,
    /// How io_uring can be used, or why it cannot.
    pub uring: Result<Reads, String>,
    /// `kernel.io_uring_disabled`, if this kernel has it.
    pub uring_disabled: Option<u8>,
    /// The guard that the kernel accepts, or why it accepts none.
    pub guard: Result<&'static str, Refusal>,
    /// The kernel lockdown mode, if it is on.
    pub lockdown: Option<String>,
    /// Whether a bpffs is mounted, in which the accounts outlive a killed node.
    pub bpffs: bool,
    /// Whether a TUN device can be created, and whether it supports UDP super-packets.
    pub tun: TunFact,
    /// The version of `nft`, or why it cannot be run.
    pub nft: Result<String, String>,
    /// Whether nftables can be read.
    pub nftables: Known<()>,
    /// The path of the cipher, or why the one that was asked for cannot be had.
    pub cipher: Result<&'static str, String>,
}

/// Why the eBPF programs cannot be loaded.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Whether a permission is missing.
    pub refused: bool,
    /// The error in words.
    pub reason: String,
    /// The end of the verifier's log.
    pub log: Vec<String>,
}

/// The result of creating a TUN device in a separate network namespace.
#[derive(Clone, Debug)]
pub enum TunFact {
    /// It could be created.
    Made {
        /// Whether it supports UDP super-packets (USO).
        uso: bool,
    },
    /// It could not be created.
    Refused(String),
    /// It was not tried, because no namespace could be created.
    NotTried {
        /// Whether /dev/net/tun exists.
        device: bool,
        /// Why there is no namespace.
        why: String,
    },
}

impl Kernel {
    pub(super) fn gather() -> Self {
        let status = read("/proc/self/status");
        let field = |name: &str| {
            let status = status.as_ref().map_err(Clone::clone)?;
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|text| text.trim().to_owned()).ok_or(format!("/proc has no {name}"))
        };
        let number = |text: String, radix| {
            u64::from_str_radix(&text, radix).map_err(|_| format!("{text:?} is not a number"))
        };
        Self {
            release: read("/proc/sys/kernel/osrelease"),
            capabilities: field("CapEff:").and_then(|text| number(text, 16)),
            seccomp: field("Seccomp:").and_then(|text| number(text, 10)).map(|mode| mode as u8),
            uring: weir_dataplane::probe().map_err(|error| error.to_string()),
            uring_disabled: super::number("/proc/sys/kernel/io_uring_disabled").ok(),
            guard: try_load().map_err(|error| {
                let (reason, log) = error.explain();
                Refusal { refused: error.is_refused(), reason, log }
            }),
            lockdown: read("/sys/kernel/security/lockdown").ok().and_then(|text| lockdown(&text)),
            bpffs: weir_ebpf_loader::is_mounted(),
            tun: tun(),
            nft: nft::version().map_err(|error| error.to_string()),
            nftables: nft::generation().map(drop).map_err(|error| error.to_string()),
            cipher: aead::Path::from_environment()
                .map(aead::Path::name)
                .map_err(|error| error.to_string()),
        }
    }
}

/// The mode in brackets, unless it is `none`.
fn lockdown(text: &str) -> Option<String> {
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then(|| mode.to_owned())
}

fn tun() -> TunFact {
    let device = Path::new("/dev/net/tun").exists();
    match Namespace::bare() {
        Err(error) => TunFact::NotTried { device, why: format!("{error:#}") },
        // The device disappears with its queue, and then the namespace.
        Ok(namespace) => match namespace.enter(|| Ok(Tun::create("weirdoctor", 1)?.offloads)) {
            Ok(offloads) => TunFact::Made { uso: offloads.uso },
            Err(error) => TunFact::Refused(format!("{error:#}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_the_mode_in_brackets() {
        assert_eq!(lockdown("[none] integrity confidentiality"), None);
        assert_eq!(lockdown("none [integrity] confidentiality").as_deref(), Some("integrity"));
        assert_eq!(lockdown("what"), None);
    }
}
