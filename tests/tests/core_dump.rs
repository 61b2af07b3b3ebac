//! A crash writes no secrets down: no command of weir leaves a core.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat},
    process::{Pid, Signal, kill_process},
};
use weir_tests::{Client, Lab, Node, Settings, lab::SERVERS, node::binary, process, until};

/// A user without rights.
const NOBODY: u32 = 65534;

#[test]
fn a_node_that_crashes_leaves_no_core_whatever_its_limit_was() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_str().context("a path")?;
    let mut node = Node::prepare(&lab.node, Settings::default())?;
    node.launch_by(&["env", "--chdir", path, "prlimit", "--core=unlimited:unlimited"]);
    node.restart()?;
    let client = Client::connect(&lab.consumer, &node.session_add("alice")?.config)?;
    client.wait_connected(SERVERS[0])?;

    let pid = node.pid()?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<&str> = core.context("no limit of cores")?.split_whitespace().collect();
    ensure!(core == ["0", "0", "bytes"], "{limits}");

    // As systemd does when a watchdog is missed, and a panic does too.
    kill_process(Pid::from_raw(pid.try_into()?).context("a process")?, Signal::ABORT)?;
    let ended = node.wait_for_end()?;
    ensure!(ended.signal() == Some(libc::SIGABRT) && !ended.core_dumped(), "{ended}");
    let left: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Whether a process can be dumped shows in whose its files in `/proc` are (proc(5)): its user's, or
/// root's where it cannot. So it is another user here.
#[test]
fn no_command_can_be_dumped() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let (weir, pipe) = (directory.path().join("weir"), directory.path().join("weir.toml"));
    fs::copy(binary()?, &weir)?;
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0)?;
    let mut child = Command::new("setpriv")
        .args(["--reuid", &NOBODY.to_string(), "--clear-groups", "--"])
        .arg(&weir)
        .args(["config", "check"])
        .arg(&pipe)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // It can be opened once there is a reader: then the command is in the middle of its work.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let mut writer = until("weir reads the configuration", Duration::from_secs(30), || {
        Ok(File::options().write(true).custom_flags(nonblock).open(&pipe)?)
    })?;
    let proc = format!("/proc/{}", child.id());
    let (user, owner) =
        (fs::read_to_string(format!("{proc}/status"))?, fs::metadata(format!("{proc}/mem"))?.uid());
    writer.write_all(b"no configuration")?;
    drop(writer);
    process::wait(&mut child, Duration::from_secs(30))?;
    ensure!(user.contains(&format!("Uid:\t{NOBODY}\t{NOBODY}")), "{user}");
    ensure!(owner == 0, "{proc}/mem is of user {owner}: the process can be dumped");
    Ok(())
}
