//! How packets reach a worker and leave it. Everything that is `unsafe` in this crate is below here.

pub(crate) mod buf_ring;
pub(crate) mod cmsg;
pub(crate) mod cursor;
pub(crate) mod mmap;
pub(crate) mod syscall;
pub(crate) mod tx;
pub(crate) mod udp;
pub(crate) mod uring;
pub(crate) mod xsk;
