//! `cargo xtask build-ebpf`: compiles node-ebpf into the objects that weir and its benchmarks embed.
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

/// A committed object.
#[derive(Debug)]
pub(crate) struct Object {
    /// The program of package node-ebpf that it is.
    program: &'static str,
    /// Where it is embedded from, relative to the repository.
    pub(crate) path: &'static str,
    /// What it was built from and with.
    pub(crate) record: &'static str,
}

/// All committed objects: the node's, and what the benchmarks put in front of a node.
pub(crate) const OBJECTS: [Object; 2] = [
    Object { program: "weir-ebpf", path: "node/ebpf/weir.bpf.o", record: "node/ebpf/weir.bpf.txt" },
    Object {
        program: "weir-cable",
        path: "benches/ebpf/cable.bpf.o",
        record: "benches/ebpf/cable.bpf.txt",
    },
];

const TARGET: &str = "bpfel-unknown-none";

/// Builds the objects and their records, and puts them where they are committed.
///
/// # Errors
///
/// Fails when the toolchain cannot be had, or when the programs do not compile.
pub(crate) fn run() -> Result<()> {
    let root = root();
    for Built { object, bytes, record } in build()? {
        let write = |path: &str, content: &[u8]| {
            let path = root.join(path);
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))
        };
        write(object.path, &bytes)?;
        write(object.record, record.to_string().as_bytes())?;
        println!("{}: {} bytes, with {}", object.path, bytes.len(), record.toolchain);
    }
    Ok(())
}

/// A freshly built object.
pub(crate) struct Built {
    pub(crate) object: &'static Object,
    pub(crate) bytes: Vec<u8>,
    pub(crate) record: Record,
}

/// Builds the objects, and leaves the committed ones alone.
pub(crate) fn build() -> Result<Vec<Built>> {
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

    let linked = target_dir.join(TARGET).join("release");
    let stripped = target_dir.join("stripped.o");
    let mut all = Vec::new();
    for object in &OBJECTS {
        strip(&toolchain, &linked.join(object.program), &stripped)?;
        let bytes = fs::read(&stripped).context("read the built object")?;
        for path in [&root, &home()].map(|path| path.to_string_lossy().into_owned()) {
            ensure!(
                !bytes.windows(path.len()).any(|window| window == path.as_bytes()),
                "{} contains the path {path}: it would differ from machine to machine",
                object.path
            );
        }
        let record = Record::new(&root, object.path, toolchain.to_string(), &bytes)?;
        all.push(Built { object, bytes, record });
    }
    Ok(all)
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
