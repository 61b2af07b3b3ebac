//! What a connection with one exit was like, for the consumer's history.

use crate::change_over::Cause;

/// What it was like, told when the exit is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The exit's key in the market, in hex, if it is known.
    pub exit: Option<String>,
    /// Milliseconds until it answered; `None` if it never did.
    pub connect_ms: Option<u64>,
    /// Seconds for which it was used.
    pub seconds: u64,
    /// Bytes from it.
    pub received: u64,
    /// Bytes to it.
    pub sent: u64,
    /// Why it was left, if that is its fault.
    pub failure: Option<Cause>,
}

/// Is told of each visit.
pub type Remember = Box<dyn FnMut(Visit)>;
