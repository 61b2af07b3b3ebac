//! What the configuration says of payments, in the words of the ledger.

use weir_config::Payment;
use weir_ledger::payment::{Price, Terms, Use};

/// What a new session pays.
pub(super) fn price(config: &Payment) -> Price {
    Price { per_gib: config.per_gib.0, per_hour: config.per_hour.0 }
}

/// The lowest price that is accepted.
pub(super) fn floor(config: &Payment) -> Price {
    Price { per_gib: config.least_per_gib(), per_hour: config.least_per_hour() }
}

/// What the node settles with; `None` while part of it is missing.
pub(super) fn terms(config: &Payment) -> Option<Terms> {
    Some(Terms {
        chain_id: config.chain_id.into(),
        provider: config.provider?,
        hermes: config.hermes?,
        registry: config.registry?,
        channel_implementation: config.channel_implementation?,
    })
}

/// What a session may use before it pays, whatever its price.
pub(super) fn unpaid(config: &Payment) -> Use {
    Use { bytes: u64::from(config.unpaid_mib) << 20, seconds: config.unpaid_seconds.into() }
}
