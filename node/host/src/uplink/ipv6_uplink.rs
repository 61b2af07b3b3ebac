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
                "consumers' IPv6 leaves by {name}, where this machine's default route of IPv6 \
                 goes; the guard is on {uplink} alone"
            )),
            Self::Refused(name) => Some(format!(
                "consumers have no IPv6: its default route goes by {name}, and node.uplink is \
                 {uplink:?}, by which alone they leave. Fix: set node.uplink to \"auto\", and \
                 each family leaves by its own default route"
            )),
        }
    }
}
