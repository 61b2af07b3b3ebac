//! A test program that is started again and killed, so that what it leaves behind is seen.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// Between two looks whether a program has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// The moments at which a program is killed, spread over the time that it takes on this machine. That
/// time is found on the way: it is doubled until the program is done before it is killed.
#[derive(Debug)]
pub struct Moments {
    span: Duration,
    number: u32,
}

impl Moments {
    /// How many parts the time is divided into.
    const PARTS: u32 = 6;
    /// Has no factor in common with [`Self::PARTS`], so that each part has its turn.
    const STEP: u32 = 5;

    /// Moments within this time at first.
    #[must_use]
    pub const fn within(span: Duration) -> Self {
        Self { span, number: 0 }
    }

    /// Kills a program that was just started, at the next moment. Returns how it ended.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn kill(&mut self, child: &mut Child) -> Result<ExitStatus> {
        let started = Instant::now();
        self.number += 1;
        let part = self.number * Self::STEP % Self::PARTS + 1;
        let moment = self.span * part / Self::PARTS;
        while started.elapsed() < moment {
            if let Some(status) = child.try_wait()? {
                self.span = started.elapsed();
                return Ok(status);
            }
            sleep(LOOK_INTERVAL.min(moment));
        }
        child.kill()?;
        if self.number.is_multiple_of(Self::PARTS) {
            self.span *= 2;
        }
        Ok(child.wait()?)
    }
}

/// Starts one test of this program again and again, and kills it at moments that spread over its
/// work. It finds `folder` in this variable of its environment. Returns how often it was killed before
/// it was done.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn repeatedly(test: &str, variable: &str, folder: &Path, times: u64) -> Result<u64> {
    let program = env::current_exe()?;
    let (mut kills, mut moments) = (0, Moments::within(Duration::from_millis(8)));
    for _ in 0..times {
        let mut child = Command::new(&program)
            .args(["--exact", test, "--test-threads=1", "--quiet"])
            .env::<&OsStr, &OsStr>(variable.as_ref(), folder.as_ref())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let status = moments.kill(&mut child)?;
        ensure!(status.signal().is_some() || status.success(), "{status}");
        kills += u64::from(status.signal().is_some());
    }
    Ok(kills)
}
