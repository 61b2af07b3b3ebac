//! A compiler that knows eBPF: the machine's, or Debian's, which is installed where none is.
#![expect(clippy::print_stdout, reason = "a task tells what it installs")]

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// Debian's packages of the compiler, the library's source and the linker's LLVM.
const PACKAGES: [&str; 5] =
    ["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev"];
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LINKER_VERSION: &str = "0.13.0";

/// rustc with the library's source, cargo, bpf-linker and llvm-objcopy.
pub(crate) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    objcopy: PathBuf,
    sysroot: PathBuf,
    version: String,
}

impl Toolchain {
    /// The machine's toolchain. What is missing is installed from Debian's packages and by cargo.
    pub(crate) fn find_or_install() -> Result<Self> {
        let rust = match find_rust() {
            Some(rust) => rust,
            None => {
                install_packages()?;
                find_rust().context(
                    "Debian's rustc-web and rust-web-src are installed, but no compiler with the \
                     library's source was found in /usr/bin",
                )?
            }
        };
        let objcopy = match find_objcopy() {
            Some(objcopy) => objcopy,
            None => {
                install_packages()?;
                find_objcopy().context("llvm-objcopy is missing: install Debian's llvm-22")?
            }
        };
        let linker = match linker_version() {
            Some(version) => version,
            None => {
                install_linker()?;
                linker_version().context("bpf-linker is installed, but cannot be run")?
            }
        };
        let version = format!("{}, {linker}", rust.version);
        Ok(Self { rustc: rust.rustc, cargo: rust.cargo, objcopy, sysroot: rust.sysroot, version })
    }

    /// cargo, told to use this compiler and to accept what is not stable in it.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").env("PATH", path());
        // Set by the cargo and rustup that run this task, and meant for another compiler.
        for name in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO", "CARGO_TARGET_DIR"]
        {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn objcopy(&self) -> &Path {
        &self.objcopy
    }

    /// Where the library's source is.
    pub(crate) fn library_source(&self) -> PathBuf {
        library_source(&self.sysroot)
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)
    }
}

struct Rust {
    rustc: PathBuf,
    cargo: PathBuf,
    sysroot: PathBuf,
    version: String,
}

/// Debian's first, which every machine can have, so that all build the same object.
fn find_rust() -> Option<Rust> {
    let debian = || Rust::new("/usr/bin/rustc".into(), "/usr/bin/cargo".into());
    let nightly = || {
        let which = |tool| {
            let output =
                output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]));
            output.map(PathBuf::from)
        };
        Rust::new(which("rustc")?, which("cargo")?)
    };
    debian().or_else(nightly)
}

impl Rust {
    fn new(rustc: PathBuf, cargo: PathBuf) -> Option<Self> {
        let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"]))?);
        let verbose = output(Command::new(&rustc).arg("-vV"))?;
        output(Command::new(&cargo).arg("--version"))?;
        if !library_source(&sysroot).join("library/core/src/lib.rs").exists() {
            return None;
        }
        let version = verbose.lines().next()?;
        let llvm = verbose.lines().find(|line| line.starts_with("LLVM"))?;
        Some(Self { rustc, cargo, sysroot, version: format!("{version}, {llvm}") })
    }
}

fn library_source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust")
}

fn find_objcopy() -> Option<PathBuf> {
    let candidates = ["/usr/lib/llvm-22/bin/llvm-objcopy", "llvm-objcopy-22", "llvm-objcopy"];
    let works = |name: &&str| output(Command::new(name).arg("--version")).is_some();
    candidates.iter().find(|name| works(name)).map(PathBuf::from)
}

fn linker_version() -> Option<String> {
    output(Command::new("bpf-linker").arg("--version").env("PATH", path()))
}

fn install_packages() -> Result<()> {
    println!("installing the eBPF compiler from Debian: {}", PACKAGES.join(" "));
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(PACKAGES)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

fn install_linker() -> Result<()> {
    if !Path::new(LLVM_PREFIX).exists() {
        install_packages()?;
    }
    println!("installing bpf-linker {LINKER_VERSION} with cargo (some minutes)");
    run(Command::new("cargo")
        .args(["install", "--quiet", "--locked", "bpf-linker", "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env_remove("CARGO_TARGET_DIR"))
}

/// PATH, with the place where cargo installs programs.
fn path() -> std::ffi::OsString {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let cargo_home =
        std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let places = [cargo_home.join("bin")].into_iter().chain(std::env::split_paths(&inherited));
    std::env::join_paths(places).unwrap_or(inherited)
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => bail!("cannot run {}: {error}", program.display()),
    };
    ensure!(status.success(), "{} failed ({status}): see above", program.display());
    Ok(())
}
