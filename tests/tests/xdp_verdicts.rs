//! The guard in the kernel, by `BPF_PROG_TEST_RUN`: it takes root, but touches no interface.

mod exit;
#[path = "../../node-common/tests/exit/frames.rs"]
mod exit_frames;
mod fixtures;
mod frames;
mod modes;
mod rules;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering::Relaxed,
    time::Instant,
};

use frames::{FrameSpec, NODE_KEY, PORT, message};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use weir_accounts::Endpoint;
use weir_common::{
    Account, AddressPlan, DropReason, GuardConfig, Slot, SlotPermutation,
    account::SessionState,
    exit::{
        EXIT_CONFIG_LEN, ExitConfig, ExitMemory, ExitV6, FRAGMENT_TIMEOUT, FRAGMENTS, FragmentKey,
        PORT_WORDS, ReadFrame, decide, port_bit,
    },
    filter::Memory,
    gcra::{Gcra, Rate},
    guard::{GUARD_CONFIG_LEN, Lane, SOURCES, VERDICTS, name},
    mac1::{Mac1Key, Mac1Keys},
    meter::{Meter, Origin},
    packet::{Class, Decision, Source, Verdict},
};
use weir_ebpf_loader::{Bpffs, Guard, GuardOptions};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const SLOTS: u32 = 64;

fn config() -> GuardConfig {
    let v6 = Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, 0);
    GuardConfig {
        plan: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 16, v6),
        permutation: SlotPermutation { keys: [0x1234_5678, 2, 0xdead_beef, 4] },
        workers: 3,
        slots: SLOTS,
        port: PORT,
        super_packets: 0,
        mac1: Mac1Keys::one(Mac1Key::new(&NODE_KEY)),
        initiations: Rate::UNLIMITED,
        ceiling: Rate::UNLIMITED,
    }
}

/// A loaded guard, and what must be undone after it.
struct Loaded {
    guard: Option<Guard>,
    bpffs: Option<Bpffs>,
    _runtime_dir: tempfile::TempDir,
}

impl Loaded {
    fn new(config: GuardConfig, linear: bool) -> Self {
        let runtime_dir = tempfile::tempdir().expect("a directory");
        let bpffs = Bpffs::find_or_mount(runtime_dir.path()).expect("a bpffs: run as root");
        let id = runtime_dir.path().file_name().expect("a name").to_string_lossy().into_owned();
        let pins = bpffs.path().join(format!("weir-test-{}", id.trim_start_matches('.')));
        // First, so that a failure to load leaves no mount.
        let mut loaded = Self { guard: None, bpffs: Some(bpffs), _runtime_dir: runtime_dir };
        let guard = Guard::load(&GuardOptions { pins, config, linear });
        loaded.guard = Some(guard.expect("the kernel takes the programs: run as root"));
        (0..SLOTS).for_each(|slot| loaded.set_state(slot, SessionState::Open));
        loaded
    }

    fn guard(&self) -> &Guard {
        self.guard.as_ref().expect("taken by drop only")
    }

    fn set_state(&self, slot: u32, state: SessionState) {
        self.guard().accounts().get(Slot(slot)).expect("within the accounts").set_state(state);
    }

    /// The consumer of a slot was last heard where such frames come from.
    fn set_endpoint(&self, slot: u32, from: &FrameSpec) {
        let accounts = self.guard().accounts();
        let account = accounts.get(Slot(slot)).expect("within the accounts");
        Endpoint { remote: from.remote(), local: None }.save(&account.worker);
    }

    /// Nothing was taken from a slot's buckets.
    fn fill_buckets(&self, slot: u32) {
        let accounts = self.guard().accounts();
        let seen = &accounts.get(Slot(slot)).expect("within the accounts").seen;
        for full_at in [&seen.paused_full_at, &seen.roaming_full_at, &seen.responses_full_at] {
            full_at.store(0, Relaxed);
        }
    }

    /// What the kernel makes of a frame, as its counters say.
    fn verdict(&self, frame: &[u8]) -> Verdict {
        let before = self.guard().counts().expect("counts");
        let passes = self.passes(frame);
        let after = self.guard().counts().expect("counts");
        let mut counted = every_verdict().filter(|&v| before.of(v) != after.of(v));
        let verdict = counted.next().expect("every frame is counted");
        assert_eq!(counted.next(), None, "counted twice");
        assert_eq!(passes, matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
        verdict
    }

    /// Whether the kernel passes the frame.
    fn passes(&self, frame: &[u8]) -> bool {
        let guard = self.guard();
        match guard.test_run(guard.xdp_program(), frame, 1).expect("a test run").value {
            XDP_PASS => true,
            XDP_DROP => false,
            other => panic!("no verdict of ours: {other}"),
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.detach_and_unpin().expect("pins are removable");
        }
        if let Some(bpffs) = self.bpffs.take() {
            bpffs.release().expect("nobody uses the bpffs");
        }
    }
}

fn every_verdict() -> impl Iterator<Item = Verdict> {
    let passes = Class::ALL.iter().map(|&class| Verdict::Pass(class));
    passes.chain(DropReason::ALL.iter().map(|&reason| Verdict::Drop(reason)))
}

fn receiver_index(slot: u32) -> u32 {
    config().permutation.index_of(Slot(slot)).get() << 8 | 7
}

#[test]
fn every_fixture_has_its_verdict_and_is_counted_once() {
    every_fixture(false);
}

#[test]
fn the_guard_for_older_kernels_judges_the_same() {
    every_fixture(true);
}

fn every_fixture(linear: bool) {
    let loaded = Loaded::new(config(), linear);
    let wanted = if linear { name::GUARD_LINEAR } else { name::GUARD };
    assert_eq!(loaded.guard().xdp_program(), wanted);
    let fixtures = fixtures::all(receiver_index(5));
    assert!(fixtures.len() > 500);
    for fixture in fixtures {
        let name = &fixture.name;
        if linear && fixture.frame.len() > 3000 {
            continue; // Frames in one piece fit a page.
        }
        loaded.fill_buckets(5);
        let before = loaded.guard().counts().expect("counts");
        let passes = loaded.passes(&fixture.frame);
        let after = loaded.guard().counts().expect("counts");
        assert_eq!(passes, matches!(fixture.verdict, Verdict::Pass(_)), "{name}");
        for verdict in every_verdict() {
            let (before, after) = (before.of(verdict), after.of(verdict));
            let bytes = fixture.payload.unwrap_or(fixture.frame.len()) as u64;
            let counted = if verdict == fixture.verdict { (1, bytes) } else { (0, 0) };
            let delta = (after.datagrams - before.datagrams, after.bytes - before.bytes);
            assert_eq!(delta, counted, "{name}: {verdict:?}");
        }
    }
}

#[test]
fn datagrams_are_counted_in_the_account_of_their_slot_only() {
    let loaded = Loaded::new(config(), false);
    let accounts = loaded.guard().accounts();
    let passes = |payload: &[u8]| loaded.passes(&FrameSpec::v4(payload).build());
    let send = |payload: &[u8]| assert!(passes(payload));
    send(&message(4, 100, receiver_index(5)));
    send(&message(4, 32, receiver_index(5)));
    send(&message(2, 92, receiver_index(5)));
    send(&message(3, 64, receiver_index(63)));
    send(&message(1, 148, receiver_index(5)));
    // Nobody's: one beyond the last slot, and one of an index that no slot has.
    assert!(!passes(&message(4, 100, receiver_index(SLOTS))));
    assert!(!passes(&message(4, 100, receiver_index(1 << 23))));
    for slot in 0..SLOTS {
        let account = accounts.get(Slot(slot)).expect("within the accounts");
        let seen = account.counters();
        let handshakes = account.seen.handshakes.load(Relaxed);
        let expected = match slot {
            5 => (2, 132, 1),
            63 => (0, 0, 1),
            _ => (0, 0, 0),
        };
        assert_eq!((seen.seen_datagrams, seen.seen_bytes, handshakes), expected, "slot {slot}");
    }
}

#[test]
fn behind_gro_a_handshake_message_may_be_followed_by_others() {
    let merged = [message(2, 92, receiver_index(1)), message(4, 32, receiver_index(1))].concat();
    let frame = FrameSpec::v4(&merged).build();
    assert!(!Loaded::new(config(), false).passes(&frame));
    let loaded = Loaded::new(GuardConfig { super_packets: 1, ..config() }, false);
    assert!(loaded.passes(&frame));
    assert!(!loaded.passes(&FrameSpec::v4(&message(2, 91, receiver_index(1))).build()));
    // Nothing as short can follow.
    assert!(!loaded.passes(&FrameSpec::v4(merged.get(..123).expect("longer")).build()));
}

/// The guard's memory as user space sees it. Its buckets are full or empty for good.
struct Model<'a> {
    guard: &'a Guard,
    ports: [u64; PORT_WORDS],
    noted: RefCell<HashMap<FragmentKey, Instant>>,
}

impl ExitMemory for Model<'_> {
    fn has_port(&self, port: u16) -> bool {
        let (word, bit) = port_bit(port);
        self.ports[word as usize] & bit != 0
    }

    fn note_fragment(&self, key: &FragmentKey) {
        self.noted.borrow_mut().insert(*key, Instant::now());
    }

    fn forget_fragment(&self, key: &FragmentKey) {
        self.noted.borrow_mut().remove(key);
    }

    fn is_fragment_noted(&self, key: &FragmentKey) -> bool {
        let noted = self.noted.borrow();
        noted.get(key).is_some_and(|at| at.elapsed().as_nanos() < FRAGMENT_TIMEOUT.into())
    }
}

impl Memory for Model<'_> {
    fn standing(&self, slot: Slot) -> SessionState {
        let accounts = self.guard.accounts();
        accounts.get(slot).map_or(SessionState::Vacant, Account::standing)
    }

    fn origin(&self, slot: Slot, source: &Source) -> Origin {
        let accounts = self.guard.accounts();
        let worker = &accounts.get(slot).expect("a session's").worker;
        if worker.is_at(source) { Origin::Endpoint } else { Origin::Elsewhere }
    }

    fn take(&self, slot: Slot, meter: Meter, rate: Rate) -> bool {
        let accounts = self.guard.accounts();
        let seen = &accounts.get(slot).expect("a session's").seen;
        let full_at = match meter {
            Meter::PausedData => &seen.paused_full_at,
            Meter::RoamingData => &seen.roaming_full_at,
            Meter::Responses => &seen.responses_full_at,
        };
        Gcra::from_raw(full_at.load(Relaxed)).next(rate, 0).is_some()
    }

    fn take_initiation(&self, _: u64, _: Rate) -> bool {
        true
    }

    fn take_of_all(&self, _: Lane, _: Rate) -> bool {
        true
    }
}

#[test]
fn kernel_and_user_space_agree_on_random_and_mutated_frames() {
    let mut loaded = Loaded::new(config(), false);
    let (v4, v6) = (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
    let exit = ExitConfig::new(&[v4], ExitV6::Address(v6)).expect("few addresses");
    let mut ports = [0; PORT_WORDS];
    let (word, bit) = port_bit(PORT + 1);
    ports[word as usize] = bit;
    let guard = loaded.guard.as_mut().expect("taken by drop only");
    guard.set_exit(&exit, &ports).expect("the kernel takes a configuration");
    let accounts = loaded.guard().accounts();
    for slot in 0..SLOTS {
        // One of four has its credit used up, one of three was last heard by IPv6 and one nowhere.
        let account = accounts.get(Slot(slot)).expect("within the accounts");
        account.set_state(SessionState::from_raw(slot % 4));
        match slot % 3 {
            0 => loaded.set_endpoint(slot, &FrameSpec::v4(&[])),
            1 => loaded.set_endpoint(slot, &FrameSpec::v6(&[])),
            _ => {}
        }
        account.set_limit((slot % 16 < 8).then_some(77));
        account.worker.spent.store(if slot % 16 < 4 { 77 } else { 76 }, Relaxed);
    }
    let model = Model { guard: loaded.guard(), ports, noted: RefCell::default() };
    let seen = RefCell::new(HashSet::new());
    let set_buckets = || {
        for slot in 0..SLOTS {
            // For paused ones there is never anything left, of the others for every other one.
            let seen = &accounts.get(Slot(slot)).expect("within the accounts").seen;
            let full_at = if slot % 8 < 4 { u64::MAX / 2 } else { 0 };
            seen.paused_full_at.store(u64::MAX / 2, Relaxed);
            seen.roaming_full_at.store(full_at, Relaxed);
            seen.responses_full_at.store(full_at, Relaxed);
        }
    };
    let agrees = |frame: Vec<u8>| {
        set_buckets();
        let before = loaded.guard().counts().expect("counts");
        let passes = loaded.passes(&frame);
        let after = loaded.guard().counts().expect("counts");
        set_buckets();
        let frame = frame.as_slice();
        let traffic = ReadFrame { frame, exit: &exit, memory: &model };
        let (decision, _) = decide(frame, &config(), &model, &traffic);
        let Decision { verdict, bytes, .. } = decision;
        let verdict = match verdict {
            // No worker takes it.
            Verdict::Pass(Class::Return) => Verdict::Drop(DropReason::GuardNoWorker),
            verdict => verdict,
        };
        seen.borrow_mut().insert(verdict);
        prop_assert_eq!(passes, matches!(verdict, Verdict::Pass(_)));
        let (before, after) = (before.of(verdict), after.of(verdict));
        prop_assert_eq!(after.datagrams - before.datagrams, 1, "{:?}", verdict);
        prop_assert_eq!(after.bytes - before.bytes, u64::from(bytes));
        Ok(())
    };
    // All classes and all reasons of the guard, but for those of initiations' rates.
    const ALL: usize = Class::COUNT + 9;
    // A rare one may want more rounds than one.
    for _ in 0..10 {
        let mut runner = TestRunner::new(Config { cases: 6000, ..Config::default() });
        runner.run(&any_frame(), agrees).expect("the same verdict and the same bytes");
        if seen.borrow().len() == ALL {
            break;
        }
    }
    let seen = seen.into_inner();
    assert_eq!(seen.len(), ALL, "{seen:?}");
}

/// Frames that are good, nearly good, or noise.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let mutation = (any::<prop::sample::Index>(), any::<u8>());
    let upper = prop_oneof![
        6 => Just((PORT, 17, 0x4000)),
        1 => (
            Just(PORT + 1),
            prop_oneof![2 => Just(17u8), 1 => Just(6)],
            prop_oneof![Just(0x4000u16), Just(0x2000), Just(1)],
        ),
    ];
    let nearly = (
        any::<bool>(),
        vec(prop_oneof![Just(0x8100u16), Just(0x88a8)], 0..3),
        0usize..11,
        vec((prop_oneof![Just(0u8), Just(43), Just(60), Just(44)], 0u8..4), 0..7),
        (0u8..6, prop_oneof![Just(32usize), Just(64), Just(92), Just(148), 0usize..200]),
        (-2i32..3, -2i32..3, 0usize..20),
        vec(mutation, 0..4),
        (any::<prop::sample::Index>(), 0..SLOTS + 8, upper),
    )
        .prop_map(|(v6, vlans, options, extensions, (kind, len), lens, mutations, rest)| {
            let (cut, slot, (port, protocol, fragment)) = rest;
            let (ip_len_error, udp_len_error, padding) = lens;
            let extensions = extensions.into_iter().map(|(kind, units)| {
                let mut rest = vec![0; if kind == 44 { 7 } else { usize::from(units) * 8 + 7 }];
                rest[0] = if kind == 44 { 0 } else { units };
                (kind, rest)
            });
            let payload = message(kind, len, receiver_index(slot));
            let mut frame = FrameSpec {
                v6,
                vlans,
                options: vec![1; options * 4],
                extensions: extensions.collect(),
                ip_len_error,
                udp_len_error,
                padding,
                port,
                protocol,
                fragment,
                ..FrameSpec::v4(&payload)
            }
            .build();
            for (place, value) in mutations {
                let place = place.index(frame.len().min(80));
                frame[place] = value;
            }
            // One in eight is cut off somewhere.
            let keep = cut.index(frame.len() * 8).max(14);
            frame.truncate(keep);
            frame
        });
    // Right but for one bit: else few are wrong in nothing but the MAC.
    let forged = (any::<bool>(), 8usize..116, 0u32..8).prop_map(|(v6, place, bit)| {
        let mut payload = message(1, 148, 0);
        payload[place] ^= 1 << bit;
        FrameSpec { v6, ..FrameSpec::v4(&payload) }.build()
    });
    prop_oneof![8 => nearly, 1 => forged, 1 => vec(any::<u8>(), 14..300)]
}

#[test]
fn inner_packets_are_steered_to_the_worker_of_their_destination() {
    let loaded = Loaded::new(config(), false);
    let plan = config().plan;
    let steer = |ether_type: u16, packet: &[u8]| {
        let mut frame = vec![0; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.extend(packet);
        loaded.guard().test_run(name::STEER, &frame, 1).expect("a test run").value
    };
    let v4 = |destination: Ipv4Addr| {
        let mut packet = vec![0x45; 40];
        packet[16..20].copy_from_slice(&destination.octets());
        steer(0x0800, &packet)
    };
    let v6 = |destination: Ipv6Addr| {
        let mut packet = vec![0x60; 60];
        packet[24..40].copy_from_slice(&destination.octets());
        steer(0x86dd, &packet)
    };
    for slot in 0..SLOTS {
        assert_eq!(v4(plan.address_v4(Slot(slot)).expect("in the plan")), slot % 3);
        assert_eq!(v6(plan.address_v6(Slot(slot)).expect("in the plan")), slot % 3);
    }
    assert_eq!(v4(Ipv4Addr::new(8, 8, 8, 8)), 0);
    assert_eq!(v6(Ipv6Addr::LOCALHOST), 0);
    // Under another ether type, or the test run refuses it before the program sees it.
    assert_eq!(steer(0x88b5, &[0x45; 19]), 0, "a packet that is cut off");
}

#[test]
fn the_committed_object_has_the_programs_and_the_sizes_of_the_shared_types() {
    let object = aya_obj::Object::parse(weir_ebpf_loader::OBJECT).expect("an eBPF object");
    let mut programs: Vec<&str> = object.programs.keys().map(String::as_str).collect();
    programs.sort_unstable();
    assert_eq!(programs, [name::GUARD, name::GUARD_LINEAR, name::REUSEPORT, name::STEER]);
    let license = object.license.to_str().expect("text");
    assert_eq!(license, "Dual MIT/GPL");
    let sizes = |map: &str| {
        let map = object.maps.get(map).expect("the map is in the object");
        (map.key_size() as usize, map.value_size() as usize)
    };
    assert_eq!(sizes(name::ACCOUNTS), (4, size_of::<Account>()));
    assert_eq!(sizes(name::CONFIG), (4, GUARD_CONFIG_LEN));
    assert_eq!(sizes(name::VERDICTS), (4, 16));
    assert_eq!(sizes(name::SOCKETS), (4, 4));
    assert_eq!(sizes(name::SOURCES), (8, 8));
    assert_eq!(sizes(name::EXIT), (4, EXIT_CONFIG_LEN));
    assert_eq!(sizes(name::PORTS), (4, 8));
    assert_eq!(sizes(name::FRAGMENTS), (size_of::<FragmentKey>(), 8));
    let ports = object.maps.get(name::PORTS).expect("the map is in the object");
    assert_eq!(ports.max_entries() as usize, PORT_WORDS);
    let verdicts = object.maps.get(name::VERDICTS).expect("the map is in the object");
    assert_eq!(verdicts.max_entries() as usize, VERDICTS);
}

/// What the kernel needs for a map's entries, roughly: a hash map's have a header of 48 bytes and
/// a bucket of 16.
#[test]
fn the_maps_of_a_node_of_the_default_size_fit_four_megabytes() {
    let object = aya_obj::Object::parse(weir_ebpf_loader::OBJECT).expect("an eBPF object");
    let sources = object.maps.get(name::SOURCES).expect("the map is in the object").max_entries();
    assert_eq!(sources, SOURCES);
    let accounts = 4096 * size_of::<Account>();
    let sources = sources as usize * (8 + 8 + 48 + 16);
    let cpus = 64;
    let verdicts = VERDICTS * 16 * cpus;
    let fragments =
        object.maps.get(name::FRAGMENTS).expect("the map is in the object").max_entries();
    assert_eq!(fragments, FRAGMENTS);
    let fragments = fragments as usize * (size_of::<FragmentKey>() + 8 + 48 + 16);
    let exit = EXIT_CONFIG_LEN + PORT_WORDS * 8;
    let total = accounts + sources + verdicts + fragments + exit + GUARD_CONFIG_LEN;
    assert!(total < 4 << 20, "{total} bytes");
}
