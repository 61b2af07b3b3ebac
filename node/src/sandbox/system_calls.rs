//! The system calls that a running node never makes: seccomp refuses them with EPERM.
//!
//! A list of what is refused, and not of what is allowed: the allowed ones would be those of every
//! version of the C library and of `nft` too, and one that is missing would stop a node.

use std::{collections::BTreeMap, env::consts::ARCH};

use anyhow::Context as _;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// By what they would do to the machine.
const REFUSED: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_syslog,
    // File systems, and ways around Landlock.
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_fanotify_init,
    // Namespaces, users, keys.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    // The machine's name and time.
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

/// Refuses them to this thread and what it starts.
pub(super) fn restrict(mounted_bpffs: bool) -> anyhow::Result<String> {
    apply_filter(&program(mounted_bpffs)?).context("the kernel takes no filter")?;
    Ok("seccomp".into())
}

fn program(mounted_bpffs: bool) -> anyhow::Result<BpfProgram> {
    let mut refused: BTreeMap<_, _> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    if !mounted_bpffs {
        refused.insert(libc::SYS_umount2, Vec::new());
    }
    let target = TargetArch::try_from(ARCH)
        .with_context(|| format!("there is no filter for processors of the kind {ARCH}"))?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refuse, target)?;
    Ok(filter.try_into()?)
}
