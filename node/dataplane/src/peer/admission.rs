//! Whether a data message passes, and whether it is billed.

use weir_common::{DropReason, account::SessionState};

use crate::pipeline::gso_batch::BatchKind;

/// What a data message means to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It passes and is billed.
    Metered,
    /// The session is paused: by this state, or if it is `Open`, because its credit is used up. The
    /// message is not billed, and passes only to or from the gateway.
    Free(SessionState),
    /// It does not pass.
    Refused,
}

impl Admission {
    /// The reason to drop a message up.
    #[must_use]
    #[inline]
    pub fn refusal(self) -> DropReason {
        match self {
            Self::Free(SessionState::Open) => DropReason::Credit,
            _ => DropReason::SessionState,
        }
    }

    /// The reason to drop a message down.
    #[must_use]
    #[inline]
    pub fn refusal_down(self) -> DropReason {
        match self {
            Self::Free(SessionState::Open) => DropReason::DownCredit,
            _ => DropReason::DownSessionState,
        }
    }

    /// The kind of batch for a message down, if it passes.
    #[must_use]
    #[inline]
    pub fn kind(self) -> BatchKind {
        match self {
            Self::Metered => BatchKind::Metered,
            Self::Free(_) | Self::Refused => BatchKind::Free,
        }
    }
}
