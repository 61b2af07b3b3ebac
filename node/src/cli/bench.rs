//! `weir bench`.

use std::{fmt::Write as _, fs, io, path::Path};

use anyhow::Context as _;

use super::out::Out;
use crate::bench::{self, DirectionReport, Report};
use weir_config::Config;
use weir_control::market::capacity_path;
use weir_market::listing::Capacity;

pub(super) fn run(
    file: Option<&Path>,
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let report = bench::run(&program, &mut |what| {
        // A progress line, so an error is ignored.
        err.text(&format!("measuring: {what}\n")).ok();
    })?;
    let stored = store(&capacity_path(&config), &report.listed);
    err.text(&format!("{stored}\n")).ok();
    if json {
        return out.json(&report);
    }
    out.text(&screen(&report))?;
    Ok(())
}

/// Leaves the capacity for the node's listing, and says so. Makes no directory: a machine that runs no
/// node has none.
fn store(path: &Path, capacity: &Capacity) -> String {
    let parent = path.parent().unwrap_or(path);
    if !parent.is_dir() {
        return format!("not stored for a listing: there is no directory {}", parent.display());
    }
    let written = serde_json::to_vec(capacity).map_err(io::Error::from).and_then(|json| {
        let temporary = path.with_extension("json.new");
        fs::write(&temporary, json)?;
        fs::rename(&temporary, path)
    });
    match written {
        Ok(()) => format!("stored for the node's listing in {}", path.display()),
        Err(error) => format!("not stored for a listing: {}: {error}", path.display()),
    }
}

fn screen(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        // Writing to a string cannot fail.
        writeln!(text, "{what:<22}{value}").ok();
    };
    let pairs = report.cores.iter().zip(&report.cipher_bits_per_second);
    let cipher: Vec<_> =
        pairs.map(|(core, rate)| format!("core {core}: {}", gigabits(*rate))).collect();
    line("ring's cipher alone", &cipher.join(", "));
    line("the node's cipher", &report.cipher_path);
    let how = format!("{}, XDP {}, receive {}", report.io, report.xdp_mode, report.receive);
    line("data plane", &format!("{how}, one worker"));
    direction(&mut line, "up (to internet)", &report.up);
    direction(&mut line, "down (to consumer)", &report.down);
    match &report.nic {
        Some(nic) => {
            let driver = nic.driver.as_deref().unwrap_or("driver unknown");
            let speed = nic.bits_per_second.map_or("line rate unknown".to_owned(), gigabits);
            let queues = nic.receive_queues;
            line("uplink", &format!("{}, {driver}, {speed}, {queues} receive queues", nic.name));
            nic.offloads.iter().for_each(|offload| line("", offload));
        }
        None => line("uplink", "none found"),
    }
    if report.steal_ratio > 0.01 {
        let share = report.steal_ratio * 100.0;
        line("steal", &format!("{share:.0} % of the time, the hypervisor ran others on this core"));
    }
    line(
        "capacity to announce",
        &format!("{} ({})", gigabits(report.capacity_bits_per_second), report.capacity_basis),
    );
    text
}

fn direction(line: &mut impl FnMut(&str, &str), name: &str, direction: &DirectionReport) {
    line(
        name,
        &format!(
            "{} per core, {} excluding the kernel's receive path ({:.0} % of the cipher)",
            gigabits(direction.per_core_second),
            gigabits(direction.per_worker_second),
            direction.cipher_ratio * 100.0
        ),
    );
}

fn gigabits(rate: f64) -> String {
    format!("{:.2} Gbit/s", rate / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capacity_and_its_reason_are_on_the_screen() {
        let direction = DirectionReport {
            per_worker_second: 5e9,
            per_core_second: 4e9,
            cipher_ratio: 0.5,
            ..DirectionReport::default()
        };
        let report = Report {
            cores: vec![0, 1],
            cipher_bits_per_second: vec![1e10, 1.1e10],
            cipher_path: "avx512".into(),
            xdp_mode: "native".into(),
            io: "uring".into(),
            receive: "af_xdp".into(),
            up: direction,
            down: direction,
            nic: None,
            capacity_bits_per_second: 5.6e9,
            listed: Capacity { up: 5600, down: 5600, measured_at: 1 },
            capacity_basis: "2 cores at 70 %".into(),
            steal_ratio: 0.2,
        };
        let text = screen(&report);
        for part in [
            "the node's cipher     avx512",
            "core 0: 10.00 Gbit/s, core 1: 11.00 Gbit/s",
            "4.00 Gbit/s per core, 5.00 Gbit/s excluding the kernel's receive path (50 % of",
            "capacity to announce  5.60 Gbit/s (2 cores at 70 %)",
            "data plane            uring, XDP native, receive af_xdp, one worker",
            "steal                 20 %",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(text.lines().count() <= 24);
    }

    #[test]
    fn the_capacity_is_stored_where_a_node_has_its_state_and_no_directory_is_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let capacity = Capacity { up: 1, down: 2, measured_at: 3 };
        let path = directory.path().join("bench.json");
        assert!(store(&path, &capacity).starts_with("stored"));
        let read = serde_json::from_slice::<Capacity>(&fs::read(&path).expect("there"));
        assert_eq!(read.expect("JSON"), capacity);
        let missing = directory.path().join("none/bench.json");
        assert!(store(&missing, &capacity).contains("there is no directory"));
        assert!(!missing.parent().expect("a parent").exists());
    }
}
