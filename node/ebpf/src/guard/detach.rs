//! Ends a pinned link at once. Removing the pin alone lets the kernel do it some time later, when
//! another program may already have been refused the place.

#![expect(unsafe_code, reason = "aya has no call for BPF_LINK_DETACH")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of the kernel's `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part of the kernel's `union bpf_attr` for `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    fd: u32,
}

/// Takes the program off what the link pinned at `path` holds (kernel 5.9 and later).
pub(super) fn detach(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let get = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the path is a C string that lives until after the call, and nothing is written.
    let fd = unsafe { bpf(BPF_OBJ_GET, &get) }?;
    // SAFETY: the kernel has just made this file descriptor for us.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let detach = LinkDetach { fd: link.as_raw_fd() as u32 };
    // SAFETY: the attributes hold no pointer.
    unsafe { bpf(BPF_LINK_DETACH, &detach) }?;
    Ok(())
}

/// # Safety
///
/// `attributes` must be what the command takes, and pointers in it must be valid.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the size is the attributes' own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
