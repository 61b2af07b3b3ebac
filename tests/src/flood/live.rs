//! Many frames of one, made in the kernel and handed to an interface's driver: a program's test run
//! puts one on its way (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18 and later), a device map with the
//! interface in every place makes a copy for each, and a program in the map changes each copy.
#![expect(unsafe_code, reason = "aya loads no program that is not in an object file")]

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{Context as _, Result};

use super::program::{self, Instruction};

// Commands.
const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const PROG_LOAD: c_long = 5;
const PROG_TEST_RUN: c_long = 10;

const MAP_TYPE_DEVMAP: u32 = 14;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP_DEVMAP: u32 = 33;
const ATTACH_TYPE_XDP: u32 = 37;
const TEST_XDP_LIVE_FRAMES: u32 = 2;

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

/// Likewise for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    value: u32,
    len_in: u32,
    len_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_len_in: u32,
    context_len_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    processor: u32,
    batch: u32,
    padding: u32,
}

/// A way out for copies of frames.
#[derive(Debug)]
pub(super) struct Live(OwnedFd);

impl Live {
    /// Prepares it: so many copies of each frame leave through the interface with this number in
    /// the calling thread's network namespace, each changed by this program.
    ///
    /// # Errors
    /// Without root, or if the verifier refuses the program.
    pub(super) fn new(interface: u32, copies: u32, change: &[Instruction]) -> Result<Self> {
        let mut create =
            MapCreate { kind: MAP_TYPE_DEVMAP, key_len: 4, value_len: 8, places: copies };
        // SAFETY: the attributes hold no pointer.
        let map = unsafe { made(MAP_CREATE, &mut create) }.context("cannot make a map")?;
        let change = load(change, ATTACH_TYPE_XDP_DEVMAP)?;
        let device = Device { interface, program: number(&change) };
        for place in 0..copies {
            let mut update = MapUpdate {
                map: number(&map).into(),
                key: &raw const place as u64,
                value: &raw const device as u64,
                flags: 0,
            };
            // SAFETY: key and value are valid during the call, of the lengths that the map was made
            // with; the kernel only reads them.
            unsafe { bpf(MAP_UPDATE_ELEM, &mut update) }.context("cannot use the interface")?;
        }
        // The program holds the map, and the map the other program.
        Ok(Self(load(&program::to_all_of(map.as_raw_fd()), ATTACH_TYPE_XDP)?))
    }

    /// Sends the copies of a frame; in the network namespace in which this was prepared.
    ///
    /// # Errors
    /// If the kernel is too old.
    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        let mut run = TestRun {
            program: number(&self.0),
            len_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            flags: TEST_XDP_LIVE_FRAMES,
            batch: 1,
            ..TestRun::default()
        };
        // SAFETY: the frame is valid for its length during the call, and the kernel only reads it.
        unsafe { bpf(PROG_TEST_RUN, &mut run) }.context("cannot make frames: Linux 5.18 can")?;
        Ok(())
    }
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
    // SAFETY: the caller's promise; the kernel writes results within the attributes' own size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
