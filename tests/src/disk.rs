//! A small disk, in a mount namespace of its own: nothing else on the machine sees it.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// A file system of a set size; gone when dropped, with all that is on it.
#[derive(Debug)]
pub struct Disk {
    holder: Child,
    at: PathBuf,
}

impl Disk {
    /// Mounts it at a directory, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn mount(at: &Path, mib: u32) -> Result<Self> {
        fs::create_dir_all(at)?;
        let script = format!(
            "mount -t tmpfs -o size={mib}m,mode=700 tmpfs {} && echo mounted && exec sleep infinity",
            at.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut disk =
            Self { holder: command.spawn().context("cannot start unshare")?, at: at.to_owned() };
        let mut line = String::new();
        let said = disk.holder.stdout.take().context("no output")?;
        BufReader::new(said).read_line(&mut line)?;
        ensure!(line == "mounted\n", "cannot mount a tmpfs at {}", at.display());
        Ok(disk)
    }

    /// The mount namespace in which it is.
    #[must_use]
    pub fn namespace(&self) -> String {
        format!("/proc/{}/ns/mnt", self.holder.id())
    }

    /// A file on it, as it is reached from here.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        let at = self.at.strip_prefix("/").unwrap_or(&self.at);
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(at).join(name)
    }

    /// Leaves no byte free.
    ///
    /// # Errors
    /// If it cannot be written for another reason.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::options().append(true).create(true).open(self.file("filler"))?;
        loop {
            match file.write_all(&[7; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes room again.
    ///
    /// # Errors
    /// If it was not filled.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.file("filler"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
