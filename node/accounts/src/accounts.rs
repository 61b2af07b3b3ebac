//! The array of accounts, mapped into this process.

#![expect(unsafe_code, reason = "maps memory that is shared with the kernel")]

use std::{io, os::fd::AsFd, ptr::NonNull};

use rustix::{
    fs::{FileType, fstat},
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
};
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
    /// Allocates vacant accounts that only this process has, for tests and for hosts without eBPF.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory.
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

    /// Maps the accounts behind `fd`: a `BPF_F_MMAPABLE` array map of [`Account`]s, or a file of at
    /// least `len` records.
    ///
    /// # Errors
    ///
    /// Fails if `fd` cannot be mapped, or is shorter. The kernel checks the length of a map
    /// (`array_map_mmap` in kernel/bpf/arraymap.c).
    pub fn map(fd: impl AsFd, len: u32) -> io::Result<Self> {
        let bytes = len as usize * size_of::<Account>();
        let stat = fstat(&fd)?;
        // An access behind the end of a file would be a SIGBUS.
        if FileType::from_raw_mode(stat.st_mode).is_file()
            && u64::try_from(stat.st_size).unwrap_or_default() < bytes as u64
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the file of {len} accounts has {} bytes, not {bytes}", stat.st_size),
            ));
        }
        // SAFETY: a shared mapping at an address of the kernel's choice, which is not longer than
        // what is mapped. Others (the kernel, a node before us) write to it only through atomics of
        // the same layout.
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

    /// The number of slots.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no slot at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The account of a slot. `None` beyond the last.
    #[must_use]
    #[inline]
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
    #[test]
    fn a_file_that_is_shorter_than_its_accounts_is_refused() {
        let file = tempfile::tempfile().expect("a file");
        let record = size_of::<Account>() as u64;
        file.set_len(4 * record - 1).expect("room");
        let error = Accounts::map(&file, 4).expect_err("a byte is missing");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        file.set_len(4 * record).expect("room");
        let accounts = Accounts::map(&file, 4).expect("whole");
        assert_eq!(accounts.get(Slot(3)).map(Account::billed), Some(0));
    }
}
