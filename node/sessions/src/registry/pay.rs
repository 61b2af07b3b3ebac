//! Sessions that pay as they go.

use std::sync::atomic::Ordering::Relaxed;

use alloy_primitives::{Address, U256};
use rand_core::{OsRng, RngCore as _};

use weir_common::{Slot, account::SessionState};
use weir_ledger::{Ledger, LedgerError, SessionId, billed};
use weir_promise::{
    Agreement, ExchangeMessage, Invoice, Price, Refusal, Terms, Use,
    invoice::{self, Preimage},
    price::TooCheap,
    verify::{Before, Paid},
};

use super::{SessionError, Sessions};

/// Why there is no agreement, invoice or payment.
#[derive(Debug, thiserror::Error)]
pub enum PayError {
    /// The session, or the ledger.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The price is below the operator's floor.
    #[error(transparent)]
    TooCheap(#[from] TooCheap),
    /// The payment is none. Nothing was credited.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The session has an agreement already.
    #[error("the session has an agreement already: end it before you make another")]
    Agreed,
    /// The session does not pay as it goes.
    #[error("the session has no agreement: make one first")]
    NoAgreement,
    /// Nothing was asked for yet.
    #[error("this session has no invoice yet: request one")]
    NoInvoice,
}

impl From<LedgerError> for PayError {
    fn from(error: LedgerError) -> Self {
        Self::Session(error.into())
    }
}

/// What a consumer offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The address whose promises will pay.
    pub consumer: Address,
    /// The price.
    pub price: Price,
}

/// How a session stands that pays, or could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentStatus {
    /// The session.
    pub id: SessionId,
    /// Whether it may send.
    pub state: SessionState,
    /// The billed bytes so far, up and down together.
    pub bytes: u64,
    /// How many of them are not this agreement's to pay, because they are free or paid otherwise;
    /// `None` for all of them, as long as there is no agreement.
    pub covered: Option<u64>,
    /// The seconds for which it was open.
    pub seconds: u64,
    /// How it pays, once that is agreed.
    pub agreement: Option<Agreement>,
    /// What the agreement has cost so far, in wei.
    pub due: U256,
    /// The highest amount that the consumer's channel has promised us.
    pub promised: U256,
}

impl Sessions {
    /// The session that has this slot now.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<SessionId> {
        let named = self.accounts.get(slot)?.control.session.load(Relaxed);
        let id = SessionId::new(named)?;
        self.read().by_id.get(&id).filter(|entry| entry.session.slot == slot)?;
        Some(id)
    }

    /// How a session stands.
    ///
    /// # Errors
    ///
    /// When there is no such session, or the ledger cannot be read.
    pub fn payment_status(&self, which: &str, terms: &Terms) -> Result<PaymentStatus, PayError> {
        let ledger = self.ledger.lock();
        let (mut status, agreement) = {
            let live = self.read();
            let entry = live.find(which)?;
            let used = self.used(entry, 0);
            let status = PaymentStatus {
                id: entry.session.id,
                state: entry.session.state,
                bytes: billed(&used.counters),
                covered: entry.credit.bytes,
                seconds: used.seconds,
                agreement: entry.agreement,
                due: U256::ZERO,
                promised: U256::ZERO,
            };
            (status, entry.agreement)
        };
        if let Some(agreement) = agreement {
            status.covered = Some(status.covered.unwrap_or(0));
            let bytes = status.bytes.saturating_sub(status.covered.unwrap_or(0));
            status.due = agreement.due(Use { bytes, seconds: status.seconds });
            let channel = terms.channel_of(agreement.consumer).into_word();
            status.promised = ledger.promised(&channel)?;
        }
        Ok(status)
    }

    /// Billed bytes of sessions that pay as they go, which their payments do not cover yet.
    #[must_use]
    pub fn unpaid_bytes(&self) -> u64 {
        let live = self.read();
        let unpaid = live.by_id.values().filter_map(|entry| {
            let paid = entry.agreement.as_ref()?.paid_bytes(entry.clock.seconds());
            let covered = paid.saturating_add(entry.credit.bytes.unwrap_or(0));
            Some(billed(&self.counters(entry)).saturating_sub(covered))
        });
        unpaid.fold(0, u64::saturating_add)
    }

    /// Has a session pay as it goes: beyond the bytes that are free or paid otherwise (none, for a
    /// session without a limit), it is paused from now on until its first invoice is paid. From
    /// then on `unpaid` may be used beyond what is paid.
    ///
    /// # Errors
    ///
    /// When the price is below the floor, the session has an agreement, or the ledger cannot be
    /// written; nothing has changed then.
    pub fn agree(
        &self,
        which: &str,
        offered: &Offered,
        floor: Price,
        unpaid: Use,
    ) -> Result<(), PayError> {
        let price = offered.price.not_below(floor)?;
        let mut random = [0; 32];
        OsRng.fill_bytes(&mut random);
        let agreement = Agreement {
            id: U256::from_be_bytes(random),
            consumer: offered.consumer,
            price,
            unpaid,
            paid: U256::ZERO,
            paid_for: Use::default(),
        };
        let mut ledger = self.ledger.lock();
        let (id, has_one) = {
            let live = self.read();
            let entry = live.find(which)?;
            (entry.session.id, entry.agreement.is_some())
        };
        if has_one {
            return Err(PayError::Agreed);
        }
        ledger.agree(id, &agreement)?;
        if let Some(entry) = self.write().by_id.get_mut(&id) {
            entry.agreement = Some(agreement);
        }
        self.apply_credit(id);
        Ok(self.settle(&mut ledger, id)?)
    }

    /// An invoice over what is due now; `None` when all of it is paid. Its preimage is in the
    /// ledger before this returns.
    ///
    /// # Errors
    ///
    /// When there is no such session or agreement, or the ledger cannot be written.
    pub fn invoice(&self, which: &str, terms: &Terms) -> Result<Option<Invoice>, PayError> {
        let mut ledger = self.ledger.lock();
        let (id, used, agreement) = self.agreed(which)?;
        let due = agreement.due(used).max(invoice::FIRST);
        if due <= agreement.paid {
            return Ok(None);
        }
        let preimage = Preimage::random();
        ledger.add_invoice(id, due, used, &preimage)?;
        Ok(Some(Invoice {
            agreement_id: agreement.id,
            agreement_total: due,
            fee: U256::ZERO,
            hashlock: preimage.hashlock(),
            provider: terms.provider,
            chain_id: terms.chain_id,
        }))
    }

    /// Judges a payment, and changes nothing.
    ///
    /// # Errors
    ///
    /// When it would be refused, or the ledger cannot be read.
    pub fn verify(
        &self,
        which: &str,
        terms: &Terms,
        message: &ExchangeMessage,
    ) -> Result<Agreement, PayError> {
        let ledger = self.ledger.lock();
        Ok(self.verified(&ledger, which, terms, message)?.agreement)
    }

    /// Takes a payment: verified, on disk, and only then credited.
    ///
    /// # Errors
    ///
    /// When it is refused, or the ledger cannot be written; nothing is credited then.
    pub fn pay(
        &self,
        which: &str,
        terms: &Terms,
        message: &ExchangeMessage,
    ) -> Result<Paid, PayError> {
        let mut ledger = self.ledger.lock();
        let Verified { id, agreement, paid_for, promised, paid } =
            self.verified(&ledger, which, terms, message)?;
        ledger.accept(id, message, &paid, paid_for)?;
        self.ledger.add_earned(message.promise.amount.saturating_sub(promised));
        let mut live = self.write();
        let entry = live.by_id.get_mut(&id);
        let is_live = entry.map(|entry| {
            entry.agreement = Some(Agreement { paid: paid.total, paid_for, ..agreement });
        });
        drop(live);
        if is_live.is_some() {
            self.apply_credit(id);
            // The payment is on disk: a pause that is not is settled at the next start.
            if let Err(error) = self.settle(&mut ledger, id) {
                tracing::warn!(%error, "cannot write a session's state");
            }
        }
        Ok(paid)
    }

    fn verified(
        &self,
        ledger: &Ledger,
        which: &str,
        terms: &Terms,
        message: &ExchangeMessage,
    ) -> Result<Verified, PayError> {
        let (id, _, agreement) = self.agreed(which)?;
        let asked = ledger.invoice(id, &message.promise.hashlock)?.ok_or(PayError::NoInvoice)?;
        let invoice = Invoice {
            agreement_id: agreement.id,
            agreement_total: asked.total,
            fee: U256::ZERO,
            hashlock: asked.hashlock,
            provider: terms.provider,
            chain_id: terms.chain_id,
        };
        let channel = terms.channel_of(agreement.consumer).into_word();
        let promised = ledger.promised(&channel)?;
        let before =
            Before { consumer: agreement.consumer, amount: promised, paid: agreement.paid };
        let paid = terms.verify(message, &invoice, &before)?;
        Ok(Verified { id, agreement, paid_for: asked.used, promised, paid })
    }

    /// A session that pays as it goes, with the use that it is to pay.
    fn agreed(&self, which: &str) -> Result<(SessionId, Use, Agreement), PayError> {
        let live = self.read();
        let entry = live.find(which)?;
        let agreement = entry.agreement.ok_or(PayError::NoAgreement)?;
        let used = self.used(entry, 0);
        let covered = entry.credit.bytes.unwrap_or(0);
        let bytes = billed(&used.counters).saturating_sub(covered);
        Ok((entry.session.id, Use { bytes, seconds: used.seconds }, agreement))
    }
}

/// A payment that is one, and what it is for.
struct Verified {
    id: SessionId,
    agreement: Agreement,
    paid_for: Use,
    /// What the channel had promised before.
    promised: U256,
    paid: Paid,
}
