//! The rules that decide about a flow, and how many flows each has decided about.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Declares [`RuleId`]. `ALL` follows the order of the variants, so that a rule indexes it.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident, $allows:literal, $text:literal;)*) => {
        /// The rule that decides about a flow. [`RuleId::index`] is an index into arrays of
        /// [`RuleId::COUNT`] counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RuleId { $($(#[$doc])* $name,)* }

        impl RuleId {
            /// Every rule, in the order of [`RuleId::index`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The rule's name, as in [`crate::Verdict::rule`]. For a rule that refuses, it is the
            /// metric's label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether a flow that the rule decides about may leave.
            #[must_use]
            #[inline]
            pub const fn allows(self) -> bool {
                match self { $(Self::$name => $allows,)* }
            }
        }
    };
}

rules! {
    /// No other rule matches.
    Default, true, "default";
    /// An exception: `policy.allow` and its files.
    Allowed, true, "allowed";
    /// One of the node's own services, at the gateway.
    Service, true, "service";
    /// An address of this machine.
    HostDestination, false, "host_destination";
    /// An address of the consumers' pools.
    ConsumerToConsumer, false, "consumer_to_consumer";
    /// `policy.block` and its files.
    BlockedDestination, false, "blocked_destination";
    /// A private or link-local network.
    PrivateDestination, false, "private_destination";
    /// A cloud's metadata service.
    MetadataDestination, false, "metadata_destination";
    /// An address that is not on the internet.
    ReservedDestination, false, "reserved_destination";
    /// TCP port 25, where it is blocked.
    Smtp, false, "smtp";
    /// Another port of `policy.blocked_ports` and its files.
    BlockedPort, false, "blocked_port";
}

impl RuleId {
    /// How many rules there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its place in an array of [`RuleId::COUNT`] counters.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The rule with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.as_str() == name)
    }
}

/// How many flows each rule has decided about. Shared by the workers.
#[derive(Debug, Default)]
pub struct RuleCounts([AtomicU64; RuleId::COUNT]);

impl RuleCounts {
    /// Counts a flow that the rule has decided about.
    #[inline]
    pub fn count(&self, rule: RuleId) {
        if let Some(count) = self.0.get(rule.index()) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// What has been counted. Not a single moment's state if flows are counted meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> [(RuleId, u64); RuleId::COUNT] {
        std::array::from_fn(|index| {
            let rule = RuleId::ALL.get(index).copied().unwrap_or(RuleId::Default);
            (rule, self.0.get(index).map_or(0, |count| count.load(Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indices_identify_a_rule() {
        for (index, rule) in RuleId::ALL.iter().enumerate() {
            assert_eq!(rule.index(), index);
            assert_eq!(RuleId::from_name(rule.as_str()), Some(*rule));
        }
        assert_eq!(RuleId::from_name("other"), None);
    }

    #[test]
    fn each_rule_has_a_count_of_its_own() {
        let counts = RuleCounts::default();
        for (index, rule) in RuleId::ALL.iter().enumerate() {
            (0..=index).for_each(|_| counts.count(*rule));
        }
        for (index, (rule, count)) in counts.snapshot().into_iter().enumerate() {
            assert_eq!((rule, count), (RuleId::ALL[index], index as u64 + 1));
        }
    }
}
