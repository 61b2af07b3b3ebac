//! What a payer is to send.

use std::str::FromStr as _;

use cashu::{Kind, MintUrl, Nut10SecretRequest, PaymentRequest};

use crate::{Keysets, LockKey};

/// A payment request (NUT-18) for any amount, locked to the node's key, as the header `X-Cashu` has it (NUT-24).
#[must_use]
pub fn request(mints: &[String], unit: &str, key: &LockKey, description: &str) -> String {
    let mints = mints.iter().filter_map(|mint| MintUrl::from_str(mint).ok()).collect();
    let lock = Nut10SecretRequest::new(Kind::P2PK, key.public(), None::<Vec<Vec<String>>>);
    PaymentRequest::builder()
        .unit(Keysets::new(unit).currency_unit().clone())
        .mints(mints)
        .description(description)
        .single_use(false)
        .nut10(lock)
        .build()
        .to_string()
}
