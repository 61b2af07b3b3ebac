//! No core dumps: what is never written down must not be written by a crash either.
//!
//! The memory of a node has its private key, consumers' addresses and the plaintext of their
//! packets; that of `weir session add` has a consumer's private key.

use anyhow::Context as _;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps the kernel from ever dumping this process, and programs that it starts from leaving a
/// file. To be called before the first secret is read.
///
/// The limit alone would not do: it does not count where `kernel.core_pattern` is a pipe
/// (`core(5)`). A process that is not dumpable can also be traced by nobody without
/// `CAP_SYS_PTRACE`, and its files in `/proc` belong to root.
///
/// # Errors
///
/// When the kernel refuses, which takes a seccomp filter around the process.
pub fn forbid() -> anyhow::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .context(
            "cannot disable core dumps, which would contain secrets. Fix: let the seccomp \
             filter around weir pass setrlimit (prlimit64) and prctl(PR_SET_DUMPABLE)",
        )
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn the_process_leaves_no_core_by_either_way() {
        forbid().expect("the kernel lets a process give this up");
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
