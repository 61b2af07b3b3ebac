//! What packages ship says what is true: example configurations, container files, documents.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_shipped_configurations_have_no_mistake() -> Result<()> {
    let mut files = vec![root().join("packaging/weir.toml")];
    for entry in fs::read_dir(root().join("packaging/examples"))? {
        files.push(entry?.path());
    }
    ensure!(files.len() >= 3, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file)?;
        let checked = weir_config::check(&text, None);
        ensure!(checked.is_ok(), "{}: {checked:?}", file.display());
    }
    // The one for a home fits PPPoE and does not need less.
    let home = fs::read_to_string(root().join("packaging/examples/home.toml"))?;
    ensure!(weir_config::check(&home, Some(1492)).is_ok(), "too large for PPPoE");
    ensure!(weir_config::check(&home, Some(1491)).is_err(), "smaller than PPPoE needs");
    Ok(())
}

/// Whether a rule refuses what has all bits of a mask in its first argument.
fn ensure_masked(rule: &Value) -> Result<()> {
    let mask = &rule["args"][0];
    ensure!(rule["action"] == "SCMP_ACT_ERRNO" && mask["index"] == 0, "{rule}");
    ensure!(mask["op"] == "SCMP_CMP_MASKED_EQ", "{rule}");
    Ok(())
}

#[test]
fn the_container_allows_what_a_node_uses() -> Result<()> {
    let text = fs::read_to_string(root().join("packaging/docker/seccomp.json"))?;
    let profile: Value = serde_json::from_str(&text)?;
    ensure!(profile["defaultAction"] == "SCMP_ACT_ALLOW", "{profile}");
    let names = |action: &str| -> Vec<String> {
        let rules = profile["syscalls"].as_array().cloned().unwrap_or_default();
        let rules = rules.iter().filter(|rule| rule["action"] == action);
        let names = rules.flat_map(|rule| rule["names"].as_array().cloned().unwrap_or_default());
        names.filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let (allowed, refused) = (names("SCMP_ACT_ALLOW"), names("SCMP_ACT_ERRNO"));
    // What a node says that it misses without io_uring, and what doctor says to allow.
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register", "bpf"] {
        ensure!(allowed.contains(&call.to_owned()), "{call} is not allowed");
    }
    for call in ["mount", "mount_setattr", "fsconfig", "fspick", "ptrace", "pidfd_send_signal"]
        .into_iter()
        .chain(["init_module", "unshare", "setns"])
    {
        ensure!(refused.contains(&call.to_owned()), "{call} is not refused");
    }
    // Namespaces by way of a new process: each flag of `clone`, and all of `clone3`.
    let rules = profile["syscalls"].as_array().context("no rules")?;
    let of = |name: &'static str| rules.iter().filter(move |rule| rule["names"][0] == name);
    let flags = of("clone").filter_map(|rule| {
        let mask = &rule["args"][0];
        ensure_masked(rule).ok()?;
        mask["value"].as_u64().filter(|bit| mask["valueTwo"] == *bit)
    });
    let flags: u64 = flags.fold(0, |all, bit| all | bit);
    ensure!(flags == 0x7e02_0000, "only {flags:#x} of the flags that make namespaces");
    let clone3 = of("clone3").next().context("clone3 is not refused")?;
    ensure!(clone3["errnoRet"] == 38, "the C library falls back at ENOSYS: {clone3}");
    ensure!(!allowed.iter().any(|call| refused.contains(call)), "{allowed:?} {refused:?}");

    let compose = fs::read_to_string(root().join("packaging/docker/compose.yaml"))?;
    for line in ["- seccomp=seccomp.json", "- /dev/net/tun", "- NET_ADMIN", "- BPF", "- PERFMON"] {
        ensure!(compose.lines().any(|is| is.trim() == line), "compose.yaml has no {line:?}");
    }
    // The runtimes mount nothing there: what is written there takes systempaths=unconfined.
    ensure!(!compose.contains(":/proc/"), "a volume below /proc");
    // What says how to undo the changes on the machine outlives the container, as they do.
    ensure!(compose.lines().any(|line| line.trim() == "- /run/weir:/run/weir"), "{compose}");
    ensure!(compose.lines().any(|line| line.trim() == "- systempaths=unconfined"), "{compose}");
    // docker-default denies writes below /proc/sys/net and /sys/fs/bpf.
    ensure!(compose.lines().any(|line| line.trim() == "- apparmor=unconfined"), "{compose}");
    let file = fs::read_to_string(root().join("packaging/docker/Dockerfile"))?;
    ensure!(file.contains("nftables") && file.contains("ENTRYPOINT [\"/usr/bin/weir\"]"));
    Ok(())
}

/// The lines of a systemd unit that set this, in order.
fn settings_of<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
}

#[test]
fn neither_the_unit_nor_the_container_leaves_a_core() -> Result<()> {
    let unit = fs::read_to_string(root().join("packaging/systemd/weir.service"))?;
    ensure!(settings_of(&unit, "LimitCORE") == ["0"], "{unit}");
    let compose = fs::read_to_string(root().join("packaging/docker/compose.yaml"))?;
    let (_, limits) = compose.split_once("    ulimits:\n").context("no ulimits")?;
    let mut limits = limits.lines().take_while(|line| line.starts_with("      "));
    ensure!(limits.any(|line| line.trim() == "core: 0"), "{compose}");
    Ok(())
}

/// `docs/guarantees.md` is a list: each guarantee is an item, and the tests that prove it are items
/// below it, as `file.rs::name`. The file is below `tests/tests` or has its whole path.
#[test]
fn each_guarantee_names_a_test_that_there_is() -> Result<()> {
    let text = fs::read_to_string(root().join("docs/guarantees.md"))?;
    let guarantees = guarantees(&text)?;
    ensure!(guarantees.len() >= 80, "only {} guarantees", guarantees.len());
    for (guarantee, tests) in guarantees {
        ensure!(!tests.is_empty(), "no test proves: {guarantee}");
        for test in tests {
            let (file, name) = test.split_once("::").context("no name")?;
            let short = root().join("tests/tests").join(file);
            let path = if short.exists() { short } else { root().join(file) };
            let code = fs::read_to_string(&path).with_context(|| format!("no file of {test}"))?;
            ensure!(code.contains(&format!("fn {name}(")), "there is no test {test}");
        }
    }
    Ok(())
}

/// The guarantees of a list, with the tests of each.
fn guarantees(text: &str) -> Result<Vec<(&str, Vec<&str>)>> {
    let mut guarantees: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        ensure!(!line.starts_with('|'), "a guarantee is an item of the list, not a row: {line}");
        if let Some(guarantee) = line.strip_prefix("- ") {
            guarantees.push((guarantee, Vec::new()));
        } else if let Some(item) = line.strip_prefix("  - ") {
            let test = item.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
            let test = test.filter(|test| test.contains(".rs::"));
            let test = test.with_context(|| format!("this is not `file.rs::name`: {item}"))?;
            guarantees.last_mut().context("a test before any guarantee")?.1.push(test);
        }
    }
    Ok(guarantees)
}

#[test]
fn a_guarantee_without_a_readable_test_is_not_overlooked() -> Result<()> {
    let listed = guarantees("- One.\n  - `a.rs::b`\n  - `c.rs::d`\n- Two,\n  goes on.\n")?;
    ensure!(listed == [("One.", vec!["a.rs::b", "c.rs::d"]), ("Two,", vec![])], "{listed:?}");
    for bad in ["| One | `a.rs::b` |", "- One.\n  - a.rs::b", "- One.\n  - `b`", "  - `a.rs::b`"] {
        ensure!(guarantees(bad).is_err(), "taken: {bad}");
    }
    Ok(())
}
