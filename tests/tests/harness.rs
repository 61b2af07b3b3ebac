//! The harness itself, with wireguard-go in the node's place.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use weir_tests::{
    Client, Lab, command,
    lab::SERVERS,
    standin::StandIn,
    traffic::{
        tcp::{self, Direction},
        udp,
    },
};

#[test]
fn traffic_passes_through_the_stand_in() -> Result<()> {
    let lab = Lab::new()?;
    let exit = StandIn::start(&lab.node)?;
    let client = Client::connect(&lab.consumer, &exit.config)?;
    let server = tcp::Server::start(&lab.internet)?;
    for address in SERVERS {
        client.wait_connected(address)?;
        for direction in [Direction::Up, Direction::Down] {
            tcp::parallel(&lab.consumer, server.at(address), direction, 2, 2_000_000)?;
        }
        let echo = udp::Echo::start(&lab.internet, address)?;
        udp::parallel(&lab.consumer, echo.at(address), 4, &[0, 1, 1000, 1372], 3)?;
    }
    let transfer = client.transfer()?;
    assert!(transfer.sent > 8_000_000 && transfer.received > 8_000_000, "{transfer:?}");
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result<()> {
    let names = {
        let lab = Lab::new()?;
        let _exit = StandIn::start(&lab.node)?;
        [&lab.consumer, &lab.internet, &lab.node].map(|namespace| namespace.name().to_owned())
    };
    std::thread::sleep(Duration::from_millis(100));
    let left = command::run(&mut command::words("ip netns list"))?;
    assert!(names.iter().all(|name| !left.contains(name)), "{left}");
    Ok(())
}

#[test]
fn each_file_of_tests_is_a_module_of_the_program() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let program = fs::read_to_string(folder.join("main.rs"))?;
    let mut seen = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "main") else { continue };
        ensure!(program.contains(&format!("\nmod {name};\n")), "main.rs leaves out {name}.rs");
        seen += 1;
    }
    ensure!(seen > 60, "only {seen} files");
    Ok(())
}
