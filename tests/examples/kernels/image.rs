//! What an emulated machine boots: a kernel of Debian's, and an initramfs with the modules and
//! programs that the node and a consumer need there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{command, lab::SERVER_V4, node};

/// Modules that are taken, with all that they depend on: directories end in a slash.
const MODULES: &[&str] = &[
    "arch/x86/crypto/",
    "crypto/",
    "drivers/char/virtio_console",
    "drivers/net/tun",
    "drivers/net/virtio_net",
    "drivers/net/wireguard/",
    "drivers/virtio/virtio_pci",
    "net/ipv4/netfilter/",
    "net/ipv6/netfilter/",
    "net/netfilter/",
];
/// Programs of this machine, which has the same ones as Debian 12.
const PROGRAMS: &[&str] = &["dash", "ethtool", "ip", "kmod", "nft", "nsenter", "ping", "wg"];
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const INIT: &str = include_str!("init.sh");

/// A kernel and the files that it starts with.
pub(crate) struct Image {
    /// As `uname -r` gives it.
    pub(crate) release: String,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Image {
    /// Makes it in `directory` from an unpacked kernel package.
    pub(crate) fn make(package: &Path, busybox: &Path, directory: &Path) -> Result<Self> {
        let release = release(package)?;
        let root = directory.join("root");
        for place in
            ["bin", "sbin", "usr/bin", "dev", "proc", "sys", "root", "run", "tmp", "etc", "var/lib"]
        {
            fs::create_dir_all(root.join(place))?;
        }
        fs::copy(busybox, root.join("bin/busybox"))?;
        modules(package, &release, &root)?;
        symlink("../usr/bin/kmod", root.join("sbin/modprobe"))?;
        for name in PROGRAMS {
            let found = PATH.iter().map(|place| Path::new(place).join(name));
            let found = found.into_iter().find(|path| path.exists());
            program(&found.with_context(|| format!("no program {name}"))?, name, &root)?;
        }
        program(&node::binary()?, "weir", &root)?;
        program(&std::env::current_exe()?, "kernels", &root)?;
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        symlink("../run", root.join("var/run"))?;
        fs::write(root.join("etc/resolv.conf"), format!("nameserver {SERVER_V4}\n"))?;
        let initramfs = directory.join("initramfs");
        let pack = "find . | cpio --quiet --create --format=newc > ../initramfs";
        command::run(Command::new("sh").args(["-c", pack]).current_dir(&root))?;
        fs::remove_dir_all(root)?;
        let places = [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")];
        let mut places = places.iter().map(|place| package.join(place));
        let kernel = places.find(|place| place.exists()).context("no vmlinuz in the package")?;
        Ok(Self { release, kernel, initramfs })
    }
}

fn release(package: &Path) -> Result<String> {
    let place = package.join("lib/modules");
    let mut found =
        fs::read_dir(&place).with_context(|| format!("no kernel in {}", package.display()))?;
    let name = found.next().context("a kernel without modules")??.file_name();
    ensure!(found.next().is_none(), "{} has several kernels", package.display());
    name.into_string().ok().context("a kernel's release is no text")
}

/// Copies the wanted modules, and lists them for `modprobe`.
fn modules(package: &Path, release: &str, root: &Path) -> Result<()> {
    let place = format!("lib/modules/{release}");
    let (from, to) = (package.join(&place), root.join(&place));
    let list = |tree: &Path| command::run(Command::new("depmod").arg("-b").arg(tree).arg(release));
    list(package)?;
    let dependencies = fs::read_to_string(from.join("modules.dep"))?;
    for module in closure(&dependencies) {
        let target = to.join(&module);
        fs::create_dir_all(target.parent().context("a module without a directory")?)?;
        fs::copy(from.join(&module), target)?;
    }
    for known in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(from.join(known), to.join(known))?;
    }
    list(root)?;
    Ok(())
}

/// The wanted modules of a `modules.dep`, and all that they depend on, which it lists for each.
fn closure(dependencies: &str) -> BTreeSet<String> {
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    let all: BTreeMap<_, _> = lines.collect();
    let is_wanted = |path: &str| {
        let path = path.strip_prefix("kernel/").unwrap_or(path);
        let name = path.split(".ko").next().unwrap_or(path);
        MODULES
            .iter()
            .any(|wanted| name == *wanted || wanted.ends_with('/') && name.starts_with(wanted))
    };
    let wanted = all.iter().filter(|(path, _)| is_wanted(path));
    wanted
        .flat_map(|(path, needs)| std::iter::once(*path).chain(needs.split_whitespace()))
        .map(str::to_owned)
        .collect()
}

/// Copies a program, without what only a debugger wants, and the libraries that it needs.
fn program(path: &Path, name: &str, root: &Path) -> Result<()> {
    let target = root.join("usr/bin").join(name);
    command::run(Command::new("strip").arg("-o").arg(&target).arg(path))?;
    let libraries = command::run(Command::new("ldd").arg(path))?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().context("a library without a directory")?)?;
        fs::copy(library, target).with_context(|| format!("cannot copy {library}"))?;
    }
    Ok(())
}
