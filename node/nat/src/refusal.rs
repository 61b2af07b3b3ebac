//! Why a packet does not leave.

use weir_common::DropReason;

use crate::answer::Answer;

/// Why a packet of a consumer does not leave, and what the consumer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason that it is counted under.
    pub reason: DropReason,
    /// What its sender is told, if anything. How often is up to the caller.
    pub answer: Option<Answer>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, answer: None }
    }
}
