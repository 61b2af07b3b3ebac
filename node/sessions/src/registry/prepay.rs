//! Credit that consumers bring themselves: vouchers and ecash. The ledger writes what was given and the credit for
//! it in one transaction; here it reaches the packet path.

use weir_ledger::{
    Credit, Ledger, LedgerError, SessionId, Usage,
    ecash::{Accept, NewToken, Taken},
    unix_now,
    vouchers::{Code, VoucherUse},
};

use super::{SessionError, Sessions};

impl Sessions {
    /// Uses a voucher for a session.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn use_voucher(&self, id: SessionId, code: &Code) -> Result<VoucherUse, SessionError> {
        self.prepay(id, |ledger, used| {
            let used = ledger.use_voucher(id, code, used, unix_now())?;
            let credit = match used {
                VoucherUse::Credited { credit, .. } => Some(credit),
                _ => None,
            };
            Ok((used, credit))
        })
    }

    /// Takes a verified token of a session.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn take_token(
        &self,
        id: SessionId,
        token: &NewToken,
        accept: Accept,
    ) -> Result<Taken, SessionError> {
        self.prepay(id, |ledger, used| {
            let taken = ledger.take_token(id, token, used, accept)?;
            let credit = match taken {
                Taken::Credited(credit) => Some(credit),
                _ => None,
            };
            Ok((taken, credit))
        })
    }

    /// Credits a token that the mint has exchanged, once. Without a session, its value stays the node's.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn credit_token(&self, token: u64, session: Option<SessionId>) -> Result<(), SessionError> {
        let live = session.filter(|id| self.read().by_id.contains_key(id));
        let Some(id) = live else {
            self.ledger.lock().credit_token(token, None, &Usage::default())?;
            return Ok(());
        };
        self.prepay(id, |ledger, used| Ok(((), ledger.credit_token(token, Some(id), used)?)))
    }

    /// Has a change of the ledger extend a session's credit, which the packet path then learns.
    fn prepay<T>(
        &self,
        id: SessionId,
        change: impl FnOnce(&mut Ledger, &Usage) -> Result<(T, Option<Credit>), LedgerError>,
    ) -> Result<T, SessionError> {
        let mut ledger = self.ledger.lock();
        let used = {
            let live = self.read();
            let entry = live.find(&id.to_string())?;
            // What was used under an agreement is the agreement's to pay.
            if entry.agreement.is_some() { Usage::default() } else { self.used(entry, 0) }
        };
        let (done, credit) = change(&mut ledger, &used)?;
        if let Some(credit) = credit {
            if let Some(entry) = self.write().by_id.get_mut(&id) {
                entry.credit = credit;
            }
            self.apply_credit(id);
            self.settle(&mut ledger, id)?;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use weir_common::account::SessionState;
    use weir_ledger::vouchers::VoucherTerms;

    use super::*;
    use crate::registry::{NewSession, rig::Rig};

    #[test]
    fn a_voucher_opens_a_paused_session_and_its_bytes_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let rig = Rig::start(folder.path(), 4);
        let new = NewSession { prepaid: true, ..NewSession::default() };
        let session = rig.sessions.add(new).expect("added").snapshot.session;
        assert_eq!(session.state, SessionState::Paused);
        let code = Code::new([7; 16]);
        let terms = VoucherTerms { batch: "a".into(), bytes: 5000, seconds: 0, expires: None };
        rig.ledger.lock().add_vouchers(&terms, &[code.hash()], 1).expect("added");
        let used = rig.sessions.use_voucher(session.id, &code).expect("asked");
        assert!(matches!(used, VoucherUse::Credited { bytes: 5000, .. }), "{used:?}");
        let state = || rig.sessions.get(&session.id.to_string()).expect("there").session.state;
        assert_eq!(state(), SessionState::Open);
        rig.traffic(session.slot, 5000);
        rig.sessions.enforce(std::time::Duration::MAX, std::time::Instant::now()).expect("done");
        assert_eq!(state(), SessionState::Paused);
        assert_eq!(rig.sessions.use_voucher(session.id, &code).expect("asked"), VoucherUse::Before);
        assert_eq!(state(), SessionState::Paused);
    }
}
