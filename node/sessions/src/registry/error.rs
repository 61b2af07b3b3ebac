//! What can be wrong with a request about sessions.

use weir_common::Slot;

use super::{MAX_REFERENCE, MIN_PREFIX};
use crate::name::NameError;
use weir_ledger::{LedgerError, SessionId};
use weir_wireguard::keys::KeyError;

/// Why a session could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The name will not do.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key will not do.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another session has the name.
    #[error("session {0} has this name already: choose another, or remove that session")]
    NameTaken(SessionId),
    /// Another session has the key.
    #[error(
        "session {0} has this public key already: a key belongs to one session, use another key"
    )]
    KeyTaken(SessionId),
    /// No slot is free.
    #[error(
        "all {0} session slots are in use: remove a session, or raise max_sessions (and the \
         address pool, if it is the limit) in the configuration and restart weir"
    )]
    Full(u32),
    /// The kernel keeps the flows of former sessions, which their successors would get.
    #[error(
        "cannot remove former sessions' flows from the kernel's flow table: {0}. Fix: run weir \
         with CAP_NET_ADMIN, on a kernel with nf_conntrack_netlink (modprobe nf_conntrack_netlink \
         tells whether yours has it)"
    )]
    Flows(#[source] std::io::Error),
    /// The operator's limit of sessions is reached.
    #[error(
        "there are {0} sessions already, and no more are allowed: remove one, or raise the limit \
         with `weir limits set sessions=N` (limits.sessions in the configuration)"
    )]
    AtMost(u32),
    /// The node's quota is used up.
    #[error(
        "the node's quota of bytes is used up: wait until the day or month ends (`weir limits` says \
         when), or raise it with `weir limits set bytes-per-day=AMOUNT` or bytes-per-month"
    )]
    Quota,
    /// A session of the ledger does not fit the configuration.
    #[error(
        "session {id} has slot {}, but the configuration has room for {max} slots: raise \
         max_sessions and the address pool to more than {}", slot.0, slot.0
    )]
    NoRoom {
        /// The session.
        id: SessionId,
        /// Its slot.
        slot: Slot,
        /// How many slots there are.
        max: u32,
    },
    /// Nothing of this identifier, name or key.
    #[error(
        "no session {0:?}: give an identifier, {MIN_PREFIX} or more of its first digits, a name \
         or a public key, as `weir session list` shows them"
    )]
    NotFound(String),
    /// Several sessions' identifiers begin so.
    #[error("more than one session identifier begins with {0:?}: give more digits")]
    Ambiguous(String),
    /// A reference to an extension of credit is missing or too long.
    #[error(
        "credit needs a reference of 1 to {MAX_REFERENCE} bytes, so that it is never added twice: \
         use for example the payment number"
    )]
    Reference,
    /// An extension of nothing.
    #[error("the request adds no credit: give bytes, seconds, or both")]
    NoCredit,
    /// The reference was used for another extension.
    #[error(
        "the reference {0:?} was used before, for a different amount of credit: nothing was \
         added; use a new reference for each payment"
    )]
    Contradicts(String),
    /// The ledger failed; nothing has changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
