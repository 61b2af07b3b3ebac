//! weir's development tasks: `cargo xtask <task>`.

mod bench;
mod build_ebpf;
mod check_dependencies;
mod check_ebpf;
mod deb;
mod demo;
mod image_test;
mod kernel_test;
mod package_test;
mod setup;
mod test;
mod tools;
mod workspace;

use clap::{Parser, Subcommand};

use self::{demo::Scene, image_test::Program};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "weir's development tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run weir between a WireGuard client and the internet, in network namespaces, and show what
    /// it does
    Demo {
        /// Show the market instead: a registry, a mint, three exits, and a consumer who buys
        #[arg(long)]
        market: bool,
        /// Write the results to a file too
        #[arg(long, value_name = "FILE")]
        json: Option<std::path::PathBuf>,
        /// How long each of the bulk transfers lasts
        #[arg(long, default_value_t = 5, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
    },
    /// Run all tests; what follows `--` goes to `cargo test`
    ///
    /// The program under test is built with the tests: it has overflow checks and debug assertions.
    Test {
        /// Test the program as it is shipped instead
        #[arg(long)]
        release: bool,
        /// Compile everything with Clippy's lints, as errors
        #[arg(long)]
        lints: bool,
        /// For `cargo test`, such as `--test e2e` or the name of a test
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Compare weir with other WireGuard implementations, in network namespaces
    Bench {
        /// For the comparison; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the Debian packages weir and weir-connect, with manual pages and completions
    Deb {
        /// Which of cargo's profiles
        #[arg(long, default_value = "release", value_name = "PROFILE")]
        profile: String,
    },
    /// Install the packages in a fresh Debian 12, use them, purge them, and look for what is left
    PackageTest {
        /// Which of cargo's profiles
        #[arg(long, default_value = "release", value_name = "PROFILE")]
        profile: String,
    },
    /// Build the container image, run it as compose.yaml says, kill it, stop it, and look for what
    /// is left
    ///
    /// Needs no container engine and no registry: buildah builds, runc runs.
    ImageTest {
        /// Which of cargo's profiles
        #[arg(long, default_value = "release", value_name = "PROFILE", conflicts_with = "build")]
        profile: String,
        /// Compile weir in the image, as Docker would, in place of on this machine
        #[arg(long)]
        build: bool,
    },
    /// Boot Debian's kernels in emulated machines, run the node there, and show what each lacks
    ///
    /// The kernels of Debian 12 and of the backports of 12 and 13 are fetched once, into the target
    /// directory. Needs no KVM: the machines are emulated in software, which takes minutes.
    KernelTest {
        /// Which of cargo's profiles
        #[arg(long, default_value = "release", value_name = "PROFILE")]
        profile: String,
        /// Write the results to a file too
        #[arg(long, value_name = "FILE")]
        json: Option<std::path::PathBuf>,
        /// Replace the table in docs/kernels.md
        #[arg(long)]
        docs: bool,
    },
    /// Install what the demo and the tests need, from Debian packages
    Setup,
    /// Compile the eBPF programs into the objects that weir and its benchmarks embed
    BuildEbpf,
    /// Compile the eBPF programs again and compare them with the committed objects
    CheckEbpf,
    /// Look for unused dependencies, and for licences and sources that deny.toml does not allow
    CheckDependencies,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Demo { market, json, seconds } => {
            let scene = if market { Scene::Market } else { Scene::Node };
            demo::run(scene, json.as_deref(), seconds)
        }
        Task::Test { release, lints, arguments } => {
            let lints = if lints { test::Lints::Denied } else { test::Lints::Usual };
            let program = if release { test::Program::Release } else { test::Program::Dev };
            test::run(program, lints, &arguments)
        }
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Deb { profile } => deb::run(&profile),
        Task::PackageTest { profile } => package_test::run(&profile),
        Task::ImageTest { profile, build } => {
            let program = if build { Program::Built } else { Program::Ready };
            image_test::run(&profile, program)
        }
        Task::KernelTest { profile, json, docs } => {
            kernel_test::run(&profile, json.as_deref(), docs)
        }
        Task::Setup => setup::run(),
        Task::BuildEbpf => build_ebpf::run(),
        Task::CheckEbpf => check_ebpf::run(),
        Task::CheckDependencies => check_dependencies::run(),
    }
}
