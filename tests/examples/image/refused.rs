//! What a node says where it is refused what compose.yaml gives it.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use anyhow::{Result, ensure};
use serde_json::json;
use weir_tests::Lab;

use crate::{
    compose::{self, Service},
    container::{Container, Image},
    machine, status, unchanged,
};

/// Starts containers that lack something.
pub(crate) fn try_all(lab: &Lab, image: &Image<'_>, before: &str) -> Result<()> {
    let service = compose::service()?;
    for (option, file) in
        [("systempaths=unconfined", "/proc/sys/net"), ("apparmor=unconfined", "/proc/sys/net")]
    {
        let mut container = Container::start(image, &service.without(option)?, "confined")?;
        let ended = container.wait_for_end()?;
        let log = container.log();
        ensure!(!ended.success() && log.contains(file), "ended with {ended}, and said {log}");
        unchanged(lab, before)?;
        println!("without {option}: {}", log.lines().last().unwrap_or_default());
    }
    no_io_uring(lab, image, &service, before)
}

/// While a container runs, another one on the same machine says so, and hurts it not.
pub(crate) fn a_second_one(image: &Image<'_>, service: &Service) -> Result<()> {
    let mut other = Container::start(image, service, "other")?;
    let ended = other.wait_for_end()?;
    let log = other.log();
    let said = "another weir runs with /run/weir";
    ensure!(!ended.success() && log.contains(said), "ended with {ended}, and said {log}");
    println!("a second container beside it: {}", log.lines().last().unwrap_or_default());
    Ok(())
}

/// As with Docker's own seccomp profile.
fn no_io_uring(lab: &Lab, image: &Image<'_>, service: &Service, before: &str) -> Result<()> {
    let names = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    let mut container = Container::start_with(image, service, "no-io-uring", |spec| {
        let rules = spec["linux"]["seccomp"]["syscalls"].as_array_mut();
        let rules = rules.expect("it was made of rules");
        for rule in &mut *rules {
            if let Some(list) = rule["names"].as_array_mut() {
                list.retain(|name| !names.iter().any(|refused| name == refused));
            }
        }
        rules.push(json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }));
    })?;
    container.wait_healthy()?;
    let status = status(&container)?;
    ensure!(status["io"] != "uring", "{status}");
    ensure!(machine::state(lab)? != before, "the node changes nothing on its machine");
    println!("without io_uring it serves with io {}", status["io"]);
    let ended = container.stop()?;
    ensure!(ended.success(), "ended with {ended}\n{}", container.log());
    unchanged(lab, before)
}
