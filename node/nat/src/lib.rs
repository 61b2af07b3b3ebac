//! The flow table and the translation of consumers' packets to the node's external addresses: NAT as
//! carriers do it (RFC 4787, 5382, 5508, 6888, 7857), without I/O and without a clock.
//!
//! Each worker has a table of its own: it owns the sessions whose slot it serves, and the blocks of
//! ports that [`Ports`] gives it. So no two workers share a flow, and nothing here locks.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod answer;
mod blocks;
mod config;
mod down;
mod flow;
mod fragments;
mod hash;
mod icmp;
mod mapping;
mod mss;
mod nat;
mod open;
mod owner;
mod parse;
mod policy;
mod ports;
mod refusal;
mod rewrite;
mod session;
mod slots;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod up;

pub use self::{
    answer::{Answer, Gateways},
    config::{BlockEvent, FlowCounts, FlowGate, MAX_ADDRESSES, NatConfig, NoGate, V6},
    nat::Nat,
    policy::{AllowAll, NewFlow, Policy, Protocol},
    ports::{PortBlock, Ports},
    refusal::Refusal,
};
