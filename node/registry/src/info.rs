//! The registry's description of itself (NIP-11).

use serde_json::{Value, json};

use crate::{
    admission::{KINDS, MAX_TAGS},
    filter::{DEFAULT_LIMIT, MAX_LIMIT},
    registry::Rules,
    relay::{MAX_MESSAGE, MAX_SUBSCRIPTION_ID, MAX_SUBSCRIPTIONS},
};

/// What a registry says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its name for people.
    pub title: String,
    /// Its version.
    pub version: String,
    /// The WireGuard key with which it calls nodes back, if it does.
    pub wireguard_key: Option<String>,
}

impl Description {
    /// The document of NIP-11.
    #[must_use]
    pub fn document(&self, rules: &Rules) -> Value {
        let mut nips = vec![1, 9, 11, 13, 40];
        // Only between listed peers.
        nips.push(77);
        let mut document = json!({
            "name": self.title,
            "description": "Listings of VPN exits. Every listing is signed by its exit.",
            "software": "weir",
            "version": self.version,
            "supported_nips": nips,
            "limitation": {
                "max_message_length": MAX_MESSAGE,
                "max_subscriptions": MAX_SUBSCRIPTIONS,
                "max_subid_length": MAX_SUBSCRIPTION_ID,
                "max_limit": MAX_LIMIT,
                "default_limit": DEFAULT_LIMIT,
                "max_event_tags": MAX_TAGS,
                "min_pow_difficulty": rules.proof_of_work,
                "auth_required": false,
                "payment_required": false,
                "restricted_writes": true,
            },
            "kinds": KINDS,
        });
        if let Some(key) = &self.wireguard_key
            && let Some(document) = document.as_object_mut()
        {
            document.insert("wireguard_key".into(), json!(key));
        }
        document
    }
}
