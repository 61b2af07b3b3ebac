//! `cargo xtask image-test`: the container image, built from its Dockerfile by buildah and run by runc
//! as compose.yaml says. No engine and no registry is asked: the images that the Dockerfile begins
//! with are made here, of Debian packages. The work is done by the example `image` of the tests.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

mod buildah;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use self::buildah::Buildah;
use crate::{
    setup::{self, apt, apt::Need},
    workspace::{self, cargo},
};

const DEBOOTSTRAP: Need =
    Need::new("debootstrap", "/usr/sbin/debootstrap", "makes the images that others begin with");
const BUILDAH: Need = Need::new("buildah", "/usr/bin/buildah", "builds the image");
const RUNC: Need = Need::new("runc", "/usr/sbin/runc", "runs the container");

const DOCKERFILE: &str = "packaging/docker/Dockerfile";
/// Says in a fresh Debian that all of it is there.
const DONE: &str = "var/cache/weir-image-test";
const TAG: &str = "weir-image-test";

/// Where the program in the image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Built on this machine: what the Dockerfile has for `cargo` copies it.
    Ready,
    /// Built in the image, with this machine's toolchain.
    Built,
}

/// Builds the image and tries it.
///
/// # Errors
/// If something cannot be built or installed, or the container does not do its work.
pub(crate) fn run(profile: &str, program: Program) -> Result<()> {
    setup::run()?;
    let missing = [&DEBOOTSTRAP, &BUILDAH, &RUNC];
    let missing = missing.into_iter().filter(|need| !Path::new(need.proof).exists());
    apt::install(&missing.collect::<Vec<_>>())?;
    let directory = workspace::target().join("image-test");
    let debian = debian(&directory)?;
    // Of a run that was ended: the images, and what containers left.
    remove(&directory.join("work"))?;
    let work = directory.join("work");
    fs::create_dir_all(&work)?;
    let result = build(&work, &debian, profile, program).and_then(|image| try_image(&work, &image));
    remove(&work)?;
    result
}

/// The files of a fresh Debian 12.
fn debian(directory: &Path) -> Result<PathBuf> {
    let debian = directory.join("debian");
    if !debian.join(DONE).exists() {
        remove(&debian)?;
        println!("making a fresh Debian 12 in {}", debian.display());
        let mirror = setup::mirror().context("no mirror of bookworm in /etc/apt")?;
        fs::create_dir_all(&debian)?;
        let mut command = Command::new(DEBOOTSTRAP.proof);
        command.args(["--variant=minbase", "bookworm"]).arg(&debian).arg(mirror);
        apt::run(&mut command)?;
        fs::write(debian.join(DONE), "").context("cannot mark the fresh Debian as whole")?;
    }
    Ok(debian)
}

/// The files of the image, and what its Dockerfile says.
struct Image {
    root: PathBuf,
    config: PathBuf,
}

fn build(work: &Path, debian: &Path, profile: &str, program: Program) -> Result<Image> {
    let buildah = Buildah::new(work);
    let text = fs::read_to_string(workspace::root().join(DOCKERFILE))?;
    let bases: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    let bases = bases.iter().filter_map(|rest| rest.split_whitespace().next());
    for base in bases {
        match base.split_once(':') {
            Some(("debian", "bookworm-slim")) => buildah.debian(base, debian)?,
            Some(("rust", tag)) if tag.ends_with("-slim-bookworm") => match program {
                Program::Ready => buildah.ready(base, debian, &ready(profile)?)?,
                Program::Built => buildah.rust(base, debian)?,
            },
            _ => anyhow::bail!("{DOCKERFILE} begins with {base}, which this cannot stand in for"),
        }
    }
    println!("building the image from {DOCKERFILE}");
    buildah.build(DOCKERFILE, TAG)?;
    let config = work.join("image.json");
    fs::write(&config, buildah.inspect(TAG)?)?;
    Ok(Image { root: buildah.files(TAG)?, config })
}

/// The program for the image: WEIR_BIN, as in the tests, or what cargo builds.
fn ready(profile: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return Ok(path.into());
    }
    println!("building weir ({profile})");
    workspace::run(&mut cargo(&["build", "--quiet", "-p", "weir", "--profile", profile]))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(workspace::target().join(folder).join("weir"))
}

/// In a mount namespace of its own, so that this machine's `/run` and bpffs are not the node's.
fn try_image(work: &Path, image: &Image) -> Result<()> {
    let built = cargo(&["build", "--quiet", "-p", "weir-tests", "--example", "image"]);
    workspace::run(&mut { built })?;
    let example = workspace::target().join("debug/examples/image");
    ensure!(example.exists(), "there is no {}", example.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(example);
    workspace::run(command.arg(&image.root).arg(&image.config).arg(work.join("containers")))
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        // Its mounts were in a mount namespace that is gone.
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}
