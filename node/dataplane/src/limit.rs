//! What a session may do: its rate, its new flows, and the work that nobody pays for.

pub(crate) mod bloom;
pub(crate) mod flow_key;
pub(crate) mod flows;
pub(crate) mod meters;
pub(crate) mod policer;
