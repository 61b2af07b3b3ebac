//! What the kernel offers and allows.

use weir_common::guard::name;

use crate::doctor::{
    Finding, Verdict,
    facts::{Facts, kernel::TunFact},
};
use weir_config::{GuardMode, IoMode};
use weir_dataplane::Reads;
use weir_wireguard::aead::ENVIRONMENT;

const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    vec![
        release(facts),
        capabilities(facts),
        seccomp(facts),
        io_uring(facts),
        ebpf(facts),
        bpffs(facts),
        tun(facts),
        nft(facts),
        cipher(facts),
    ]
}

fn has(facts: &Facts, bit: u32) -> bool {
    facts.kernel.capabilities.as_ref().is_ok_and(|all| all >> bit & 1 == 1)
}

fn may_load(facts: &Facts) -> bool {
    has(facts, SYS_ADMIN) || [NET_ADMIN, PERFMON, BPF].iter().all(|bit| has(facts, *bit))
}

fn release(facts: &Facts) -> Finding {
    let text = match &facts.kernel.release {
        Ok(text) => text.as_str(),
        Err(error) => return Finding::unknown("kernel", error.as_str()),
    };
    let mut numbers = text.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Finding::unknown("kernel", format!("{text}: not a version that weir understands"));
    };
    let lacks = match (major, minor) {
        version if version < (5, 9) => {
            return Finding::bad(
                "kernel",
                format!("Linux {text} is too old: it cannot pin XDP links"),
                "use Linux 5.10 or later; 6.7 has all that weir uses",
            );
        }
        version if version < (5, 18) => "io_uring, large frames in XDP, and UDP in super-packets",
        version if version < (6, 1) => "io_uring, and UDP through the TUN device in super-packets",
        version if version < (6, 2) => "UDP through the TUN device in super-packets",
        version if version < (6, 7) => "io_uring's multishot reads",
        // tailscale/tailscale#19777, #21335: fixed in 7.1.5.
        (7, 0) | (7, 1) if (major, minor, numbers.next().unwrap_or(0)) < (7, 1, 5) => {
            return cuts_wrongly(facts, text);
        }
        _ => return Finding::good("kernel", format!("Linux {text}")),
    };
    Finding::warning(
        "kernel",
        format!("Linux {text} lacks {lacks}: a node uses more CPU"),
        "use Linux 6.7 or later (on Debian 12, the kernel from bookworm-backports)",
    )
}

/// With some network cards, Linux 7.0 to 7.1.4 writes wrong headers and checksums when it segments
/// a UDP GSO batch whose last datagram is as long as the others. Distributions may have backported
/// the fix.
fn cuts_wrongly(facts: &Facts, release: &str) -> Finding {
    if !facts.config.node.udp_segmentation {
        let found =
            format!("Linux {release}; its UDP segmentation, which may be wrong, is not used");
        return Finding::good("kernel", found);
    }
    Finding::warning(
        "kernel",
        format!(
            "Linux {release} may send UDP with wrong checksums, which consumers see as losses \
             (Linux 7.0 to 7.1.4, with some network cards)"
        ),
        "use Linux 7.1.5 or later, or set node.udp_segmentation = false",
    )
}

fn capabilities(facts: &Facts) -> Finding {
    if let Err(error) = &facts.kernel.capabilities {
        return Finding::unknown("capabilities", error.as_str());
    }
    if has(facts, NET_ADMIN) && may_load(facts) {
        if !has(facts, NET_RAW) {
            return Finding::warning(
                "capabilities",
                "CAP_NET_RAW missing: a node started like this cannot receive over AF_XDP, and \
                 uses more CPU",
                "start it as root, with systemd, or with --cap-add NET_RAW",
            );
        }
        return Finding::good("capabilities", "all needed capabilities are present");
    }
    let wanted = [(NET_ADMIN, "CAP_NET_ADMIN"), (BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")];
    let missing: Vec<_> =
        wanted.iter().filter(|(bit, _)| !has(facts, *bit)).map(|(_, name)| *name).collect();
    match missing.as_slice() {
        missing if has(facts, NET_ADMIN) => Finding::warning(
            "capabilities",
            format!(
                "{} missing: a node started like this has no guard in the kernel",
                missing.join(" and ")
            ),
            "start it as root, with systemd, or with --cap-add BPF --cap-add PERFMON",
        ),
        missing => Finding::new(
            "capabilities",
            Verdict::Unknown,
            format!(
                "{} missing here: a node cannot start like this, and some checks below are \
                 incomplete. As root, run: sudo weir doctor",
                missing.join(" and ")
            ),
        ),
    }
}

fn seccomp(facts: &Facts) -> Finding {
    match facts.kernel.seccomp {
        Ok(0) => Finding::good("seccomp", "no filter is active"),
        Ok(_) => Finding::good("seccomp", "a filter is active; what it blocks shows below"),
        Err(ref error) => Finding::unknown("seccomp", error.as_str()),
    }
}

fn cipher(facts: &Facts) -> Finding {
    match &facts.kernel.cipher {
        Ok(path) => Finding::good("cipher", format!("ChaCha20-Poly1305 by the path {path}")),
        Err(error) => Finding::bad(
            "cipher",
            error.as_str(),
            format!("unset {ENVIRONMENT}, or set it to a path that there is"),
        ),
    }
}

fn io_uring(facts: &Facts) -> Finding {
    let kernel = &facts.kernel;
    let error = match &kernel.uring {
        Ok(Reads::Multishot) => return Finding::good("io_uring", "can be used"),
        Ok(Reads::Single) => {
            return Finding::good(
                "io_uring",
                "can be used, with one read per packet (Linux 6.7 has multishot reads)",
            );
        }
        Err(error) => error,
    };
    let fix = match (kernel.uring_disabled, &kernel.seccomp) {
        (Some(1 | 2), _) => "sysctl -w kernel.io_uring_disabled=0",
        (_, Ok(2)) => {
            "use a seccomp profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register (packaging/docker/seccomp.json)"
        }
        _ => "use Linux 6.1 or later",
    };
    let found = format!("cannot be used ({error})");
    match facts.config.node.io {
        IoMode::Uring | IoMode::UringSingle => {
            Finding::bad("io_uring", format!("{found}, but node.io requires it"), fix)
        }
        IoMode::Syscall => {
            Finding::good("io_uring", format!("{found}, and node.io does not use it"))
        }
        IoMode::Auto => {
            Finding::warning("io_uring", format!("{found}: plain system calls use more CPU"), fix)
        }
    }
}

fn ebpf(facts: &Facts) -> Finding {
    let kernel = &facts.kernel;
    let refusal = match &kernel.guard {
        Ok(name::GUARD) => return Finding::good("eBPF", "the kernel accepts all programs"),
        Ok(_) => {
            return Finding::good(
                "eBPF",
                "the kernel accepts the guard for single-buffer frames only (Linux 5.18 accepts \
                 multi-buffer frames)",
            );
        }
        Err(refusal) => refusal,
    };
    if !may_load(facts) {
        return Finding::unknown("eBPF", "unknown without root");
    }
    let fix = match &kernel.lockdown {
        Some(mode) if refusal.refused => format!(
            "kernel lockdown ({mode}) may be in the way: boot without it, or set node.xdp = \"off\""
        ),
        _ if refusal.refused => "allow bpf() in the container's seccomp profile or the LSM".into(),
        _ if refusal.reason.contains("memory") => "raise the limit: ulimit -l unlimited".into(),
        _ => "use a newer kernel; if it is 5.10 or later, report the lines below".into(),
    };
    let finding = if facts.config.node.xdp == GuardMode::Required {
        Finding::bad("eBPF", refusal.reason.as_str(), fix)
    } else {
        let found = format!("{}: no guard and no steering", refusal.reason);
        Finding::warning("eBPF", found, fix)
    };
    finding.with(refusal.log.clone())
}

fn bpffs(facts: &Facts) -> Finding {
    if facts.kernel.bpffs {
        return Finding::good("bpffs", "mounted at /sys/fs/bpf");
    }
    Finding::warning(
        "bpffs",
        "not mounted at /sys/fs/bpf: weir mounts its own, and must keep CAP_SYS_ADMIN for that",
        "mount -t bpf bpf /sys/fs/bpf (systemd does it automatically)",
    )
}

fn tun(facts: &Facts) -> Finding {
    match &facts.kernel.tun {
        TunFact::Made { uso: true } => {
            Finding::good("TUN", "can be created, with TCP and UDP super-packets")
        }
        TunFact::Made { uso: false } => Finding::warning(
            "TUN",
            "can be created, but without UDP super-packets: UDP uses more CPU",
            "use Linux 6.2 or later",
        ),
        TunFact::Refused(why) => {
            Finding::bad("TUN", format!("cannot be created: {why}"), "modprobe tun")
        }
        TunFact::NotTried { device: false, .. } => Finding::bad(
            "TUN",
            "no /dev/net/tun",
            "modprobe tun; in a container: --device /dev/net/tun",
        ),
        TunFact::NotTried { why, .. } => {
            Finding::unknown("TUN", format!("/dev/net/tun exists, but was not tested: {why}"))
        }
    }
}

fn nft(facts: &Facts) -> Finding {
    let version = match &facts.kernel.nft {
        Ok(version) => version,
        Err(error) => return Finding::bad("nft", error.as_str(), "apt-get install nftables"),
    };
    match &facts.kernel.nftables {
        Ok(_) => Finding::good("nft", version.as_str()),
        Err(_) if !has(facts, NET_ADMIN) => {
            Finding::unknown("nft", format!("{version}; root is needed to test it"))
        }
        Err(error) => Finding::bad(
            "nft",
            error.as_str(),
            "use a kernel with nf_tables: a node does not run without its exit policy",
        ),
    }
}
