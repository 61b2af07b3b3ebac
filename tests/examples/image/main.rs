//! The container image as compose.yaml runs it: health, privileges, traffic, `wg show` from outside,
//! a clean stop, a killed container and the next one. `cargo xtask image-test` makes the image and
//! runs this. runc, by which Docker starts containers, has what the compose file says, in a network
//! namespace of the lab.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

mod compose;
mod container;
mod machine;
mod spec;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Client, Lab, lab::SERVERS, node::Session, suite::everything_passes,
};

use self::container::{Container, Image};

/// What docs/privileges.md says that a running node has: NET_BIND_SERVICE, NET_ADMIN and BPF.
const CAPABILITIES: &str = "0000008000001400";

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut argument =
        || arguments.next().context("give the image's files, its config, a directory");
    let (root, config, work) = (argument()?, argument()?, argument()?);
    let inspected: Value = serde_json::from_str(&fs::read_to_string(config)?)?;
    machine::boot(&work)?;
    let lab = Lab::new()?;
    let image = Image {
        root,
        config: inspected["Docker"]["config"].clone(),
        service: compose::service()?,
        network: &lab.node,
        work,
    };
    let before = machine::state(&lab)?;
    serve_and_stop(&lab, &image, &before)?;
    Ok(())
}

/// A container serves, is killed, and the next one serves on and leaves nothing.
fn serve_and_stop(lab: &Lab, image: &Image<'_>, before: &str) -> Result<()> {
    let mut first = Container::start(image, "first")?;
    first.wait_healthy()?;
    println!("the image's health check passes");
    privileges(&first)?;
    let config = first.exec(&["weir", "session", "add", "--name", "alice"])?;
    let client = Client::connect(&lab.consumer, &config)?;
    client.wait_connected(SERVERS[0])?;
    everything_passes(lab, &client)?;
    println!("a consumer's pings, TCP and UDP pass, both families");
    seen_outside(lab, &first)?;
    let counted = sessions(&first)?;
    let changed = machine::state(lab)?;
    ensure!(changed != before, "the node changes nothing on its machine:\n{before}");

    first.kill()?;
    let left = machine::listing("/run/weir");
    println!("killed; left in /run/weir: {}", left.replace('\n', " "));
    drop(first);
    let mut second = Container::start(image, "second")?;
    second.wait_healthy()?;
    let kept = sessions(&second)?;
    ensure!(kept.len() == 1 && kept[0].id == counted[0].id, "{counted:?}\n{kept:?}");
    ensure!(kept[0].bytes_up >= counted[0].bytes_up, "{counted:?}\n{kept:?}");
    ensure!(kept[0].bytes_down >= counted[0].bytes_down, "{counted:?}\n{kept:?}");
    everything_passes(lab, &client)?;
    seen_outside(lab, &second)?;
    println!("a new container has the session and its counts, and the consumer goes on");

    let status = second.stop()?;
    ensure!(status.success(), "ended with {status}\n{}", second.log());
    let after = machine::state(lab)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}\n{}", second.log());
    println!("stopped: no rule, interface, switch, pin or file is left on the machine");
    Ok(())
}

fn privileges(container: &Container<'_>) -> Result<()> {
    let status: Value = serde_json::from_str(&container.exec(&["weir", "status", "--json"])?)?;
    println!("sandbox: {}", status["sandbox"]);
    ensure!(status["xdp_mode"] == "native" && status["io"] == "uring", "{status}");
    let sandbox = status["sandbox"].as_str().context("no sandbox")?;
    ensure!(sandbox.ends_with("no new privileges; Landlock; seccomp"), "{sandbox}");
    let pid = container.pid()?;
    let process = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let all = [
        "Uid:\t0\t0\t0\t0".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
        "CapAmb:\t0000000000000000".to_owned(),
    ];
    for line in ["CapEff", "CapPrm", "CapBnd"]
        .map(|name| format!("{name}:\t{CAPABILITIES}"))
        .iter()
        .chain(&all)
    {
        ensure!(process.contains(line), "no {line} in {process}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let limit = |name: &str| -> Result<Vec<&str>> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).context("no limit")?;
        Ok(line.split_whitespace().take(2).collect())
    };
    for (name, value) in spec::limits(&container.image().service)? {
        let line = if name == "core" { "Max core file size" } else { "Max locked memory" };
        let value = if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        ensure!(limit(line)? == [&value, &value], "{name} is not {value}: {limits}");
    }
    println!("its process is root with capabilities {CAPABILITIES}, and leaves no core");
    Ok(())
}

/// `wg show` on the machine sees the node and its consumer.
fn seen_outside(lab: &Lab, container: &Container<'_>) -> Result<()> {
    let shown = lab.node.run("wg show weir0 transfer")?;
    let key = sessions(container)?.first().context("no session")?.public_key.clone();
    let line = shown.lines().find(|line| line.starts_with(&key));
    println!("wg show on the machine: {}", line.with_context(|| format!("no {key} in {shown}"))?);
    Ok(())
}

fn sessions(container: &Container<'_>) -> Result<Vec<Session>> {
    let said = container.exec(&["weir", "session", "list", "--json"])?;
    let mut said: Value = serde_json::from_str(&said)?;
    Ok(serde_json::from_value(said["sessions"].take())?)
}
