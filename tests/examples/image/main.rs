//! The container image as compose.yaml runs it: health, privileges, traffic, `wg show` from outside,
//! a killed container and the next one, a configuration, a clean stop, and what is said where Docker
//! would refuse something. `cargo xtask image-test` makes the image and runs this. runc, by which
//! Docker starts containers, has what the compose file says, in a network namespace of the lab.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

mod compose;
mod container;
mod machine;
mod refused;
mod spec;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{Client, Lab, lab::SERVERS, node::Session, steps::everything_passes, until};

use self::container::{Container, Image};

/// What docs/privileges.md says that a running node has: NET_BIND_SERVICE, NET_ADMIN and BPF.
const CAPABILITIES: &str = "0000008000001400";
/// On the machine.
const CONFIG: &str = "/etc/weir/weir.toml";
/// A host to look up, by a process that is another user.
const WEBHOOK: &str = "[ledger]\nwebhook = \"http://usage.example:8080/\"\n\
                       webhook_secret_file = \"/etc/weir/webhook.secret\"\n";

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut argument =
        || arguments.next().context("give the image's files, its config, a directory");
    let (root, config, work) = (argument()?, argument()?, argument()?);
    let inspected: Value = serde_json::from_str(&fs::read_to_string(config)?)?;
    machine::boot(&work)?;
    let lab = Lab::new()?;
    let config = inspected["Docker"]["config"].clone();
    let image = Image { root, config, network: &lab.node, work };
    let before = machine::state(&lab)?;
    serve(&lab, &image, &before)?;
    refused::try_all(&lab, &image, &before)
}

/// A container serves, is killed, and the next one serves on and leaves nothing.
fn serve(lab: &Lab, image: &Image<'_>, before: &str) -> Result<()> {
    let service = compose::service()?;
    let mut first = Container::start(image, &service, "first")?;
    first.wait_healthy()?;
    println!("the image's health check passes");
    privileges(&first)?;
    let config = first.exec(&["weir", "session", "add", "--name", "alice"])?;
    let client = Client::connect(&lab.consumer, &config)?;
    client.wait_connected(SERVERS[0])?;
    everything_passes(lab, &client)?;
    println!("a consumer's pings, TCP and UDP pass, both families");
    seen_outside(lab, &first)?;
    let list = machine::listing("/run/weir");
    ensure!(list.contains("changes.json\n"), "no list of changes on the machine: {list}");
    refused::a_second_one(image, &service)?;
    client.ping(SERVERS[0], 3)?;

    let counted = sessions(&first)?;
    ensure!(machine::state(lab)? != before, "the node changes nothing on its machine:\n{before}");
    first.kill()?;
    drop(first);
    ensure!(machine::state(lab)? != before, "a killed node has undone its changes");
    fs::create_dir_all("/etc/weir")?;
    fs::write("/etc/weir/webhook.secret", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")?;
    configure(17)?;
    let mut second = Container::start(image, &compose::configured()?, "second")?;
    second.wait_healthy()?;
    let kept = sessions(&second)?;
    ensure!(kept.len() == 1 && kept[0].id == counted[0].id, "{counted:?}\n{kept:?}");
    ensure!(kept[0].bytes_up >= counted[0].bytes_up, "{counted:?}\n{kept:?}");
    ensure!(kept[0].bytes_down >= counted[0].bytes_down, "{counted:?}\n{kept:?}");
    everything_passes(lab, &client)?;
    seen_outside(lab, &second)?;
    println!("killed: the next container has the session and its counts, and the consumer goes on");
    configured(&second)?;
    client.ping(SERVERS[0], 3)?;
    let status = second.stop()?;
    ensure!(status.success(), "ended with {status}\n{}", second.log());
    unchanged(lab, before).with_context(|| second.log())?;
    println!("stopped: no rule, interface, switch, pin or file is left on the machine");
    Ok(())
}

/// Nothing of a node may be left on the machine.
fn unchanged(lab: &Lab, before: &str) -> Result<()> {
    let after = machine::state(lab)?;
    let only = |here: &str, there: &str| -> String {
        let there: Vec<_> = there.lines().collect();
        here.lines().filter(|line| !there.contains(line)).map(|line| format!("{line}\n")).collect()
    };
    let (lost, new) = (only(before, &after), only(&after, before));
    ensure!(after == before, "gone from the machine:\n{lost}left on it:\n{new}");
    Ok(())
}

fn privileges(container: &Container<'_>) -> Result<()> {
    let status = status(container)?;
    println!("sandbox: {}", status["sandbox"]);
    for (name, value) in [("xdp_mode", "native"), ("io", "uring"), ("receive", "af_xdp")] {
        ensure!(status[name] == value, "{name} is {}\n{}", status[name], container.log());
    }
    let sandbox = status["sandbox"].as_str().context("no sandbox")?;
    ensure!(sandbox.ends_with("no new privileges; Landlock; seccomp"), "{sandbox}");
    let pid = container.pid()?;
    let process = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in ["CapEff", "CapPrm", "CapBnd"]
        .map(|name| format!("{name}:\t{CAPABILITIES}"))
        .iter()
        .map(String::as_str)
        .chain(["CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t0\t0\t0\t0"])
    {
        ensure!(process.contains(line), "no {line} in {process}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    for (name, value) in spec::limits(container.service())? {
        let title = if name == "core" { "Max core file size" } else { "Max locked memory" };
        let value = if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        let line = limits.lines().find_map(|line| line.strip_prefix(title)).context("no limit")?;
        let found: Vec<_> = line.split_whitespace().take(2).collect();
        ensure!(found == [&value, &value], "{name} is {found:?}, not {value}");
        println!("ulimit {name}: {value}");
    }
    // The node does this by itself too; what others start in there has it from Docker.
    let other = container.exec(&["cat", "/proc/self/status"])?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapAmb:\t0000000000000000"] {
        ensure!(other.contains(line), "no {line} in {other}");
    }
    println!("its process is root with capabilities {CAPABILITIES} and no new ones");
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

fn configure(keepalive: u16) -> Result<()> {
    let text = format!("[tunnel]\nkeepalive = {keepalive}\n{WEBHOOK}");
    // As editors do.
    let new = format!("{CONFIG}.new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, CONFIG)?)
}

/// The machine's configuration is in force, also when it was replaced, and names are looked up by a
/// process that is nobody's.
fn configured(container: &Container<'_>) -> Result<()> {
    let has = |keepalive: u16| -> Result<()> {
        let name = format!("keepalive-{keepalive}");
        let config = container.exec(&["weir", "session", "add", "--name", &name])?;
        container.exec(&["weir", "session", "remove", &name])?;
        let line = format!("PersistentKeepalive = {keepalive}");
        ensure!(config.lines().any(|is| is == line), "no {line} in {config}");
        Ok(())
    };
    has(17)?;
    let pid = container.pid()?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child = children.split_whitespace().next().context("nobody looks names up")?;
    let process = fs::read_to_string(format!("/proc/{child}/status"))?;
    for line in ["Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534"]
        .into_iter()
        .chain(["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"])
    {
        ensure!(process.contains(line), "no {line} in {process}");
    }
    println!("what looks names up is nobody, without any capability");
    configure(18)?;
    container.signal("HUP")?;
    until("the configuration is read again", Duration::from_secs(30), || has(18))
        .with_context(|| container.log())?;
    println!("the machine's /etc/weir/weir.toml is in force, and read again at SIGHUP");
    Ok(())
}

fn status(container: &Container<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&container.exec(&["weir", "status", "--json"])?)?)
}

fn sessions(container: &Container<'_>) -> Result<Vec<Session>> {
    let said = container.exec(&["weir", "session", "list", "--json"])?;
    let mut said: Value = serde_json::from_str(&said)?;
    Ok(serde_json::from_value(said["sessions"].take())?)
}
