//! Mapped memory that the kernel reads or writes beside us: buffers, frames, rings.

#![expect(unsafe_code, reason = "maps memory")]

use std::{ffi::c_void, io, os::fd::AsFd, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A mapping, readable and writable; unmapped when dropped. Whoever has it sees to who may touch
/// which part of it, and that the kernel lets go of it first.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to its owner alone, on whichever thread that is.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed memory of this process alone; it begins at a page.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be had.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, flags)? };
        Self::new(base, len)
    }

    /// What the kernel offers at an offset of one of its own descriptors.
    ///
    /// # Errors
    ///
    /// Fails when it offers nothing there.
    pub(crate) fn offered(by: impl AsFd, at: u64, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe { mmap(std::ptr::null_mut(), len, access, flags, by, at)? };
        Self::new(base, len)
    }

    fn new(base: *mut c_void, len: usize) -> io::Result<Self> {
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Where it begins.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` was given; the owner has outlived the kernel's use of it.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "unmapping: {result:?}");
    }
}
