//! The sandbox around a thread of its own: it ends with that thread.

use std::{fs, io, process::Command, thread};

use rustix::{
    mount::{MountFlags, mount},
    process::geteuid,
    thread::{UnshareFlags, capabilities},
};

use super::*;

fn config(directory: &Path) -> Config {
    let mut config = Config::default();
    config.node.state_dir = directory.join("state");
    config.node.runtime_dir = directory.join("run");
    config.node.private_key_file = directory.join("state/private.key");
    config.api.socket = directory.join("run/weir.sock");
    config.api.token_file = directory.join("state/api.token");
    config.ledger.webhook_secret_file = directory.join("state/webhook.secret");
    config
}

/// Runs `work` on a thread within the sandbox.
fn within<T: Send>(config: &Config, mounted: bool, work: impl FnOnce(&Sandbox) -> T + Send) -> T {
    let inside = || work(&enter(config, None, Vec::new(), mounted).expect("the sandbox"));
    thread::scope(|scope| scope.spawn(inside).join()).expect("the thread ends")
}

#[test]
fn secrets_mounts_and_namespaces_are_out_of_reach_and_the_nodes_own_files_are_not() {
    assert!(geteuid().is_root(), "this takes root: run the tests as root");
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["state", "run"] {
        fs::create_dir(directory.path().join(name)).expect("made");
    }
    let secret = directory.path().join("secret");
    fs::write(&secret, "of others").expect("written");
    let mut config = config(directory.path());
    config.node.sandbox = SandboxMode::Required;
    within(&config, false, |sandbox| {
        assert!(sandbox.missing.is_empty(), "{sandbox:?}");
        let denied = |result: io::Result<()>| {
            assert_eq!(result.expect_err("refused").kind(), io::ErrorKind::PermissionDenied);
        };
        denied(fs::read("/etc/shadow").map(drop));
        denied(fs::read(&secret).map(drop));
        denied(fs::write(directory.path().join("new"), "x"));
        denied(fs::write("/usr/weir-test", "x"));
        let state = directory.path().join("state/ledger.db");
        fs::write(&state, "own").expect("the node's own files");
        assert_eq!(fs::read(&state).expect("read"), b"own");
        fs::remove_file(&state).expect("removed");
        let mounted = mount("none", directory.path(), "tmpfs", MountFlags::empty(), None);
        assert_eq!(mounted, Err(rustix::io::Errno::PERM));
        #[expect(deprecated, reason = "it is refused")]
        let left = rustix::thread::unshare(UnshareFlags::NEWNET);
        assert_eq!(left, Err(rustix::io::Errno::PERM));
        // The programs that it starts have no more: root without its capabilities.
        let said = Command::new("/bin/cat").arg("/proc/self/status").output().expect("started");
        let status = String::from_utf8_lossy(&said.stdout).into_owned();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000008000001400"] {
            assert!(status.contains(line), "{line:?} is not in\n{status}");
        }
        let shadow = Command::new("/bin/cat").arg("/etc/shadow").output().expect("started");
        assert!(!shadow.status.success());
    });
    // The rest of the process has its rights still.
    fs::read(&secret).expect("the sandbox was that thread's");
}

#[test]
fn with_a_bpffs_of_its_own_it_can_unmount_and_says_what_that_costs() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path());
    within(&config, true, |sandbox| {
        assert_eq!(sandbox.missing.len(), 1, "{sandbox:?}");
        assert!(sandbox.describe().contains("no Landlock (weir has mounted a bpffs"));
        let kept = capabilities(None).expect("read").effective;
        assert!(kept.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
        assert!(!kept.contains(rustix::thread::CapabilitySet::DAC_OVERRIDE));
    });
    let mut required = config;
    required.node.sandbox = SandboxMode::Required;
    let refused =
        thread::scope(|scope| scope.spawn(|| enter(&required, None, Vec::new(), true)).join());
    let error = refused.expect("ends").expect_err("Landlock is missing").to_string();
    assert!(error.contains("required") && error.contains("/sys/fs/bpf"), "{error}");
}

#[test]
fn off_is_off() {
    let mut config = Config::default();
    config.node.sandbox = SandboxMode::Off;
    within(&config, false, |sandbox| {
        assert_eq!(sandbox.describe(), "off");
        assert!(!rustix::thread::no_new_privs().expect("read"));
        fs::read("/etc/shadow").expect("nothing was taken away");
    });
}

/// Makes each system call that its arguments name (a number, and the first argument), and prints the
/// number and the error. A child that it gets by `clone` ends at once.
const CALLS: &str = r#"
    for (@ARGV) {
        my ($number, $argument) = split /:/;
        my $result = syscall($number + 0, $argument + 0, 0, 0, 0, 0, 0);
        my $error = $result < 0 ? $! + 0 : 0;
        exec "/bin/true" if $argument && $result == 0;
        print "$number:$argument=$error\n";
    }
"#;

#[test]
fn every_form_of_what_is_refused_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = config(directory.path());
    config.node.sandbox = SandboxMode::Required;
    let mut forms: Vec<(i64, i64, i32)> =
        system_calls::REFUSED.iter().map(|number| (*number, 0, libc::EPERM)).collect();
    forms.push((libc::SYS_umount2, 0, libc::EPERM));
    for flag in system_calls::NAMESPACES {
        // What a program that forks passes, too: then the parent lives on if it is let through.
        let flags = i64::from(*flag) | i64::from(libc::SIGCHLD);
        forms.push((libc::SYS_clone, flags, libc::EPERM));
    }
    forms.push((libc::SYS_clone3, 0, libc::ENOSYS));
    // Harmless: where the bit is let through, there is an answer or no such call.
    forms.push((libc::SYS_getpid | i64::from(system_calls::X32_BIT), 0, libc::EPERM));
    forms.push((libc::SYS_mount | i64::from(system_calls::X32_BIT), 0, libc::EPERM));
    let said = within(&config, false, |_| {
        // Threads and programs are started without `clone3`.
        thread::scope(|scope| scope.spawn(|| ()).join()).expect("a thread");
        let names = forms.iter().map(|(number, argument, _)| format!("{number}:{argument}"));
        Command::new("/usr/bin/perl").args(["-e", CALLS]).args(names).output().expect("started")
    });
    let said = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    let expected: Vec<String> = forms
        .iter()
        .map(|(number, argument, error)| format!("{number}:{argument}={error}"))
        .collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}
