//! A test program that is started again and killed, so that what it leaves behind is seen.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Result, ensure};

/// Starts one test of this program again and again, and kills it, later and later, so that each part
/// of its work is met on a machine of any speed. It finds `folder` in this variable of its
/// environment. Returns how often it was killed before it was done.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn repeatedly(test: &str, variable: &str, folder: &Path, times: u64) -> Result<u64> {
    let program = env::current_exe()?;
    let mut kills = 0;
    for number in 0..times {
        let mut child = Command::new(&program)
            .args(["--exact", test, "--test-threads=1", "--quiet"])
            .env::<&OsStr, &OsStr>(variable.as_ref(), folder.as_ref())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        sleep(Duration::from_millis(5 + number % 50 * 2));
        // It may have ended.
        child.kill().ok();
        let status = child.wait()?;
        ensure!(status.signal().is_some() || status.success(), "{status}");
        kills += u64::from(status.signal().is_some());
    }
    Ok(kills)
}
