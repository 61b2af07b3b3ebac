//! The operations that are submitted: their kinds, and the files that they are about.

use io_uring::{
    opcode, squeue,
    types::{Fd, Fixed},
};

use super::Reads;

/// The indexes of the registered files.
pub(super) const V4: Fixed = Fixed(0);
pub(super) const V6: Fixed = Fixed(1);
pub(super) const TUN: Fixed = Fixed(2);
pub(super) const WAKER: Fixed = Fixed(3);
pub(super) const UPLINK: Fixed = Fixed(4);

/// The kind of an operation, which is the upper half of its user data. The lower half is an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    ReceiveV4 = 1,
    ReceiveV6 = 2,
    Read = 3,
    Waker = 4,
    Write = 5,
    Send = 6,
    Xsk = 7,
    Uplink = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::ReceiveV4,
        Self::ReceiveV6,
        Self::Read,
        Self::Waker,
        Self::Write,
        Self::Send,
        Self::Xsk,
        Self::Uplink,
    ];

    pub(super) fn tag(self, index: usize) -> u64 {
        (self as u64) << 32 | index as u64 & 0xffff_ffff
    }

    pub(super) fn of(user_data: u64) -> Option<(Self, usize)> {
        let kind = Self::ALL.into_iter().find(|kind| *kind as u64 == user_data >> 32)?;
        Some((kind, (user_data & 0xffff_ffff) as usize))
    }
}

/// A read into a buffer that the kernel picks from a group.
pub(super) fn read(reads: Reads, file: Fd, len: usize, group: u16) -> squeue::Entry {
    match reads {
        Reads::Multishot => opcode::ReadMulti::new(file, 0, group).build(),
        Reads::Single => opcode::Read::new(file, std::ptr::null_mut(), len as u32)
            .buf_group(group)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT),
    }
}
