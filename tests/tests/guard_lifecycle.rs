//! The guard on real interfaces and sockets, each test in a network namespace of its own: attach,
//! take over what a killed node left, stop without a trace, steer datagrams. It takes root.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use socket2::{Domain, Protocol, Socket, Type};
use weir_common::{
    AddressPlan, GuardConfig, Slot, SlotPermutation,
    account::{Counters, SessionState},
    packet::Class,
};
use weir_ebpf_loader::{Bpffs, Guard, GuardOptions, XdpMode, XdpPolicy};
use weir_packet::checksum::Sum;
use weir_tests::frames::FrameSender;

const PORT: u16 = 51820;
const WORKERS: u32 = 3;

/// A network namespace for the thread that runs the test, and a place for pins. Programs that the
/// test starts are in the namespace too; the file systems stay the machine's.
struct Rig {
    bpffs: Option<Bpffs>,
    pins: PathBuf,
    _runtime_dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        #[expect(deprecated, reason = "the namespace is left by the thread's end only")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
            .expect("a network namespace: run as root");
        ip("link set lo up");
        let runtime_dir = tempfile::tempdir().expect("a directory");
        let bpffs = Bpffs::find_or_mount(runtime_dir.path()).expect("a bpffs: run as root");
        let id = runtime_dir.path().file_name().expect("a name").to_string_lossy().into_owned();
        let pins = bpffs.path().join(format!("weir-test-{}", id.trim_start_matches('.')));
        Self { bpffs: Some(bpffs), pins, _runtime_dir: runtime_dir }
    }

    fn load(&self, slots: u32) -> Guard {
        let options =
            GuardOptions { pins: self.pins.clone(), config: config(slots), linear: false };
        Guard::load(&options).expect("the kernel takes the programs")
    }

    fn veth(&self, name: &str) -> u32 {
        ip(&format!("link add {name} type veth peer name {name}p"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set {name}p up"));
        index_of(name)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(bpffs) = self.bpffs.take() {
            bpffs.release().expect("nobody uses the bpffs");
        }
    }
}

fn config(slots: u32) -> GuardConfig {
    let v6 = Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, 0);
    GuardConfig {
        plan: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 16, v6),
        permutation: SlotPermutation { keys: [11, 22, 33, 44] },
        workers: WORKERS,
        slots,
        port: PORT,
        super_packets: 0,
        mac1: Default::default(),
        initiations: Default::default(),
        ceiling: Default::default(),
    }
}

/// An interface's number, asked of netlink: sysfs shows another namespace's interfaces.
fn index_of(interface: &str) -> u32 {
    let link = output("ip", &format!("-o link show dev {interface}"));
    link.split(':').next().and_then(|index| index.parse().ok()).expect("an index")
}

fn output(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {arguments}");
}

/// What `ip` says of XDP on an interface: the mode and the program's number.
fn xdp_on(interface: &str) -> Option<(&'static str, String)> {
    let link = output("ip", &format!("link show dev {interface}"));
    let mode = if link.contains("xdpgeneric") {
        "generic"
    } else if link.contains("xdp") {
        "native"
    } else {
        return None;
    };
    let id = link.split("prog/xdp id ").nth(1).and_then(|rest| rest.split(' ').next());
    Some((mode, id.expect("a program").to_owned()))
}

#[test]
fn a_killed_nodes_counts_and_guard_are_taken_over_and_a_clean_stop_leaves_nothing() {
    let rig = Rig::new();
    let ifindex = rig.veth("up0");
    let mut first = rig.load(16);
    let counters = Counters { bytes_up: 1234, seen_bytes: 5678, ..Counters::default() };
    let accounts = first.accounts();
    accounts.get(Slot(9)).expect("within").assign(77, &counters);
    assert_eq!(first.attach(ifindex, XdpPolicy::Auto).expect("attaches"), XdpMode::Native);
    let (mode, first_id) = xdp_on("up0").expect("attached");
    assert_eq!(mode, "native");
    drop((first, accounts)); // As if killed: nothing is undone.
    assert_eq!(xdp_on("up0"), Some(("native", first_id.clone())));

    let mut second = rig.load(16);
    assert_eq!(second.attach(ifindex, XdpPolicy::Auto).expect("attaches"), XdpMode::Native);
    let account = second.accounts();
    let account = account.get(Slot(9)).expect("within");
    assert_eq!(account.counters(), counters);
    assert_eq!(account.control.session.load(Relaxed), 77);
    let (mode, second_id) = xdp_on("up0").expect("attached");
    assert_eq!(mode, "native");
    assert_ne!(second_id, first_id, "the new program is in the place of the old one");

    second.detach_and_unpin().expect("a clean stop");
    assert_eq!(xdp_on("up0"), None);
    assert!(!rig.pins.exists(), "no pin is left");
}

/// Each new program takes the place of the one before it while frames arrive without a pause.
#[test]
fn no_frame_slips_past_while_one_program_follows_another() {
    let rig = Rig::new();
    let ifindex = rig.veth("up0");
    ip("addr add 192.0.2.1/24 dev up0");
    let sender = FrameSender::new(index_of("up0p")).expect("a packet socket");
    let listener = UdpSocket::bind(("192.0.2.1", PORT)).expect("the port is free");
    listener.set_nonblocking(true).expect("a socket");
    let frame = broadcast(&message(9, 100, 0));
    let arrives = || {
        sender.send(&frame).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        listener.recv(&mut [0; 200]).is_ok()
    };
    assert!(arrives(), "without a guard it does");
    let mut guard = rig.load(8);
    assert_eq!(guard.attach(ifindex, XdpPolicy::Native).expect("attaches"), XdpMode::Native);
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0u64;
            while !stop.load(Relaxed) {
                sender.send(&frame).expect("sent");
                sent += 1;
            }
            sent
        });
        let mut last = xdp_on("up0");
        for _ in 0..10 {
            let mut next = rig.load(8);
            next.attach(ifindex, XdpPolicy::Native).expect("attaches");
            // The one before dies without undoing anything, as a killed node does.
            guard = next;
            let now = xdp_on("up0");
            assert_ne!(now, last, "a new program");
            last = now;
        }
        stop.store(true, Relaxed);
        flood.join().expect("it sends")
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(sent > 1000, "{sent} frames");
    assert!(listener.recv(&mut [0; 200]).is_err(), "one of {sent} has passed");
    guard.detach_and_unpin().expect("a clean stop");
    assert!(arrives(), "after the guard it does again");
}

/// A frame to everybody with a datagram from 192.0.2.2 to port [`PORT`] of 192.0.2.1.
fn broadcast(payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((payload.len() as u16 + 28).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1]);
    let checksum = Sum::default().bytes(&header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 2, 8, 0]);
    frame.extend(header);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend((payload.len() as u16 + 8).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

#[test]
fn accounts_in_use_survive_any_change_of_their_number() {
    let rig = Rig::new();
    let counters = Counters { bytes_down: 99, handshake_bytes_up: 3, ..Counters::default() };
    let first = rig.load(16);
    first.accounts().get(Slot(9)).expect("within").assign(5, &counters);
    drop(first);
    let check = |guard: &Guard, len: u32| {
        let accounts = guard.accounts();
        assert_eq!(accounts.len(), len);
        assert_eq!(accounts.get(Slot(9)).expect("within").counters(), counters);
    };
    check(&rig.load(64), 64);
    check(&rig.load(10), 10);
    // Slot 9 would fall off: the accounts stay as many as they are.
    check(&rig.load(9), 10);
    rig.load(16).detach_and_unpin().expect("a clean stop");
}

#[test]
fn the_guard_of_a_killed_node_is_removed_from_an_interface_that_is_no_uplink_any_more() {
    let rig = Rig::new();
    let (old, new) = (rig.veth("old0"), rig.veth("new0"));
    let mut first = rig.load(8);
    first.attach(old, XdpPolicy::Native).expect("attaches");
    drop(first);
    let mut second = rig.load(8);
    assert_eq!(second.attach(new, XdpPolicy::Native).expect("attaches"), XdpMode::Native);
    assert_eq!(xdp_on("old0"), None);
    drop(second);
    ip("link del new0");
    let again = rig.veth("new0");
    let mut third = rig.load(8);
    assert_eq!(third.attach(again, XdpPolicy::Required).expect("attaches"), XdpMode::Native);
    drop(third);
    let mut fourth = rig.load(8);
    let off = fourth.attach(again, XdpPolicy::Off).expect("nothing to do");
    assert!(matches!(off, XdpMode::Off { .. }), "{off:?}");
    assert_eq!(xdp_on("new0"), None);
    fourth.detach_and_unpin().expect("a clean stop");
}

#[test]
fn a_large_mtu_is_no_obstacle_to_native_xdp() {
    let rig = Rig::new();
    let ifindex = rig.veth("up0");
    ip("link set up0 mtu 9000");
    ip("link set up0p mtu 9000");
    let mut guard = rig.load(8);
    assert_eq!(guard.attach(ifindex, XdpPolicy::Native).expect("attaches"), XdpMode::Native);
    guard.detach_and_unpin().expect("a clean stop");
}

#[test]
fn each_policy_gives_its_modes_or_says_why_not() {
    let rig = Rig::new();
    let veth = rig.veth("up0");
    let loopback = index_of("lo");
    let mut guard = rig.load(8);
    let mut attach = |ifindex, policy| guard.attach(ifindex, policy);

    assert_eq!(attach(veth, XdpPolicy::Generic).expect("generic"), XdpMode::Generic);
    assert_eq!(xdp_on("up0").map(|(mode, _)| mode), Some("generic"));
    assert_eq!(attach(veth, XdpPolicy::Native).expect("native"), XdpMode::Native);
    assert_eq!(xdp_on("up0").map(|(mode, _)| mode), Some("native"));
    // The loopback has no native XDP.
    assert_eq!(attach(loopback, XdpPolicy::Auto).expect("generic"), XdpMode::Generic);
    assert_eq!(xdp_on("up0"), None);
    let error = attach(loopback, XdpPolicy::Native).expect_err("no native XDP").to_string();
    assert!(error.contains("native") && error.contains("driver"), "{error}");
    let error = attach(9999, XdpPolicy::Required).expect_err("no interface").to_string();
    assert!(error.contains("9999") && error.contains("gone"), "{error}");
    let off = attach(9999, XdpPolicy::Auto).expect("goes on without");
    assert!(matches!(off, XdpMode::Off { ref reason } if reason.contains("gone")), "{off:?}");
    guard.detach_and_unpin().expect("a clean stop");
}

fn socket(domain: Domain) -> Socket {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    if domain == Domain::IPV6 {
        socket.set_only_v6(true).expect("IPv6 alone");
    }
    socket.set_reuse_port(true).expect("reuseport");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let address = match domain {
        Domain::IPV6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
        _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
    };
    socket.bind(&address.into()).expect("the port is free in the namespace");
    socket
}

fn message(kind: u8, len: usize, receiver_index: u32) -> Vec<u8> {
    let mut message = vec![0; len];
    message[0] = kind;
    let place = if kind == 2 { 8 } else { 4 };
    message[place..place + 4].copy_from_slice(&receiver_index.to_le_bytes());
    message
}

#[test]
fn datagrams_reach_the_socket_of_their_sessions_worker_and_are_counted_on_the_way() {
    let rig = Rig::new();
    let mut guard = rig.load(64);
    let groups = [Domain::IPV4, Domain::IPV6]
        .map(|domain| (0..=WORKERS).map(|_| socket(domain)).collect::<Vec<_>>());
    let [v4, v6] = &groups;
    fn fds(group: &[Socket]) -> Vec<BorrowedFd<'_>> {
        group.iter().map(|socket| socket.as_fd()).collect()
    }
    let error = guard.steer_udp(&fds(&v4[1..]), &[]).expect_err("one socket is missing");
    assert!(error.to_string().contains("3 UDP sockets"), "{error}");
    guard.steer_udp(&fds(v4), &fds(v6)).expect("steered");
    assert_eq!(guard.attach(index_of("lo"), XdpPolicy::Generic).expect("on lo"), XdpMode::Generic);

    let accounts = guard.accounts();
    for slot in 0..12 {
        accounts.get(Slot(slot)).expect("within").set_state(SessionState::Open);
    }
    let permutation = config(64).permutation;
    let index = |slot| permutation.index_of(Slot(slot)).get() << 8 | 3;
    for (group, to) in [(v4, "127.0.0.1"), (v6, "::1")] {
        let to: SocketAddr = SocketAddr::new(to.parse().expect("an address"), PORT);
        // A new source for each: otherwise GRO on the loopback may merge what we tell apart.
        let send = |payload: &[u8]| {
            let from = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
            from.expect("a socket").send_to(payload, to).expect("sent");
        };
        let arrives = |payload: &[u8], reader: u32| {
            send(payload);
            let mut buffer = [0; 2048];
            let received = std::io::Read::read(&mut &group[reader as usize], &mut buffer);
            let len = received.unwrap_or_else(|error| {
                panic!("type {} for reader {reader} over {to}: {error}", payload[0])
            });
            assert_eq!(&buffer[..len], payload);
        };
        for slot in 0..12 {
            arrives(&message(4, 64 + slot as usize, index(slot)), slot % WORKERS);
            arrives(&message(2, 92, index(slot)), slot % WORKERS);
            arrives(&message(3, 64, index(slot)), slot % WORKERS);
        }
        arrives(&message(1, 148, 0), WORKERS);
        send(&message(4, 31, index(0)));
        send(&message(9, 100, 0));
    }
    let counts = guard.counts().expect("counts");
    let passed = |class| counts.passed(class).datagrams;
    assert_eq!(passed(Class::Data), 24);
    assert_eq!((passed(Class::Response), passed(Class::CookieReply)), (24, 24));
    assert_eq!(passed(Class::Initiation), 2);
    assert_eq!(counts.dropped(weir_common::DropReason::GuardLength).datagrams, 2);
    assert_eq!(counts.dropped(weir_common::DropReason::GuardType).datagrams, 2);
    let accounts = guard.accounts();
    let seen = accounts.get(Slot(7)).expect("within").counters();
    assert_eq!((seen.seen_datagrams, seen.seen_bytes), (2, 2 * 71));
    guard.detach_and_unpin().expect("a clean stop");
    assert!(fs::read_dir(&rig.pins).is_err(), "no pin is left");
}

#[test]
fn a_guard_that_the_verifier_refuses_leaves_no_pin_but_what_a_killed_node_left() {
    let rig = Rig::new();
    // Without CAP_PERFMON the verifier refuses what the programs do with pointers.
    let refused = |slots| {
        let load = || {
            let few = CapabilitySet::NET_ADMIN | CapabilitySet::BPF | CapabilitySet::DAC_OVERRIDE;
            let sets = CapabilitySets { effective: few, permitted: few, inheritable: few };
            set_capabilities(None, sets).expect("capabilities can be given up");
            let options =
                GuardOptions { pins: rig.pins.clone(), config: config(slots), linear: false };
            Guard::load(&options).expect_err("the verifier refuses")
        };
        std::thread::scope(|scope| scope.spawn(load).join()).expect("no panic")
    };
    let (said, log) = refused(4).explain();
    assert!(said.contains("verifier refuses") && !said.contains('\n'), "{said}");
    // Which of them depends on the instruction that it meets first.
    let reasons = ["prohibited", "partial copy of pointer"];
    let is_named = |line: &String| reasons.iter().any(|reason| line.contains(reason));
    assert!(log.iter().any(is_named), "{log:?}");
    assert!(!rig.pins.exists(), "left pinned: {:?}", rig.pins);

    let guard = rig.load(4);
    guard.accounts().get(Slot(1)).expect("a slot").metered.bytes_up.store(7, Relaxed);
    // As if it was killed.
    drop(guard);
    refused(4);
    refused(8);
    let guard = rig.load(4);
    assert_eq!(guard.accounts().get(Slot(1)).expect("a slot").metered.bytes_up.load(Relaxed), 7);
    guard.detach_and_unpin().expect("it is unpinned");
}
