//! The array of accounts, mapped into this process.

#![expect(unsafe_code, reason = "maps memory that is shared with the kernel")]

use std::{io, os::fd::AsFd, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use weir_common::{Account, Slot};

/// One [`Account`] per slot, in memory that the kernel's guard may share.
#[derive(Debug)]
pub struct Accounts {
    base: NonNull<Account>,
    len: u32,
}

// SAFETY: an account consists of atomics only, and the mapping lives as long as `self`.
unsafe impl Send for Accounts {}
// SAFETY: as above.
unsafe impl Sync for Accounts {}

impl Accounts {
    /// Accounts of this process alone, all vacant: for tests, and for hosts without eBPF.
    ///
    /// # Errors
    ///
    /// Fails when the memory cannot be had.
    pub fn private(len: u32) -> io::Result<Self> {
        let bytes = len as usize * size_of::<Account>();
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes.max(1),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        Self::new(base, len)
    }

    /// The accounts behind `fd`: a `BPF_F_MMAPABLE` array map of [`Account`]s, or a file of at
    /// least `len` records.
    ///
    /// # Errors
    ///
    /// Fails when `fd` cannot be mapped.
    pub fn map(fd: impl AsFd, len: u32) -> io::Result<Self> {
        let bytes = len as usize * size_of::<Account>();
        // SAFETY: a shared mapping at an address of the kernel's choice. Others (the kernel, a
        // node before us) write to it only through atomics of the same layout.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes.max(1),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )?
        };
        Self::new(base, len)
    }

    fn new(base: *mut core::ffi::c_void, len: u32) -> io::Result<Self> {
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len })
    }

    /// How many slots there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no slot at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The account of a slot, or `None` beyond the last.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&Account> {
        (slot.0 < self.len).then(|| {
            // SAFETY: the slot is within the mapping, whose pages are aligned for an `Account`,
            // and every bit pattern of its atomics is valid.
            unsafe { self.base.add(slot.0 as usize).as_ref() }
        })
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        let bytes = (self.len as usize * size_of::<Account>()).max(1);
        // SAFETY: unmaps what `new` was given, which nobody borrows any more.
        let result = unsafe { munmap(self.base.as_ptr().cast(), bytes) };
        debug_assert!(result.is_ok(), "unmapping the accounts: {result:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_beyond_the_last_have_no_account() {
        let accounts = Accounts::private(3).expect("memory");
        assert!(accounts.get(Slot(2)).is_some());
        assert!(accounts.get(Slot(3)).is_none());
        assert!(accounts.get(Slot(u32::MAX)).is_none());
    }
}
