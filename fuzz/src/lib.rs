//! Fuzz targets over packets: each is a function of bytes that panics where something does not hold.
//! Those over text are in `weir_fuzz_text`.
//!
//! `tests/replay.rs` runs them over their cases and over mutations of these, on stable Rust
//! ([`replay`]); `fuzz_targets` are the same for libFuzzer.

mod aead;
mod exit;
mod guard;
mod handshake;
mod nat;
mod path;
pub mod replay;

pub use aead::aead;
pub use exit::exit;
pub use guard::{guard, judge, xsk};
pub use handshake::handshake;
pub use nat::nat;
pub use path::{datagrams, frames, inner};

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by name. The cases of each are in `cases/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("judge", judge),
    ("guard", guard),
    ("xsk", xsk),
    ("exit", exit),
    ("datagrams", datagrams),
    ("frames", frames),
    ("inner", inner),
    ("nat", nat),
    ("handshake", handshake),
    ("aead", aead),
];

/// Bytes that are read as values, from the front. Where there are none left, all are zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn half(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// At most `most` bytes, as many as the next two say.
    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.half()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}
