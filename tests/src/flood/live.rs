//! Frames made in the kernel by a program's test run (Linux 5.18 and later).
#![expect(unsafe_code, reason = "aya loads no program that is not in an object file")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use weir::bench::place::Place;

use super::program::Instruction;

const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
/// A namespace's loopback interface is its first.
const LOOPBACK: u32 = 1;
const TEST_XDP_LIVE_FRAMES: u32 = 2;

/// The first part of the kernel's `union bpf_attr` for `BPF_PROG_LOAD`; the rest counts as zero.
#[repr(C)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The kernel's `union bpf_attr` for `BPF_PROG_TEST_RUN`.
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
    /// The kernel wants what follows to be zero.
    padding: u32,
}

/// The first part of the kernel's `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// An XDP program that says what becomes of frames that never arrived anywhere.
#[derive(Debug)]
pub(super) struct Live {
    program: OwnedFd,
    _link: OwnedFd,
    _nowhere: Place,
}

impl Live {
    /// Loads it.
    ///
    /// # Errors
    /// Without root, or if the verifier refuses it.
    pub(super) fn load(program: &[Instruction]) -> Result<Self> {
        let license = c"MIT";
        let mut load = ProgLoad {
            kind: PROG_TYPE_XDP,
            instructions: program.len() as u32,
            code: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
        };
        // SAFETY: both pointers are valid during the call, the first for as many instructions of
        // eight bytes as are given; the kernel only reads what they point to.
        let fd =
            unsafe { bpf(PROG_LOAD, &mut load) }.context("cannot load the attacker's program")?;
        // SAFETY: the kernel has just made this file descriptor for us.
        let program = unsafe { OwnedFd::from_raw_fd(fd) };
        // Attached where nothing ever arrives: a program that is attached nowhere would be made
        // known to the kernel's dispatcher, and unknown, with each run; it takes milliseconds.
        let nowhere = Place::bare()?;
        let mut create = LinkCreate {
            program: program.as_raw_fd().cast_unsigned(),
            interface: LOOPBACK,
            attach_type: ATTACH_TYPE_XDP,
            flags: XDP_FLAGS_SKB_MODE,
        };
        let link = nowhere.enter(|| {
            // SAFETY: the attributes hold no pointer.
            let fd = unsafe { bpf(LINK_CREATE, &mut create) }.context("cannot attach")?;
            // SAFETY: the kernel has just made this file descriptor for us.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })?;
        Ok(Self { program, _link: link, _nowhere: nowhere })
    }

    /// Runs it over so many copies of a frame, at most 256 at once, in the network namespace of
    /// the calling thread.
    ///
    /// # Errors
    /// If the kernel is too old.
    pub(super) fn run(&self, frame: &[u8], copies: u32) -> Result<()> {
        let mut run = TestRun {
            program: self.program.as_raw_fd().cast_unsigned(),
            len_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: copies,
            flags: TEST_XDP_LIVE_FRAMES,
            batch: copies.min(256),
            ..TestRun::default()
        };
        // SAFETY: the frame is valid for its length during the call, and the kernel only reads it.
        unsafe { bpf(PROG_TEST_RUN, &mut run) }.context("cannot make frames: Linux 5.18 can")?;
        Ok(())
    }
}

/// # Safety
/// `attributes` must be what the command takes, and pointers in it must be valid.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: the caller's promise; the kernel writes results within the attributes' own size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
