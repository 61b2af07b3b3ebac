//! The kernel's flows, as sessions want to have them removed.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use weir_host::conntrack::Conntrack;
use weir_sessions::FlowControl;

/// Removes flows from the kernel's connection tracking.
pub(super) struct KernelFlows(pub(super) Conntrack);

impl FlowControl for KernelFlows {
    fn forget(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()> {
        self.0.forget(consumers)
    }

    fn forget_all_but(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()> {
        self.0.forget_all_but(consumers)
    }
}
