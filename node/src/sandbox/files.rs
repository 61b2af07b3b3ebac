//! The files that stay within reach: Landlock.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus,
};

use weir_config::Config;
use weir_control::resolver::FileAccess;

/// The newest rights on files that weir knows of; kernels with fewer have what they have.
const KNOWN: ABI = ABI::V5;

/// Programs (`nft`) and their libraries.
const RUN: &[&str] = &["/usr", "/lib", "/lib64", "/bin", "/sbin"];

/// What is read only: the kernel's files, and what names hosts and groups. Not all of /etc: there
/// are secrets in it.
const READ: &[&str] = &[
    "/proc",
    "/sys",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/gai.conf",
    "/etc/iproute2",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/dev/urandom",
];

/// What is written besides the node's own directories: switches, pins, nothing.
const WRITE: &[&str] = &["/proc/sys/net", "/sys/fs/bpf", "/dev/null"];

/// What stays within reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedPaths {
    /// Programs may be started from here.
    pub run: Vec<PathBuf>,
    /// May be read.
    pub read: Vec<PathBuf>,
    /// May be read, written, made and removed.
    pub write: Vec<PathBuf>,
    /// Those of the files above that stay within reach only until another takes their place: the
    /// directories that they are in hold others' files.
    pub fixed: Vec<PathBuf>,
}

impl AllowedPaths {
    /// What a node with this configuration, from this file, needs while it runs, reloads and stops.
    #[must_use]
    pub fn new(config: &Config, file: Option<&Path>) -> Self {
        let all = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut allowed =
            Self { run: all(RUN), read: all(READ), write: all(WRITE), fixed: Vec::new() };
        // An editor puts a new file in the place of the old one, hence the directory.
        let file = file.and_then(|file| std::path::absolute(file).ok());
        allowed.read.extend(file.iter().map(|file| beside(file)));
        allowed.fixed.extend(file.filter(|file| beside(file) == *file));
        let node = &config.node;
        allowed.write.extend([node.state_dir.clone(), node.runtime_dir.clone()]);
        if !config.api.wg_directory.is_empty() {
            allowed.write.push(config.api.wg_directory.clone().into());
        }
        let policy = &config.policy;
        for list in [&policy.allow_files, &policy.block_files, &policy.blocked_port_files] {
            allowed.read.extend(list.iter().map(|file| beside(file)));
            allowed.fixed.extend(list.iter().filter(|file| beside(file) == **file).cloned());
        }
        let places = &config.market.place_files;
        allowed.read.extend(places.iter().map(|file| beside(file)));
        allowed.fixed.extend(places.iter().filter(|file| beside(file) == **file).cloned());
        let ledger = &config.ledger;
        let written = [
            node.private_key_file.as_path(),
            &config.api.token_file,
            &config.api.socket,
            &config.cashu.key_file,
            &config.market.key_file,
            Path::new(&ledger.usage_file),
        ];
        let read = [
            ledger.webhook_secret_file.as_path(),
            Path::new(&ledger.webhook_ca_file),
            Path::new(&config.payment.approve_ca_file),
            Path::new(&config.cashu.ca_file),
            Path::new(&config.purchase.relay_ca_file),
            Path::new(&config.purchase.certificate_file),
            Path::new(&config.purchase.certificate_key_file),
            Path::new(&config.market.ca_file),
            Path::new(&config.fleet.credentials_file),
            Path::new(&config.fleet.token_file),
            Path::new(&config.fleet.ca_file),
        ];
        for (files, path) in [(&written[..], &mut allowed.write), (&read, &mut allowed.read)] {
            for file in files.iter().filter(|file| !file.as_os_str().is_empty()) {
                path.push(beside(file));
                allowed.fixed.extend((beside(file) == **file).then(|| file.to_path_buf()));
            }
        }
        // The files of certificates are often links to where the newest are.
        let purchase = &config.purchase;
        for file in [&purchase.certificate_file, &purchase.certificate_key_file] {
            let target = std::fs::canonicalize(file).ok();
            allowed.read.extend(target.filter(|it| it != Path::new(file)).map(|it| beside(&it)));
        }
        allowed
    }

    /// What the process that looks names up needs: the C library's modules, and `/etc` if its
    /// permissions keep what is secret there from the process.
    pub(super) fn of_resolver(access: FileAccess) -> Self {
        let all = RUN.iter().chain(READ);
        let mut read: Vec<PathBuf> = all.map(PathBuf::from).collect();
        if access == FileAccess::All {
            read.extend(["/etc", "/run/NetworkManager", "/run/connman"].map(PathBuf::from));
        }
        Self { read, ..Self::default() }
    }
}

/// The directory of a file, unless that holds others' files: then the file alone.
fn beside(file: &Path) -> PathBuf {
    let shared = ["", "/", "/etc", "/root", "/home", "/tmp", "/var", "/var/lib", "/run"];
    match file.parent() {
        Some(parent) if !shared.iter().any(|path| parent == Path::new(path)) => parent.into(),
        _ => file.into(),
    }
}

/// Confines this thread, and what it starts, to these paths.
pub(super) fn restrict(allowed: &AllowedPaths) -> anyhow::Result<String> {
    let all = AccessFs::from_all(KNOWN);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(Ruleset::create)
        .context("the kernel does not accept the rules")?;
    for (paths, access) in [
        (&allowed.run, read | AccessFs::Execute),
        (&allowed.read, read),
        (&allowed.write, all & !BitFlags::from(AccessFs::Execute)),
    ] {
        for path in paths {
            rules = allow(rules, path, access)?;
        }
    }
    match rules.restrict_self().context("the kernel does not accept the rules")?.ruleset {
        RulesetStatus::NotEnforced => bail!(
            "this kernel has none: boot it with lsm=landlock,... (or a seccomp filter around weir \
             refuses it)"
        ),
        RulesetStatus::PartiallyEnforced => Ok("Landlock (partial on this kernel)".into()),
        RulesetStatus::FullyEnforced => Ok("Landlock".into()),
    }
}

/// What is not there needs no rule.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> anyhow::Result<RulesetCreated> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    // Only directories have rights on what is in them.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
    let rule = PathBeneath::new(opened, access);
    rules
        .add_rule(rule)
        .with_context(|| format!("the kernel does not accept a rule for {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_configuration_is_within_reach() {
        let allowed = AllowedPaths::new(&Config::default(), None);
        let mut seen = 0;
        for line in weir_config::default_text().lines() {
            let Some((key, value)) = line.split_once(" = \"/") else { continue };
            let path = PathBuf::from(format!("/{}", value.trim_end_matches('"')));
            let reached = allowed.write.iter().any(|path| path.starts_with(path));
            assert!(reached, "{key} = {path:?} is out of reach: {allowed:?}");
            seen += 1;
        }
        assert!(seen >= 6, "only {seen} paths in the default configuration");
    }

    #[test]
    fn the_places_follow_from_the_configuration() {
        let mut config = Config::default();
        config.ledger.usage_file = "/srv/usage/weir.ndjson".into();
        config.api.token_file = "/etc/token".into();
        config.fleet.ca_file = "/etc/ssl/certs/fleet.pem".into();
        let allowed = AllowedPaths::new(&config, Some(Path::new("/etc/weir/weir.toml")));
        let authorities = PathBuf::from("/etc/ssl/certs");
        assert!(allowed.read.contains(&authorities) && !allowed.write.contains(&authorities));
        for path in ["/var/lib/weir", "/run/weir", "/srv/usage", "/etc/token"] {
            assert!(allowed.write.contains(&path.into()), "{path}: {allowed:?}");
        }
        assert!(allowed.read.contains(&"/etc/weir".into()), "{allowed:?}");
        for shared in ["/", "/etc", "/tmp", "/run"] {
            let all = [&allowed.run, &allowed.read, &allowed.write];
            assert!(!all.iter().any(|list| list.contains(&shared.into())), "{shared}");
        }
        let elsewhere = AllowedPaths::new(&Config::default(), Some(Path::new("/etc/weir.toml")));
        assert!(elsewhere.read.contains(&"/etc/weir.toml".into()), "{elsewhere:?}");
        // What an editor replaces there is out of reach, which is said at the start.
        config.policy.block_files = vec!["/etc/block".into(), "/etc/weir/block".into()];
        let allowed = AllowedPaths::new(&config, Some(Path::new("/etc/weir.toml")));
        let fixed = ["/etc/weir.toml", "/etc/block", "/etc/token"].map(PathBuf::from);
        assert_eq!(allowed.fixed, fixed);
        assert_eq!(AllowedPaths::new(&Config::default(), None).fixed, Vec::<PathBuf>::new());
    }
}
