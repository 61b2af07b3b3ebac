//! The kernel's side: eBPF programs, and the accounts that they share with user space.

pub mod accounts;
