//! Limits of a session: its rate, its flows, and the work that is unpaid or unauthenticated.

pub(crate) mod bloom;
pub(crate) mod destinations;
pub(crate) mod flow_key;
pub(crate) mod flows;
pub(crate) mod meters;
pub(crate) mod policer;
