//! The walls between the crates: who may depend on whom, what the packet path builds without, and
//! which crates do no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::command::run;

/// The libraries of the node, each with those that it may depend on. Nothing else is allowed: above
/// all, `weir-dataplane` knows nothing of the configuration, the ledger, sessions, the control
/// plane, eBPF, the host or the policy, and `weir-config` knows nothing but the formats.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("weir-common", &[]),
    ("weir-packet", &["weir-common"]),
    ("weir-accounts", &["weir-common"]),
    ("weir-wireguard", &["weir-common"]),
    ("weir-nat", &["weir-common", "weir-packet"]),
    (
        "weir-dataplane",
        &["weir-accounts", "weir-common", "weir-nat", "weir-packet", "weir-wireguard"],
    ),
    ("weir-ebpf-loader", &["weir-accounts", "weir-common"]),
    ("weir-config", &["weir-common"]),
    ("weir-policy", &["weir-config"]),
    ("weir-ecash", &[]),
    ("weir-host", &["weir-config", "weir-packet", "weir-policy"]),
    ("weir-page", &[]),
    ("weir-promise", &[]),
    ("weir-receipt", &[]),
    ("weir-tls", &[]),
    ("weir-ledger", &["weir-common", "weir-promise", "weir-receipt", "weir-wireguard"]),
    (
        "weir-sessions",
        &[
            "weir-accounts",
            "weir-common",
            "weir-config",
            "weir-ledger",
            "weir-promise",
            "weir-wireguard",
        ],
    ),
    (
        "weir-control",
        &[
            "weir-accounts",
            "weir-common",
            "weir-config",
            "weir-ecash",
            "weir-ledger",
            "weir-market",
            "weir-page",
            "weir-policy",
            "weir-promise",
            "weir-receipt",
            "weir-sessions",
            "weir-tls",
            "weir-wireguard",
        ],
    ),
    ("weir-connect", &["weir-common", "weir-promise", "weir-receipt", "weir-wireguard"]),
    ("weir-market", &["weir-common", "weir-config", "weir-tls", "weir-wireguard"]),
    (
        "weir-registry",
        &["weir-common", "weir-config", "weir-market", "weir-page", "weir-wireguard"],
    ),
    ("weir-wallet", &["weir-config", "weir-ecash", "weir-tls"]),
    (
        "weir-watch",
        &["weir-buy", "weir-config", "weir-connect", "weir-market", "weir-tls", "weir-wallet"],
    ),
    (
        "weir-buy",
        &[
            "weir-common",
            "weir-config",
            "weir-ecash",
            "weir-market",
            "weir-wallet",
            "weir-wireguard",
        ],
    ),
    (
        TESTKIT,
        &[
            "weir-accounts",
            "weir-common",
            "weir-control",
            "weir-dataplane",
            "weir-packet",
            "weir-wireguard",
        ],
    ),
];

/// What is built from the libraries, with what it may depend on beside all of them.
const PROGRAMS: &[(&str, &[&str])] =
    &[("weir", &[]), ("weir-benches", &[]), ("weir-tests", &["weir"]), ("xtask", &[])];

/// Fuzz targets depend on what they fuzz.
const FUZZ: &[(&str, &[&str])] = &[
    ("weir-fuzz", &["weir-common", "weir-dataplane", "weir-nat", "weir-wireguard", TESTKIT]),
    (
        "weir-fuzz-text",
        &[
            "weir-config",
            "weir-control",
            "weir-ecash",
            "weir-fuzz",
            "weir-ledger",
            "weir-market",
            "weir-policy",
            "weir-promise",
            "weir-receipt",
            "weir-registry",
        ],
    ),
];

/// Tests of any crate may use it.
const TESTKIT: &str = "weir-testkit";

/// The packet path and its fuzz targets build without these.
const NOT_ON_THE_PATH: [&str; 7] =
    ["async-nats", "axum", "aya", "clap", "libsqlite3-sys", "ratatui", "rusqlite"];

/// Crates that do no I/O and read no clock: their directories, and the crates of others that they
/// may use, the optional ones for tests.
const PURE: [(&str, &str, &[&str]); 3] = [
    ("weir-common", "node-common", &[]),
    ("weir-packet", "node/packet", &["etherparse"]),
    ("weir-nat", "node/nat", &[]),
];

/// What their sources do not name.
const IMPURE: [&str; 12] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
];

/// For what a crate needs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The crate itself, or its build script.
    Build,
    /// Its tests.
    Tests,
}

/// The crates of the workspace and what each depends on, by its manifest.
type Graph = BTreeMap<String, BTreeSet<(Kind, String)>>;

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    Ok(root.to_owned())
}

fn cargo(arguments: &[&str]) -> Result<String> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(program).current_dir(root()?).args(arguments).arg("--offline"))
}

fn graph() -> Result<Graph> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let depends = |package: &Value| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.map(|dependency| {
            let is_for_tests = dependency["kind"].as_str() == Some("dev");
            (if is_for_tests { Kind::Tests } else { Kind::Build }, name(dependency))
        })
        .collect()
    };
    Ok(packages.iter().map(|package| (name(package), depends(package))).collect())
}

/// What a crate may depend on; `None` if it is in no list.
fn allowed(of: &str) -> Option<BTreeSet<&'static str>> {
    let find = |list: &'static [(&str, &[&'static str])]| {
        list.iter().find(|(name, _)| *name == of).map(|(_, allowed)| allowed.iter().copied())
    };
    if let Some(listed) = find(LIBRARIES).or_else(|| find(FUZZ)) {
        return Some(listed.collect());
    }
    find(PROGRAMS).map(|more| LIBRARIES.iter().map(|(name, _)| *name).chain(more).collect())
}

/// Every edge between our crates that is not allowed, and every crate that is in no list.
fn forbidden_edges(graph: &Graph) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (from, depends) in graph {
        let Some(allowed) = allowed(from) else {
            mistakes.push(format!("{from} is in no list of this test"));
            continue;
        };
        for (kind, to) in depends.iter().filter(|(_, to)| graph.contains_key(to)) {
            let is_for_tests = *kind == Kind::Tests && to == TESTKIT;
            if !allowed.contains(to.as_str()) && !is_for_tests {
                mistakes.push(format!("{from} must not depend on {to}"));
            }
        }
    }
    mistakes
}

/// Which of the crates that the packet path does without are in what `cargo tree` prints.
fn not_on_the_path(tree: &str) -> Vec<&str> {
    let names: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    NOT_ON_THE_PATH.into_iter().filter(|name| names.contains(name)).collect()
}

#[test]
fn no_crate_depends_on_one_that_it_must_not_know() -> Result<()> {
    let graph = graph()?;
    assert_eq!(forbidden_edges(&graph), Vec::<String>::new());
    let listed = LIBRARIES.iter().chain(PROGRAMS).chain(FUZZ);
    for (name, _) in listed {
        ensure!(graph.contains_key(*name), "{name} is listed here, but is no crate any more");
    }
    Ok(())
}

#[test]
fn an_edge_that_is_not_allowed_is_refused() -> Result<()> {
    let edges = [
        ("weir-dataplane", "weir-config"),
        ("weir-dataplane", "weir-ledger"),
        ("weir-dataplane", "weir-sessions"),
        ("weir-dataplane", "weir-control"),
        ("weir-dataplane", "weir-ebpf-loader"),
        ("weir-dataplane", "weir-host"),
        ("weir-dataplane", "weir-policy"),
        ("weir-dataplane", TESTKIT),
        ("weir-config", "weir-packet"),
        ("weir-ledger", "weir-sessions"),
        (TESTKIT, "weir"),
        ("weir-benches", "weir-tests"),
        ("weir-fuzz", "weir-control"),
    ];
    for (from, to) in edges {
        let mut graph = graph()?;
        let depends = graph.get_mut(from).context("no such crate")?;
        depends.insert((Kind::Build, to.to_owned()));
        assert_eq!(forbidden_edges(&graph), [format!("{from} must not depend on {to}")]);
    }
    let mut graph = graph()?;
    graph.insert("weir-new".to_owned(), BTreeSet::new());
    assert_eq!(forbidden_edges(&graph), ["weir-new is in no list of this test"]);
    Ok(())
}

#[test]
fn tests_may_use_the_testkit_and_nothing_else_from_above() -> Result<()> {
    let mut graph = graph()?;
    let depends = graph.get_mut("weir-dataplane").context("no such crate")?;
    depends.insert((Kind::Tests, TESTKIT.to_owned()));
    assert_eq!(forbidden_edges(&graph), Vec::<String>::new());
    let depends = graph.get_mut("weir-dataplane").context("no such crate")?;
    depends.insert((Kind::Tests, "weir-config".to_owned()));
    assert_eq!(forbidden_edges(&graph), ["weir-dataplane must not depend on weir-config"]);
    Ok(())
}

#[test]
fn the_packet_path_and_its_fuzz_targets_build_without_the_control_plane() -> Result<()> {
    for package in ["weir-dataplane", "weir-fuzz"] {
        let tree = cargo(&["tree", "-p", package, "-e", "normal,build", "--prefix", "none"])?;
        ensure!(tree.contains("weir-packet"), "no tree of {package}: {tree}");
        assert_eq!(not_on_the_path(&tree), Vec::<&str>::new(), "{package}");
    }
    // The same look at a crate that has some of them finds these.
    let tree = cargo(&["tree", "-p", "weir-control", "-e", "normal,build", "--prefix", "none"])?;
    assert_eq!(
        not_on_the_path(&tree),
        ["async-nats", "axum", "libsqlite3-sys", "rusqlite"],
        "weir-control"
    );
    Ok(())
}

#[test]
fn formats_and_packets_do_no_io_and_read_no_clock() -> Result<()> {
    let graph = graph()?;
    for (name, directory, may_use) in PURE {
        let depends = graph.get(name).with_context(|| format!("no crate {name}"))?;
        let depends = depends.iter().filter(|(kind, _)| *kind == Kind::Build);
        for (_, other) in depends.filter(|(_, other)| !graph.contains_key(other)) {
            ensure!(may_use.contains(&other.as_str()), "{name} must not depend on {other}");
        }
        let sources = sources(&root()?.join(directory).join("src"))?;
        ensure!(sources.len() > 3, "{directory} has no sources");
        for path in sources {
            let text = fs::read_to_string(&path)?;
            let named = impure(&text);
            ensure!(named.is_empty(), "{} names {named:?}", path.display());
        }
    }
    assert_eq!(
        impure("use std::{fs, net::UdpSocket};\nInstant::now()"),
        ["std::fs", "Instant::now", "UdpSocket",]
    );
    Ok(())
}

/// What of [`IMPURE`] a source names, also in the nested form of an import.
fn impure(text: &str) -> Vec<&'static str> {
    let imports: String = text
        .split("std::{")
        .skip(1)
        .filter_map(|rest| rest.split(';').next())
        .flat_map(|list| list.split(|letter: char| !letter.is_alphanumeric() && letter != '_'))
        .map(|word| format!("std::{word} "))
        .collect();
    let names =
        |name: &&str| text.contains(name) || imports.split(' ').any(|import| import == *name);
    IMPURE.into_iter().filter(names).collect()
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
