//! Sales to strangers: the ledger writes the session and its payment in one transaction; here the packet path learns
//! of it.

use weir_common::{PublicKey, account::SessionState};
use weir_ledger::{
    Ledger, LedgerError, Session,
    ecash::{Accept, NewToken, Taken},
    sales::{Begun, Giver},
    unix_now,
    vouchers::{Code, VoucherUse},
};
use weir_wireguard::keys::KeyError;

use super::{SessionError, Sessions};
use crate::Snapshot;

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sale<R> {
    /// There is a session for it.
    Sold(Snapshot),
    /// The same key has given the same payment before: this is its session.
    Before(Snapshot),
    /// There is a session for it, which is paused until the mint has exchanged the token with this number.
    Held(Snapshot, u64),
    /// The same key has given the same token before, and the mint has not exchanged it yet.
    HeldBefore,
    /// The payment was given before, for another key or a session that has ended.
    Spent,
    /// The ledger refuses the payment.
    Refused(R),
}

impl Sessions {
    /// Sells a session to the owner of `key`, for a verified token.
    ///
    /// # Errors
    ///
    /// When the key is taken, the node is full, or the ledger cannot be written; nothing has changed then.
    pub fn sell_for_token(
        &self,
        key: PublicKey,
        seconds: Option<u64>,
        token: &NewToken,
        accept: Accept,
    ) -> Result<Sale<Taken>, SessionError> {
        self.sell(
            key,
            |ledger| ledger.token_giver(token.hash),
            |ledger, session| ledger.sell_for_token(session, seconds, token, accept),
        )
    }

    /// Sells a session to the owner of `key`, for a voucher.
    ///
    /// # Errors
    ///
    /// When the key is taken, the node is full, or the ledger cannot be written; nothing has changed then.
    pub fn sell_for_voucher(
        &self,
        key: PublicKey,
        seconds: Option<u64>,
        code: &Code,
    ) -> Result<Sale<VoucherUse>, SessionError> {
        self.sell(
            key,
            |ledger| ledger.voucher_giver(code),
            |ledger, session| ledger.sell_for_voucher(session, seconds, code, unix_now()),
        )
    }

    /// The live session of this key that has given a token before; `None` if nobody has.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn sold_for_token(
        &self,
        key: PublicKey,
        hash: [u8; 32],
    ) -> Result<Option<Sale<Taken>>, SessionError> {
        let giver = self.ledger.lock().token_giver(hash)?;
        Ok(giver.map(|giver| self.sold_before(key, giver)))
    }

    fn sell<R>(
        &self,
        key: PublicKey,
        giver: impl FnOnce(&Ledger) -> Result<Option<Giver>, LedgerError>,
        write: impl FnOnce(&mut Ledger, &Session) -> Result<Result<Begun, R>, LedgerError>,
    ) -> Result<Sale<R>, SessionError> {
        let mut ledger = self.ledger.lock();
        // First: the answer to an order may have been lost when the node was killed.
        if let Some(giver) = giver(&ledger)? {
            return Ok(self.sold_before(key, giver));
        }
        if key == self.node_key {
            return Err(KeyError::OwnKey.into());
        }
        self.check_room()?;
        if !self.read().slots.has_free() {
            self.forget_left();
        }
        let mut session = self.write().reserve(None, key, self.max)?;
        let begun = match write(&mut ledger, &session) {
            Ok(Ok(begun)) => begun,
            refused => {
                self.write().slots.put_back(session.slot);
                return match refused {
                    Ok(Err(refused)) => Ok(Sale::Refused(refused)),
                    Err(error) => Err(error.into()),
                    Ok(Ok(_)) => Ok(Sale::Spent),
                };
            }
        };
        if begun.extra.pause.is_some() {
            session.state = SessionState::Paused;
        }
        let snapshot = self.begin(session, begun.counters, begun.extra, None)?;
        Ok(match begun.held {
            Some(token) => Sale::Held(snapshot, token),
            None => Sale::Sold(snapshot),
        })
    }

    fn sold_before<R>(&self, key: PublicKey, giver: Giver) -> Sale<R> {
        let live = self.read();
        let entry = giver.session.and_then(|id| live.by_id.get(&id));
        match entry.filter(|entry| entry.session.public_key == key) {
            Some(entry) if giver.is_credited => Sale::Before(self.snapshot(&live, entry)),
            Some(_) => Sale::HeldBefore,
            None => Sale::Spent,
        }
    }
}

#[cfg(test)]
mod tests;
