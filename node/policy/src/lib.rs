//! The exit policy as the operator and the registries have it: what consumers may not reach, and
//! why. Pure but for [`Lists::read`]; `weir_host::nft` makes rules of it.

pub mod lists;
pub mod merge;
pub mod refused;
pub mod verdict;

pub use lists::{ListError, Lists, Origin};
pub use merge::{Networks, Ports};
pub use verdict::{FlowSpec, Judge, PolicyContext, SharedJudge, Verdict, judge};
