//! WireGuard's protocol state (whitepaper, sections 5 and 6): handshakes, keypairs, the replay window,
//! timers and cookies. It has no lock and reads no clock: the caller passes the time in, in
//! nanoseconds of a clock that does not go backwards. [`crate::tunnel`] puts the parts together.
//!
//! - [`symmetric`]: the symmetric state of Noise_IKpsk2, which both roles share
//! - [`handshake`]: the messages of both roles
//! - [`keypair`]: the keys of a session, with their counters
//! - [`replay`]: which counters have been received
//! - [`timers`]: when something is due
//! - [`cookie`]: the MACs of outgoing handshake messages

pub(crate) mod cookie;
pub(crate) mod handshake;
pub(crate) mod keypair;
pub(crate) mod replay;
pub(crate) mod symmetric;
pub(crate) mod timers;

#[cfg(test)]
mod tests;
