//! The comparison with other WireGuard implementations, end to end ([`compare`]). What it is made of
//! is in `weir_testkit`.

pub mod compare;
