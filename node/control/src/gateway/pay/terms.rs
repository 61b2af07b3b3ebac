//! Converts the payment configuration to the ledger's types.

use weir_config::Payment;
use weir_promise::{Price, Terms, Use};

/// The price for a new session.
pub(super) fn price(config: &Payment) -> Price {
    Price { per_gib: config.per_gib.0, per_hour: config.per_hour.0 }
}

/// The lowest price that is accepted.
pub(super) fn floor(config: &Payment) -> Price {
    Price { per_gib: config.least_per_gib(), per_hour: config.least_per_hour() }
}

/// The node's addresses for settlement; `None` while one is missing.
pub(super) fn terms(config: &Payment) -> Option<Terms> {
    Some(Terms {
        chain_id: config.chain_id.into(),
        provider: config.provider?,
        hermes: config.hermes?,
        registry: config.registry?,
        channel_implementation: config.channel_implementation?,
    })
}

/// What a session may use before it pays, at any price.
pub(super) fn unpaid(config: &Payment) -> Use {
    Use { bytes: u64::from(config.unpaid_mib) << 20, seconds: config.unpaid_seconds.into() }
}
