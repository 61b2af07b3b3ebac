//! weir's eBPF programs. What they decide is decided by `weir-common`, which user space runs too;
//! here is only the way to the packet and to the maps.
//!
//! - [`guard`]: XDP on the uplink. Judges and counts the datagrams to our port.
//! - [`exit`]: which frames are return traffic of the node's NAT.
//! - [`steering`]: chooses the UDP socket of a datagram and the TUN queue of a packet.
//! - [`memory`]: every access to a packet or a shared counter that needs `unsafe`.
#![no_std]
#![no_main]
// The target's Rust has no atomic addition, its assembly has.
#![feature(asm_experimental_arch)]

mod exit;
mod guard;
mod maps;
mod memory;
mod steering;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
