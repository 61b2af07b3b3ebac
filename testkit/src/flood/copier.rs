//! Many frames of one. A frame sent into a pair of interfaces of its own meets an XDP program at
//! the other end, which sends it on to all places of a device map. In each place is the interface
//! through which the flood is to leave, and a program that changes the copy which it gets.
#![expect(unsafe_code, reason = "aya loads no program that is not in an object file")]

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

use super::program::{self, Instruction};
use crate::{Namespace, frames::FrameSender};

// Commands.
const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const PROG_LOAD: c_long = 5;
const LINK_CREATE: c_long = 28;

const MAP_TYPE_DEVMAP: u32 = 14;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP_DEVMAP: u32 = 33;
const ATTACH_TYPE_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 4;

/// The kernel's `union bpf_attr` for `BPF_MAP_CREATE`; what follows counts as zero, in all of them.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_len: u32,
    value_len: u32,
    places: u32,
}

/// Likewise for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct MapUpdate {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// The value in a device map.
#[repr(C)]
struct Device {
    interface: u32,
    program: u32,
}

/// Likewise for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
    version_and_flags: [u32; 2],
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Likewise for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// What makes the copies.
#[derive(Debug)]
pub(super) struct Copier {
    sender: FrameSender,
    _link: OwnedFd,
    _namespace: Namespace,
}

impl Copier {
    /// Prepares it: so many copies of each frame leave through the interface with this number in
    /// the calling thread's network namespace, each changed by this program.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses one of the parts.
    pub(super) fn new(interface: u32, copies: u32, change: &[Instruction]) -> Result<Self> {
        let change = load(change, ATTACH_TYPE_XDP_DEVMAP)?;
        let map = map(copies, &Device { interface, program: number(&change) })?;
        let spread = load(&program::to_all_of(map.as_raw_fd()), ATTACH_TYPE_XDP)?;
        let namespace = Namespace::bare()?;
        namespace.ip("link add in0 type veth peer name out0")?;
        for end in ["in0", "out0"] {
            // Without addresses the kernel sends nothing of its own.
            namespace.ip(&format!("link set {end} addrgenmode none"))?;
            namespace.ip(&format!("link set {end} up"))?;
        }
        let (sender, link) = namespace.enter(|| {
            let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            let number = |name| name_to_index(&any, name).context("no such interface");
            Ok((FrameSender::new(number("in0")?)?, attach(&spread, number("out0")?)?))
        })?;
        // The link holds the program, that the map, and the map the other program.
        Ok(Self { sender, _link: link, _namespace: namespace })
    }

    /// Sends the copies of a frame.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        self.sender.send(frame)
    }
}

/// A device map with the same in all of its places.
fn map(places: u32, device: &Device) -> Result<OwnedFd> {
    let mut create = MapCreate { kind: MAP_TYPE_DEVMAP, key_len: 4, value_len: 8, places };
    // SAFETY: the attributes hold no pointer.
    let map = unsafe { made(MAP_CREATE, &mut create) }.context("cannot make a map: run as root")?;
    for place in 0..places {
        let mut update = MapUpdate {
            map: number(&map).into(),
            key: &raw const place as u64,
            value: ptr::from_ref(device) as u64,
            flags: 0,
        };
        // SAFETY: key and value are valid during the call, of the lengths that the map was made
        // with; the kernel only reads them.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut update) }.context("cannot use the interface")?;
    }
    Ok(map)
}

fn load(program: &[Instruction], attach_type: u32) -> Result<OwnedFd> {
    let mut load = ProgLoad {
        kind: PROG_TYPE_XDP,
        instructions: program.len() as u32,
        code: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log: [0; 2],
        version_and_flags: [0; 2],
        name: [0; 16],
        interface: 0,
        attach_type,
    };
    // SAFETY: both pointers are valid during the call, the first for as many instructions of eight
    // bytes as are given; the kernel only reads what they point to.
    unsafe { made(PROG_LOAD, &mut load) }.context("cannot load the attacker's program: run as root")
}

/// Attaches a program to an interface of the calling thread's network namespace.
fn attach(program: &OwnedFd, interface: u32) -> Result<OwnedFd> {
    let mut create = LinkCreate {
        program: number(program),
        interface,
        attach_type: ATTACH_TYPE_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the attributes hold no pointer.
    unsafe { made(LINK_CREATE, &mut create) }.context("cannot attach the attacker's program")
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A command that gives a new file descriptor.
///
/// # Safety
/// As [`bpf`], and it must be such a command.
unsafe fn made<T>(command: c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the kernel has just made the descriptor for us.
    unsafe { bpf(command, attributes).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// # Safety
/// `attributes` must be what the command takes, and pointers in it must be valid.
unsafe fn bpf<T>(command: c_long, attributes: &mut T) -> io::Result<i32> {
    let (attributes, size) = (ptr::from_mut(attributes), size_of::<T>());
    // SAFETY: the caller's promise; the kernel writes nothing beyond the attributes' own size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
