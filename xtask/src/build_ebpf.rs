//! `cargo xtask build-ebpf`: compiles node-ebpf into the object that weir embeds.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

mod mirror;
mod record;
mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

pub(crate) use self::record::{Record, sha256};
use self::{mirror::Mirror, toolchain::Toolchain};

/// The object, where `node` embeds it from, relative to the repository.
pub(crate) const OBJECT: &str = "node/ebpf/weir.bpf.o";
/// What it was built from and with.
pub(crate) const RECORD: &str = "node/ebpf/weir.bpf.txt";

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and its record, and puts both where they are committed.
///
/// # Errors
///
/// Fails when the toolchain cannot be had, or when the programs do not compile.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let built = build()?;
    let object = root.join(OBJECT);
    fs::write(&object, &built.object).with_context(|| format!("write {}", object.display()))?;
    let record = root.join(RECORD);
    fs::write(&record, built.record.to_string())
        .with_context(|| format!("write {}", record.display()))?;
    println!("{OBJECT}: {} bytes, with {}", built.object.len(), built.record.toolchain);
    Ok(())
}

/// A freshly built object.
pub(crate) struct Built {
    pub(crate) object: Vec<u8>,
    pub(crate) record: Record,
}

/// Builds the object, and leaves the committed one alone.
pub(crate) fn build() -> Result<Built> {
    let root = root();
    let toolchain = Toolchain::find_or_install()?;
    let mirror = Mirror::new(&root)?;
    let package = mirror.path().join("node-ebpf");
    let target_dir = root.join("node-ebpf/target");
    let status = toolchain
        .cargo()
        .current_dir(&package)
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(mirror.path(), &toolchain)?)
        .status()
        .context("run cargo for node-ebpf")?;
    ensure!(status.success(), "node-ebpf does not compile: see above");

    let linked = target_dir.join(TARGET).join("release/weir-ebpf");
    let stripped = target_dir.join("weir.bpf.o");
    strip(&toolchain, &linked, &stripped)?;
    let object = fs::read(&stripped).context("read the built object")?;
    let leaks = [&root, &home()].map(|path| path.to_string_lossy().into_owned());
    for path in leaks {
        ensure!(
            !object.windows(path.len()).any(|window| window == path.as_bytes()),
            "the built object contains the path {path}: it would differ from machine to machine"
        );
    }
    let record = Record::new(&root, toolchain.to_string(), &object)?;
    Ok(Built { object, record })
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

/// BTF for the verifier's messages, with paths that mean the same on every machine.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<String> {
    let mut flags = vec![
        // The helpers' numbers are the same on every architecture; the bindings want one.
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        // 32-bit arithmetic in one instruction each, which BLAKE2s consists of: Linux 5.1 has it.
        "-Ctarget-cpu=v3".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root, "weir");
    let cargo_home =
        std::env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from);
    let registries = cargo_home.join("registry/src");
    // Not there before the first download, which the build does by itself.
    for registry in fs::read_dir(&registries).into_iter().flatten() {
        remap(&registry.context("list the downloaded crates")?.path(), "crates");
    }
    remap(&toolchain.library_source(), "rust");
    Ok(flags.join("\x1f"))
}

/// Leaves BTF, and takes away the rest of the debug information, which the kernel does not read.
fn strip(toolchain: &Toolchain, from: &Path, to: &Path) -> Result<()> {
    let status = Command::new(toolchain.objcopy())
        .arg("--strip-debug")
        .args([from, to])
        .status()
        .with_context(|| format!("run {}", toolchain.objcopy().display()))?;
    ensure!(status.success(), "{} failed", toolchain.objcopy().display());
    Ok(())
}
