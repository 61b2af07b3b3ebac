//! What the benchmarks share: [`compare`] is the end-to-end comparison with other WireGuard
//! implementations. The rest is in `weir_testkit`.

pub mod compare;
