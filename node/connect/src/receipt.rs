//! Whether a node's usage receipts are right: signed by its key, of this session, never less than
//! before, and in agreement with the bill that its gateway shows. Pure.

use serde::{Deserialize, Serialize};
pub use weir_receipt::{Answer, Receipt};
use weir_receipt::{NotSigned, is_signer};

pub mod store;
#[cfg(test)]
mod tests;

/// The bills that are remembered: a new receipt says at least what the oldest of them did. It was
/// signed after the last receipt that was seen, and the node's counters were read some seconds
/// before that, while its disk was busy.
const MAX_BILLS: usize = 3;

/// What is wrong with a receipt. Only the node can have done it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is something else.
    #[error("the gateway's answer is not a receipt")]
    Unreadable,
    /// It proves nothing.
    #[error("it {0}")]
    NotSigned(NotSigned),
    /// The answer around it names another key than the receipts are signed with.
    #[error("the gateway names another key for receipts than before")]
    Signer,
    /// It is about somebody else.
    #[error("it is about another consumer's key")]
    Key,
    /// The session cannot change while the tunnel is up.
    #[error("it is about the session {now}, and the one before was about {before}")]
    Session {
        /// The session of the receipt before.
        before: String,
        /// The session of this one.
        now: String,
    },
    /// A number fell.
    #[error("{what} was {before}, and is {now}")]
    Fell {
        /// Which.
        what: &'static str,
        /// In the receipt before.
        before: u64,
        /// In this one.
        now: u64,
    },
    /// Two receipts have the same number.
    #[error("number {0} says something else than before")]
    Rewritten(u64),
    /// It says more than the bill that was asked for after it.
    #[error("it says {receipt} bytes, and the bill {billed}")]
    AboveBill {
        /// The receipt's sum.
        receipt: u64,
        /// The bill's.
        billed: u64,
    },
    /// It says less than a bill that was shown before it was signed.
    #[error("it says {receipt} bytes, and an earlier bill {billed}")]
    BelowBill {
        /// The receipt's sum.
        receipt: u64,
        /// The bill's.
        billed: u64,
    },
}

/// Where the key comes from that receipts must be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration names it.
    Configuration,
    /// The gateway named it when it was first asked, perhaps in an earlier connection.
    FirstUse,
}

impl Origin {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "the configuration names its key",
            Self::FirstUse => "its key is the one of the first use",
        }
    }
}

/// The key that receipts must be signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// It, in base64.
    pub signer: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// A receipt that was verified, with what is needed to verify it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The node: a file, or its name in the market.
    pub node: String,
    /// The key.
    pub pinned: Pinned,
    /// The receipt.
    pub receipt: Receipt,
    /// When it was verified, in seconds since 1970.
    pub at: u64,
}

/// The receipts of one session.
#[derive(Clone, Debug)]
pub struct Receipts {
    public_key: String,
    pinned: Option<Pinned>,
    last: Option<Receipt>,
    /// Whether `last` is of this connection: the operator may have made a new session in between.
    is_current: bool,
    /// The bills that were shown with the last answers, the newest last.
    bills: Vec<u64>,
}

impl Receipts {
    /// Those of the session with this public key (base64). `named` is the key in its configuration,
    /// and `before` the last receipt of an earlier connection.
    #[must_use]
    pub fn new(public_key: &str, named: Option<&str>, before: Option<Verified>) -> Self {
        let (stored, last) = before.map(|it| (it.pinned, it.receipt)).unzip();
        let named = named
            .filter(|signer| is_signer(signer))
            .map(|signer| Pinned { signer: signer.to_owned(), origin: Origin::Configuration });
        Self {
            public_key: public_key.to_owned(),
            pinned: named.or(stored),
            last: last.filter(|last| last.public_key == public_key),
            is_current: false,
            bills: Vec::new(),
        }
    }

    /// The key, if it is known already.
    #[must_use]
    pub const fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// Takes the gateway's answer, and the bill that was asked for after it. Gives the receipt if it
    /// is a new one in this connection.
    ///
    /// # Errors
    ///
    /// Says what is wrong. The node is to be left then.
    pub fn take(&mut self, answer: Answer, billed: u64) -> Result<Option<Receipt>, Fault> {
        let pinned = self.pinned.get_or_insert_with(|| Pinned {
            signer: answer.signer.clone(),
            origin: Origin::FirstUse,
        });
        if answer.signer != pinned.signer {
            return Err(Fault::Signer);
        }
        let new = match answer.receipt {
            None => None,
            Some(receipt) => {
                receipt.verify(&pinned.signer).map_err(Fault::NotSigned)?;
                self.judge(&receipt, billed)?;
                let is_new = !self.is_current || self.last.as_ref() != Some(&receipt);
                (self.is_current, self.last) = (true, Some(receipt.clone()));
                is_new.then_some(receipt)
            }
        };
        if self.bills.len() == MAX_BILLS {
            self.bills.remove(0);
        }
        self.bills.push(billed);
        Ok(new)
    }

    /// Compares a signed receipt with what is known.
    fn judge(&self, receipt: &Receipt, billed: u64) -> Result<(), Fault> {
        if receipt.public_key != self.public_key {
            return Err(Fault::Key);
        }
        let sum = receipt.billed();
        if sum > billed {
            return Err(Fault::AboveBill { receipt: sum, billed });
        }
        let Some(last) = &self.last else { return Ok(()) };
        if receipt.session != last.session {
            return match self.is_current {
                true => {
                    let (before, now) = (last.session.clone(), receipt.session.clone());
                    Err(Fault::Session { before, now })
                }
                false => Ok(()),
            };
        }
        if let Some((what, before, now)) = receipt.falls_behind(last) {
            return Err(Fault::Fell { what, before, now });
        }
        if receipt.sequence == last.sequence && receipt != last {
            return Err(Fault::Rewritten(receipt.sequence));
        }
        match self.bills.first() {
            Some(before)
                if self.bills.len() == MAX_BILLS
                    && receipt.sequence > last.sequence
                    && sum < *before =>
            {
                Err(Fault::BelowBill { receipt: sum, billed: *before })
            }
            _ => Ok(()),
        }
    }
}
