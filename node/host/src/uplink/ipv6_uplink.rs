//! By which interface IPv6 leaves, where that of IPv4 is another one.

/// By which interface IPv6 leaves this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ipv6Uplink {
    /// By the uplink, as far as there is IPv6.
    #[default]
    Same,
    /// By this other interface, which is the uplink of consumers' IPv6.
    Other(String),
    /// By this other interface, which consumers' IPv6 may not leave by, as the configuration names
    /// the uplink.
    Refused(String),
}

impl Ipv6Uplink {
    /// The uplink of IPv6, where it is another interface than that of IPv4.
    #[must_use]
    pub fn other(&self) -> Option<&str> {
        match self {
            Self::Other(name) => Some(name),
            Self::Same | Self::Refused(_) => None,
        }
    }

    /// What the operator should know of it.
    #[must_use]
    pub fn note(&self, uplink: &str) -> Option<String> {
        match self {
            Self::Same => None,
            Self::Other(name) => Some(format!(
                "consumers' IPv6 leaves through {name}, the interface of the IPv6 default route; \
                 the guard is only on {uplink}"
            )),
            Self::Refused(name) => Some(format!(
                "consumers have no IPv6: its default route uses {name}, but node.uplink is \
                 {uplink:?}, their only way out. Fix: set node.uplink to \"auto\", so that each \
                 family uses its own default route"
            )),
        }
    }
}
