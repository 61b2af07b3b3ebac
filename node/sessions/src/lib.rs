//! Sessions: who may use the node, and how much may pass.
//!
//! [`registry::Sessions`] is the live set and the only way to change it. It keeps three places in
//! step: the ledger on disk ([`weir_ledger::SharedLedger`]), the accounts in shared memory
//! ([`weir_accounts::Accounts`]) and the packet path ([`weir_accounts::PeerControl`]).

mod flow_control;
pub mod keys;
pub mod limits;
pub mod name;
pub mod registry;
mod slots;
mod snapshot;
pub mod wg_quick;

pub use flow_control::FlowControl;
pub use registry::{SessionError, Sessions};
pub use snapshot::{Hold, Snapshot};
