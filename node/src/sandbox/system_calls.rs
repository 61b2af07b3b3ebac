//! The system calls that a running node never makes: seccomp refuses them with EPERM.
//!
//! A list of what is refused, and not of what is allowed: the allowed ones would be those of every
//! version of the C library and of `nft` too, and one that is missing would stop a node.

use std::{collections::BTreeMap, env::consts::ARCH};

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

/// By what they would do to the machine, in every form that Linux 6.18 has of it.
pub(super) const REFUSED: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
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
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
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
    libc::SYS_setgroups,
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
    // The machine's ports.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// Linux 6.15; the same number on every architecture (`scripts/syscall.tbl`).
const OPEN_TREE_ATTR: libc::c_long = 467;

/// With one of these flags `clone` does what `unshare` does. `CLONE_NEWTIME` is none of them: its
/// bit is one of the signal's here.
pub(super) const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// In the number of each system call of the x32 ABI, which has the architecture of x86-64
/// (`arch/x86/include/uapi/asm/unistd.h`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Refuses them to this thread and what it starts.
pub(super) fn restrict(mounted_bpffs: bool) -> anyhow::Result<String> {
    let refused = program(mounted_bpffs)?;
    apply_filter(&numbers()).context("the kernel does not accept the filter")?;
    apply_filter(&refused).context("the kernel does not accept the filter")?;
    Ok("seccomp".into())
}

/// What is decided by the number alone, with errors of its own. The flags of `clone3` are behind a
/// pointer, where no filter can look: it is not there, and the C library takes `clone` instead.
fn numbers() -> BpfProgram {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // To the next statement if it is so, else past it.
    let unless = |code: u32, k: u32| sock_filter { jf: 1, ..statement(code, k) };
    let fail = |error: libc::c_int| {
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | error.cast_unsigned())
    };
    vec![
        // `nr` is the first field of `struct seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        unless(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32_BIT),
        fail(libc::EPERM),
        unless(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_clone3 as u32),
        fail(libc::ENOSYS),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}

/// One rule for each flag, of which any refuses.
fn clone_rules() -> anyhow::Result<Vec<SeccompRule>> {
    let rule = |flag: &libc::c_int| {
        let flag = u64::from(flag.cast_unsigned());
        let is_set = SeccompCmpOp::MaskedEq(flag);
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, is_set, flag)?])
    };
    Ok(NAMESPACES.iter().map(rule).collect::<Result<_, _>>()?)
}

fn program(mounted_bpffs: bool) -> anyhow::Result<BpfProgram> {
    let mut refused: BTreeMap<_, _> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    if !mounted_bpffs {
        refused.insert(libc::SYS_umount2, Vec::new());
    }
    refused.insert(libc::SYS_clone, clone_rules()?);
    let target = TargetArch::try_from(ARCH)
        .with_context(|| format!("no filter for the processor architecture {ARCH}"))?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refuse, target)?;
    Ok(filter.try_into()?)
}
