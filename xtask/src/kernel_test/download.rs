//! Debian's kernels: fetched once, unpacked below the target directory, installed nowhere. The
//! package lists for that are in the same place, and not those of this machine.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, apt};

/// From where each kernel is: the package that depends on the newest one of its suite.
const KERNELS: [&str; 3] = ["bookworm", "bookworm-backports", "trixie-backports"];
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
    apt.fetch(&[BUSYBOX.to_owned()], &busybox)?;
    for (suite, place) in KERNELS.iter().zip(&kernels) {
        let newest = format!("{NEWEST}/{suite}");
        let fields = apt.show(&newest)?;
        let image = dependencies(&fields).find(|name| name.starts_with("linux-image-"));
        let image = image.with_context(|| {
            format!("{newest} depends on no kernel. Fix: look at what {NEWEST} is on this mirror")
        })?;
        // Since Linux 7 the kernel and its modules are packages of their own.
        let fields = apt.show(&image)?;
        let is_part = |name: &String| {
            ["linux-binary-", "linux-modules-", "linux-base-"].iter().any(|start| {
                name.strip_prefix(start).is_some_and(|rest| rest.starts_with(char::is_numeric))
            })
        };
        let parts = dependencies(&fields).filter(is_part);
        apt.fetch(&std::iter::once(image).chain(parts).collect::<Vec<_>>(), place)?;
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

    /// Fetches packages, each `name` or `name=version`, and unpacks them as `place`.
    fn fetch(&self, names: &[String], place: &Path) -> Result<()> {
        if place.exists() {
            return Ok(());
        }
        // Whole, or not there.
        let part = place.with_extension("part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        for name in names {
            let file = self.download(name)?;
            apt::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&part))?;
            fs::remove_file(file)?;
        }
        // Debian 13 has modules in /usr/lib only.
        if !part.join("lib").exists() && part.join("usr/lib/modules").exists() {
            symlink("usr/lib", part.join("lib"))?;
        }
        fs::rename(part, place).with_context(|| format!("cannot make {}", place.display()))
    }

    /// Fetches a package's file.
    fn download(&self, package: &str) -> Result<PathBuf> {
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
        Ok(files.next().context("apt-get download gave no file")??.path())
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

/// The packages that another one depends on, as apt takes them: `name` or `name=version`.
fn dependencies(fields: &str) -> impl Iterator<Item = String> {
    let all = field(fields, "Depends").unwrap_or_default().split(',').map(str::trim);
    all.map(|dependency| match dependency.split_once(" (= ") {
        Some((name, version)) => format!("{name}={}", version.trim_end_matches(')')),
        None => dependency.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_depends_on_others_in_the_version_that_apt_takes() {
        let fields = "Package: linux-image-amd64\nVersion: 6.12.9-1~bpo12+1\nSize: 1480\n\
                      Depends: linux-image-6.12.9+deb12-amd64 (= 6.12.9-1~bpo12+1), x\n";
        let found: Vec<_> = dependencies(fields).collect();
        assert_eq!(found, ["linux-image-6.12.9+deb12-amd64=6.12.9-1~bpo12+1", "x"]);
        assert_eq!(field(fields, "Size"), Some("1480"));
    }
}
