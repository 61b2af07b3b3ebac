//! One program in a network namespace of its own, whose only way out is a tunnel. The tunnel's
//! datagrams leave from the namespace outside. Nothing else is changed on the machine.

mod money;

use std::{
    ffi::OsString,
    fs,
    net::IpAddr,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
    process::{Pid, Signal, kill_process},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

pub use self::money::Money;
use crate::{
    clock, dns,
    gateway::Gateway,
    inside::{INTERFACE, Inside},
    link, namespace,
    source::Candidate,
    tunnel::Kind,
};

/// The time in which the node has to answer.
const CONNECT_TIMEOUT: u64 = 10 * clock::SECOND;
/// The sockets by which a program asks resolvers outside of its namespace. They are hidden.
const HIDDEN: [&str; 4] = ["/run/systemd/resolve", "/run/nscd", "/run/avahi-daemon", "/run/dbus"];
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What to run, and through which node.
pub struct Exec {
    /// The node.
    pub candidate: Candidate,
    /// Which WireGuard.
    pub kind: Kind,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Whom the program is run as: user and group.
    pub user: Option<(u32, u32)>,
}

/// Runs the program to its end. The answer is its exit status as a shell gives it: 128 and the
/// signal, if it was killed. `money` pays the node on meanwhile, and `say` is told so.
///
/// # Errors
///
/// When the namespace or the tunnel cannot be made, the node does not answer, or there is no such
/// program.
pub fn run(exec: &Exec, money: Option<Money>, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<u8> {
    ensure!(!exec.command.is_empty(), "name a program. Fix: weir exec --conf FILE -- curl ...");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (handle, inside, child) = runtime.block_on(async {
        let handle = link::netlink().context("cannot open netlink")?;
        let inside = Inside::open(&handle, &exec.candidate, exec.kind).await?;
        wait(&inside).await?;
        let child = inside.run(|| start(exec))?;
        anyhow::Ok((handle, inside, child))
    })?;
    let conf = &exec.candidate.conf;
    let status = thread::scope(|scope| {
        let (end, ended) = watch::channel(false);
        if let (Some(money), Some(gateway)) = (money, conf.gateway()) {
            let gateway = Gateway::new(gateway, INTERFACE);
            let inside = &inside;
            scope.spawn(move || {
                let paid = inside.run(|| money.pay_on(&gateway, &conf.dns, ended, say));
                if let Err(error) = paid {
                    say(&format!("The node is not paid on: {error:#}"));
                }
            });
        }
        let status = runtime.block_on(supervise(child));
        end.send_replace(true);
        status
    })?;
    runtime.block_on(inside.stop(&handle))?;
    Ok(shell_status(status))
}

fn shell_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

async fn wait(inside: &Inside) -> anyhow::Result<()> {
    let end = clock::now() + CONNECT_TIMEOUT;
    while !inside.counts()?.is_established {
        ensure!(
            clock::now() < end,
            "the node does not answer. Fix: check that its address and the keys are right, and that \
             this machine reaches it over UDP"
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Starts the program from a thread that is in its namespaces.
fn start(exec: &Exec) -> anyhow::Result<Child> {
    namespace::leave_mounts().context("cannot make a mount namespace. Fix: run as root")?;
    hide_resolvers(&exec.candidate.conf.dns).context("cannot give the program its resolver")?;
    let (program, arguments) = exec.command.split_first().context("name a program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some((user, group)) = exec.user {
        command.uid(user).gid(group);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}. Fix: check its name", program.to_string_lossy()))
}

/// Gives this thread a resolver's file with the tunnel's resolvers, and hides every socket by which
/// names are asked for elsewhere.
fn hide_resolvers(servers: &[IpAddr]) -> anyhow::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    let target = fs::canonicalize(RESOLV_CONF).unwrap_or_else(|_| PathBuf::from(RESOLV_CONF));
    for path in HIDDEN.map(Path::new).into_iter().filter(|path| path.is_dir()) {
        mount(
            "tmpfs",
            path,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            c"size=64k,mode=755",
        )?;
    }
    // A file of this process alone, which goes with the mounts.
    let text = dns::render(servers);
    if HIDDEN.iter().any(|hidden| target.starts_with(hidden)) {
        return Ok(fs::write(&target, text)?);
    }
    let own = format!("/run/weir-exec-{}", std::process::id());
    fs::write(&own, text)?;
    let bound = mount_bind(&own, &target);
    fs::remove_file(&own)?;
    bound.with_context(|| format!("cannot mount {}", target.display()))?;
    Ok(())
}

/// Waits for the program's end, and passes on what is to end it. The terminal itself sends SIGINT
/// to both.
async fn supervise(mut child: Child) -> anyhow::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    loop {
        let signal = tokio::select! {
            status = &mut ended => return Ok(status??),
            _ = interrupt.recv() => continue,
            _ = terminate.recv() => Signal::TERM,
            _ = hang_up.recv() => Signal::HUP,
        };
        kill_process(pid, signal).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_one_that_a_shell_would_give() {
        assert_eq!(shell_status(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(shell_status(ExitStatus::from_raw(9)), 137);
        assert_eq!(shell_status(ExitStatus::from_raw(0)), 0);
    }
}
