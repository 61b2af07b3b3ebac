//! A load reaches the node, and its content the other end, whichever way packets arrive.

#![expect(clippy::expect_used, reason = "a test")]

use std::{env, path::PathBuf};

use weir_benches::compare::{
    case::{Case, Load, Scale, setup},
    exit::{Arrival, Program, Tools},
};
use weir_testkit::lab_lock::LabLock;
use weir_testkit::load::Shape;

const PACKETS: usize = 20_000;

fn run(load: Load, arrival: Arrival, receive: &str) {
    let weir = env::var_os("WEIR_BIN").expect("WEIR_BIN: run the tests with `cargo xtask test`");
    let tools = Tools { weir: PathBuf::from(weir), boringtun: PathBuf::new() };
    let cores = std::thread::available_parallelism().expect("some").get();
    let egress = "auto".to_owned();
    let scale = Scale { packets: PACKETS, core: cores - 1, generator: 0, egress };
    let mut setup = setup(&scale, Program::Weir);
    setup.arrival = arrival;
    if arrival == Arrival::SuperPackets {
        // In the driver of a veth it would take them apart.
        "off".clone_into(&mut setup.xdp);
    }
    receive.clone_into(&mut setup.receive);
    let (name, shape) = (format!("{load:?} {arrival:?} {receive}"), Shape::new(PACKETS));
    let case = Case { name: name.clone(), setup, load, shape, attack: None };
    let _lock = LabLock::wait().expect("a lock");
    // It fails by itself where one byte that arrives is wrong.
    let outcome = case.run(&tools).expect(&name);
    assert!(outcome.checked > 0 && outcome.bits_per_second > 0.0, "{name}: {outcome:?}");
    assert!(outcome.spent.process > 0.0, "{name}: the exit's time was not counted");
    let apart = arrival != Arrival::SuperPackets;
    assert_eq!(outcome.spent.receive > 0.0, apart, "{name}: {:?}", outcome.spent);
    // The window halves at each loss: more than this is a rig that does not work.
    assert!(outcome.loss_ratio < 0.5, "{name}: {outcome:?}");
}

#[test]
fn packet_buffers_of_the_sender_pass_both_ways() {
    for receive in ["af_xdp", "sockets"] {
        run(Load::Up, Arrival::Packets, receive);
    }
    run(Load::Down, Arrival::Packets, "auto");
}

#[test]
fn frames_as_of_a_driver_pass_both_ways() {
    for receive in ["af_xdp", "sockets"] {
        run(Load::Up, Arrival::Frames, receive);
    }
    run(Load::Down, Arrival::Frames, "auto");
}

#[test]
fn super_packets_pass_both_ways() {
    for load in [Load::Up, Load::Down] {
        run(load, Arrival::SuperPackets, "sockets");
    }
}
