//! What weir's eBPF programs and its user space share: the account of a session, the reasons
//! for which packets are dropped, the arithmetic of slots, and the parsers of what arrives.
//!
//! Nothing here does I/O and nothing here is `unsafe`: the kernel's verifier and a fuzzer run
//! the same code.
#![no_std]
#![forbid(unsafe_code)]

pub mod account;
pub mod address;
pub mod blake2s;
pub mod exit;
pub mod filter;
pub mod gcra;
pub mod guard;
pub mod ip;
pub mod key;
pub mod mac1;
pub mod meter;
pub mod packet;
pub mod reason;
pub mod slot;
pub mod steering;
pub mod wire;
pub mod xsk;

pub use account::Account;
pub use address::AddressPlan;
pub use guard::GuardConfig;
pub use key::PublicKey;
pub use reason::DropReason;
pub use slot::{PeerIndex, Slot, SlotPermutation};
