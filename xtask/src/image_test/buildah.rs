//! buildah, with a store of its own that takes no daemon, no registry and no file system of layers.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// Where the program is in the image that stands in for Rust's.
const READY: &str = "/usr/local/share/weir";
/// Where Rust's own image has its programs.
const RUST: &str = "/usr/local/rust";
/// The authorities that a Debian trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What Rust's own image has beside Rust.
const RUST_PACKAGES: &str = "apt-get update -q && apt-get install -qy --no-install-recommends \
                             ca-certificates gcc libc6-dev";

/// A store of images.
pub(super) struct Buildah {
    work: PathBuf,
}

impl Buildah {
    /// A store in a directory.
    pub(super) fn new(work: &Path) -> Self {
        Self { work: work.to_owned() }
    }

    /// Makes Debian's image.
    pub(super) fn debian(&self, name: &str, files: &Path) -> Result<()> {
        println!("{name} is a fresh Debian 12");
        let container = self.begin(files)?;
        self.commit(&container, name)
    }

    /// Makes Rust's image, whose `cargo` only copies a program that is ready.
    pub(super) fn ready(&self, name: &str, files: &Path, program: &Path) -> Result<()> {
        println!("{name} is that with {} for what cargo builds", program.display());
        let container = self.begin(files)?;
        let script = self.work.join("cargo");
        fs::write(&script, format!("#!/bin/sh\nexec install -D {READY} target/release/weir\n"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        self.copy(&container, &script, "/usr/local/bin/cargo")?;
        self.copy(&container, program, READY)?;
        self.commit(&container, name)
    }

    /// Makes Rust's image of this machine's toolchain.
    pub(super) fn rust(&self, name: &str, files: &Path) -> Result<()> {
        let version = said(Command::new("rustc").arg("--version"))?;
        let wanted = name.split([':', '-']).nth(1).unwrap_or_default();
        ensure!(
            version.starts_with(&format!("rustc {wanted}.")),
            "the Dockerfile takes Rust {wanted}, and this is {version}. Fix: cargo +{wanted} ..."
        );
        println!("{name} is that with this machine's {version}");
        let sysroot = said(Command::new("rustc").args(["--print", "sysroot"]))?;
        let container = self.begin(files)?;
        for part in ["bin", "lib"] {
            self.copy(&container, &Path::new(&sysroot).join(part), &format!("{RUST}/{part}"))?;
        }
        let path =
            format!("PATH={RUST}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        self.run(&["config", "--env", &path, "--env", "CARGO_HOME=/usr/local/cargo", &container])?;
        self.run(&["run", "--isolation", "chroot", &container, "sh", "-c", RUST_PACKAGES])?;
        // Where a proxy signs what registries send, this machine trusts it.
        self.copy(&container, Path::new(CERTIFICATES), CERTIFICATES)?;
        self.commit(&container, name)
    }

    /// Builds an image from a Dockerfile of the workspace.
    pub(super) fn build(&self, dockerfile: &str, tag: &str) -> Result<()> {
        let ignore = format!("{dockerfile}.dockerignore");
        // Docker's format is the one with a health check.
        let options = ["build", "--isolation", "chroot", "--pull-never", "--format", "docker"];
        let names = ["--ignorefile", &ignore, "-f", dockerfile, "-t", tag, "."];
        self.run(&[&options[..], &names].concat()).map(|_| ())
    }

    /// What an image says of itself.
    pub(super) fn inspect(&self, tag: &str) -> Result<String> {
        self.run(&["inspect", "--type", "image", tag])
    }

    /// Where the files of an image are.
    pub(super) fn files(&self, tag: &str) -> Result<PathBuf> {
        let container = self.run(&["from", "--pull-never", tag])?;
        Ok(self.run(&["mount", &container])?.into())
    }

    fn begin(&self, files: &Path) -> Result<String> {
        let container = self.run(&["from", "scratch"])?;
        self.copy(&container, files, "/")?;
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.run(&["config", "--env", path, "--cmd", "bash", &container])?;
        Ok(container)
    }

    fn copy(&self, container: &str, from: &Path, to: &str) -> Result<()> {
        let from = from.to_str().context("a path that is no UTF-8")?;
        self.run(&["copy", "--quiet", container, from, to]).map(|_| ())
    }

    /// An image by the name that a Dockerfile has for one of Docker's library.
    fn commit(&self, container: &str, name: &str) -> Result<()> {
        self.run(&["commit", "--quiet", "--rm", container, &format!("docker.io/library/{name}")])?;
        Ok(())
    }

    /// Runs buildah, and gives what it said without the last line's end.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.work.join("storage"));
        command.arg("--runroot").arg(self.work.join("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command.current_dir(workspace::root());
        said(&mut command)
    }
}

/// What a command said. What it said while it failed is shown.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    Ok(text.trim().to_owned())
}
