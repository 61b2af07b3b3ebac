//! Mapped memory that the kernel reads and writes too: buffers, frames, rings.

#![expect(unsafe_code, reason = "maps memory")]

use std::{ffi::c_void, io, os::fd::AsFd, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A readable and writable mapping, which is unmapped when dropped. Its owner decides who may touch
/// which part of it, and drops it only when the kernel no longer uses it.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to its owner alone, on whichever thread that is.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps zeroed, page-aligned memory that only this process has.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, flags)? };
        Self::new(base, len)
    }

    /// Maps what the kernel offers at an offset of a descriptor.
    ///
    /// # Errors
    ///
    /// Fails if it offers nothing there.
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

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length in bytes.
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
