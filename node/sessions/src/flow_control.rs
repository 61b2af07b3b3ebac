//! The flows of consumers in the kernel, as sessions see them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

/// The flows of consumers in the kernel, as the control plane sees them. They go by the inner
/// addresses, which the next session in a slot gets: it must not get the flows with them.
pub trait FlowControl: Send + Sync {
    /// Removes every flow of these consumers. None is left when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// When the kernel does not remove them; some may be left then.
    fn forget(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()>;

    /// Removes the flows of all other consumers there could be.
    ///
    /// # Errors
    ///
    /// As [`FlowControl::forget`].
    fn forget_all_but(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()>;
}
