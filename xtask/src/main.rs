//! weir's development tasks: `cargo xtask <task>`.

mod build_ebpf;
mod check_ebpf;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("build-ebpf") => build_ebpf::run(),
        Some("check-ebpf") => check_ebpf::run(),
        _ => anyhow::bail!("tasks: build-ebpf, check-ebpf"),
    }
}
