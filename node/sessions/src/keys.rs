//! The node's own keys, while it runs.

mod ring;
pub mod rotation;

pub use ring::{KeyChangeError, KeyRing, NodeKeys, SharedKeyRing};
