//! Debian's kernels: fetched once, unpacked below the target directory, installed nowhere. The
//! package lists for that are in the same place, and not those of this machine.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, apt};

/// From where each kernel is: the package that depends on the newest one of its suite.
const KERNELS: [&str; 2] = ["bookworm", "bookworm-backports"];
const NEWEST: &str = "linux-image-amd64";
/// A shell and small programs in one file without libraries.
const BUSYBOX: &str = "busybox-static";

/// What was fetched.
pub(crate) struct Fetched {
    /// The program, in which all small programs are.
    pub(crate) busybox: PathBuf,
    /// One directory for each kernel, with its `boot` and its `lib/modules`.
    pub(crate) kernels: Vec<PathBuf>,
}

/// Fetches what is not in `base` yet.
///
/// # Errors
/// If the mirror cannot be reached or has no such package.
pub(crate) fn all(base: &Path) -> Result<Fetched> {
    let apt = Apt { base: base.join("apt") };
    let busybox = base.join("busybox");
    let kernels = KERNELS.map(|suite| base.join(suite)).to_vec();
    if kernels.iter().chain([&busybox]).all(|place| place.exists()) {
        println!("the kernels in {} are tried; remove it to get newer ones", base.display());
        return Ok(Fetched { busybox: busybox.join("bin/busybox"), kernels });
    }
    apt.update()?;
    apt.fetch(BUSYBOX, &busybox)?;
    for (suite, place) in KERNELS.iter().zip(&kernels) {
        let newest = format!("{NEWEST}/{suite}");
        let fields = apt.show(&newest)?;
        let package = first_dependency(&fields).with_context(|| {
            format!("{newest} depends on no kernel. Fix: look at what {NEWEST} is on this mirror")
        })?;
        apt.fetch(&package, place)?;
    }
    Ok(Fetched { busybox: busybox.join("bin/busybox"), kernels })
}

/// apt with lists, settings and downloads of its own.
struct Apt {
    base: PathBuf,
}

impl Apt {
    fn update(&self) -> Result<()> {
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(self.base.join(part)).context("cannot make apt's directories")?;
        }
        let source = setup::source(&KERNELS.join(" "))?;
        fs::write(self.base.join("debian.sources"), source).context("cannot write apt's source")?;
        println!("reading the package lists of {}", KERNELS.join(" and "));
        apt::run(self.command("apt-get").args(["update", "-q", "--error-on=any"])).context(
            "cannot read Debian's package lists. Fix: check the network and the mirror in /etc/apt",
        )
    }

    /// Fetches `name`, or `name=version`, and unpacks it as `place`.
    fn fetch(&self, package: &str, place: &Path) -> Result<()> {
        if place.exists() {
            return Ok(());
        }
        let fields = self.show(package)?;
        let bytes: u64 = field(&fields, "Size").and_then(|size| size.parse().ok()).unwrap_or(0);
        println!(
            "fetching Debian package {package} ({} MB), to be unpacked only",
            bytes / 1_000_000
        );
        let packages = self.base.join("packages");
        fs::remove_dir_all(&packages)?;
        fs::create_dir(&packages)?;
        let mut download = self.command("apt-get");
        apt::run(download.args(["download", "-q"]).arg(package).current_dir(&packages))?;
        let mut files = fs::read_dir(&packages)?;
        let file = files.next().context("apt-get download gave no file")??.path();
        // Whole, or not there.
        let part = place.with_extension("part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        apt::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&part))?;
        fs::remove_file(file)?;
        fs::rename(part, place).with_context(|| format!("cannot make {}", place.display()))
    }

    /// The fields of a package.
    fn show(&self, package: &str) -> Result<String> {
        let mut show = self.command("apt-cache");
        let output = show.args(["show", "--no-all-versions", package]).output();
        let output = output.context("cannot start apt-cache")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "no package {package}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, path) in [
            ("Dir::State", ""),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "debian.sources"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::Etc::preferences", "none"),
            ("Dir::Etc::preferencesparts", "none"),
        ] {
            let path = self.base.join(path);
            command.arg("-o").arg(format!("{name}={}", path.display()));
        }
        // It would not be let into a directory of root's.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }
}

fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    let of = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':').map(str::trim);
    fields.lines().find_map(of)
}

/// The first package that another one depends on, as apt takes it: `name` or `name=version`.
fn first_dependency(fields: &str) -> Option<String> {
    let first = field(fields, "Depends")?.split(',').next()?.trim();
    let Some((name, version)) = first.split_once(" (= ") else { return Some(first.to_owned()) };
    Some(format!("{name}={}", version.strip_suffix(')')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_newest_one_depends_on() {
        let fields = "Package: linux-image-amd64\nVersion: 6.12.9-1~bpo12+1\nSize: 1480\n\
                      Depends: linux-image-6.12.9+deb12-amd64 (= 6.12.9-1~bpo12+1), x\n";
        let found = first_dependency(fields);
        assert_eq!(found.as_deref(), Some("linux-image-6.12.9+deb12-amd64=6.12.9-1~bpo12+1"));
        assert_eq!(field(fields, "Size"), Some("1480"));
        assert_eq!(first_dependency("Depends: a\n").as_deref(), Some("a"));
        assert_eq!(first_dependency("Package: b\n"), None);
    }
}
