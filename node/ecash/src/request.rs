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

/// What a payment request asks of a payer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPayment {
    /// The mints whose tokens are taken.
    pub mints: Vec<String>,
    /// The unit.
    pub unit: String,
    /// The public key that tokens are to be locked to: 66 hex digits.
    pub lock: String,
}

impl WantedPayment {
    /// Reads a payment request (NUT-18) that wants tokens locked to a key. `None` if it is another.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let request = PaymentRequest::from_str(text.trim()).ok()?;
        let lock = request.nut10?;
        if lock.kind != Kind::P2PK {
            return None;
        }
        let key = cashu::PublicKey::from_hex(&lock.data).ok()?;
        Some(Self {
            mints: request.mints.iter().map(ToString::to_string).collect(),
            unit: request.unit?.to_string(),
            lock: key.to_hex(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    #[test]
    fn a_payer_reads_what_a_node_asks_for() {
        let mints = ["https://mint.example".to_owned()];
        let text = request(&mints, "sat", &key(5), "100 sat for a GiB");
        let wanted = WantedPayment::parse(&text).expect("a request");
        let expected =
            WantedPayment { mints: mints.to_vec(), unit: "sat".into(), lock: key(5).public() };
        assert_eq!(wanted, expected);
        assert_eq!(WantedPayment::parse("creqArubbish"), None);
    }
}
