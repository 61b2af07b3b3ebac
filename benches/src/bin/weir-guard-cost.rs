//! What each verdict of the guard costs: `cargo xtask bench guard`.
//! Needs root, touches no interface. The numbers are of `BPF_PROG_TEST_RUN`: the program alone,
//! with everything in the cache.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use weir_accounts::Endpoint;
use weir_common::{
    AddressPlan, GuardConfig, Slot, SlotPermutation,
    account::SessionState,
    gcra::Rate,
    mac1::{Mac1Key, Mac1Keys},
};
use weir_ebpf_loader::{Bpffs, Guard, GuardOptions};

const PORT: u16 = 51820;
/// Where frames come from.
const SOURCE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 40_000);
const REPEAT: u32 = 200_000;

fn main() -> Result<()> {
    let runtime_dir = std::env::temp_dir().join(format!("weir-guard-cost-{}", std::process::id()));
    std::fs::create_dir_all(&runtime_dir)?;
    let bpffs = Bpffs::find_or_mount(&runtime_dir).context("bpffs: run as root")?;
    let pins = bpffs.path().join(format!("weir-guard-cost-{}", std::process::id()));
    let keys = [Mac1Key::new(&[1; 32]), Mac1Key::new(&[2; 32])];
    let config = GuardConfig {
        plan: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 16, Ipv6Addr::LOCALHOST),
        permutation: SlotPermutation { keys: [1, 2, 3, 4] },
        workers: 2,
        slots: 64,
        port: PORT,
        super_packets: 0,
        mac1: Mac1Keys::one(keys[0]),
        initiations: Rate::new(20, 5),
        ceiling: Rate::UNLIMITED,
    };
    let mut guard = Guard::load(&GuardOptions { pins, config, linear: false })?;
    let accounts = guard.accounts();
    let states = [SessionState::Open, SessionState::Paused, SessionState::Closed];
    for (slot, state) in (0..).zip(states) {
        let account = accounts.get(Slot(slot)).context("an account")?;
        account.set_state(state);
        Endpoint { remote: SOURCE.into(), local: None }.save(&account.worker);
    }
    // It was heard nowhere.
    accounts.get(Slot(3)).context("an account")?.set_state(SessionState::Open);
    let index = |slot| config.permutation.index_of(Slot(slot)).get() << 8;
    let good = signed(1, 148, 0, keys[0]);
    let by_second = signed(1, 148, 0, keys[1]);
    let response = signed(2, 92, index(0), keys[0]);
    let mut forged = good.clone();
    if let Some(byte) = forged.get_mut(20) {
        *byte ^= 1;
    }
    let data = |slot| message(4, 1452, index(slot));
    let table = [
        ("another port", frame(&data(0), 53)),
        ("data, open session", frame(&data(0), PORT)),
        ("data, open session, from elsewhere", frame(&data(3), PORT)),
        ("data, paused session", frame(&data(1), PORT)),
        ("data, closed session", frame(&data(2), PORT)),
        ("data, nobody's index", frame(&data(63), PORT)),
        ("malformed", frame(&message(9, 100, 0), PORT)),
        ("response, MAC fits, beyond its rate", frame(&response, PORT)),
        ("initiation, MAC does not fit", frame(&forged, PORT)),
        ("initiation, beyond its source's rate", frame(&good, PORT)),
    ];
    println!("{:<44}{:>10}", "verdict", "ns");
    let program = guard.xdp_program();
    for (what, frame) in &table {
        let answer = guard.test_run(program, frame, REPEAT)?;
        println!("{what:<44}{:>10}", answer.duration.as_nanos());
    }
    guard.set_initiations(Rate::UNLIMITED, Rate::new(1, 1))?;
    let answer = guard.test_run(program, &frame(&good, PORT), REPEAT)?;
    println!("{:<44}{:>10}", "initiation, beyond the ceiling", answer.duration.as_nanos());
    guard.set_initiations(Rate::UNLIMITED, Rate::UNLIMITED)?;
    let answer = guard.test_run(program, &frame(&good, PORT), REPEAT)?;
    println!("{:<44}{:>10}", "initiation, MAC fits", answer.duration.as_nanos());
    guard.add_mac1_key(keys[1])?;
    let answer = guard.test_run(program, &frame(&by_second, PORT), REPEAT)?;
    println!("{:<44}{:>10}", "initiation, MAC fits the second key", answer.duration.as_nanos());
    println!("\ninstructions, as loaded and as the verifier walked them:");
    for weir_ebpf_loader::Instructions { program, loaded, verified } in guard.instructions()? {
        let verified = verified.map_or("-".into(), |count| count.to_string());
        println!("{program:<44}{loaded:>10}{verified:>10}");
    }
    println!("\nthe program is {program}");
    guard.detach_and_unpin()?;
    bpffs.release()?;
    std::fs::remove_dir_all(&runtime_dir)?;
    Ok(())
}

fn message(kind: u8, len: usize, index: u32) -> Vec<u8> {
    let mut message = vec![0x5a; len];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let at = if kind == 2 { 8 } else { 4 };
    message[at..at + 4].copy_from_slice(&index.to_le_bytes());
    message
}

fn signed(kind: u8, len: usize, index: u32, key: Mac1Key) -> Vec<u8> {
    let mut message = message(kind, len, index);
    let mac = key.mac(&message);
    message[len - 32..len - 16].copy_from_slice(&mac);
    message
}

fn frame(payload: &[u8], port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((payload.len() as u16 + 28).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40]);
    frame.extend(port.to_be_bytes());
    frame.extend((payload.len() as u16 + 8).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}
