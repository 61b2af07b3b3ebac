//! Payments inside the tunnel: JSON over HTTP/1.1.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/pay` | 200 [`AccountView`]: terms, agreement, and the invoice over what is due |
//! | `POST /v1/pay/agreement` [`AgreementRequest`] | 200 the same, with the agreement |
//! | `POST /v1/pay` [`ExchangeText`] | 200 the same, after the payment |
//!
//! Each error is `{"error": {"code", "message"}}`, and means that nothing was credited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, State},
    routing::{get, post},
};

use super::{allowance::Allowance, listener::Caller};
use crate::{
    api::{error::ApiError, off_thread, read_json},
    resolver::Resolver,
};
use weir_config::Payment;
use weir_ledger::SessionId;
use weir_promise::{
    ExchangeMessage, Invoice, Terms,
    account::{AccountView, AgreementRequest},
    wire::{self, ExchangeText},
};
use weir_sessions::registry::{
    Sessions,
    pay::{Offered, PayError, PaymentStatus},
};

mod approve;
pub(super) mod refusal;
mod terms;
#[cfg(test)]
mod tests;
mod view;

use approve::Approver;

/// Requests per second that a consumer may make.
pub(super) const PER_SECOND: u32 = 5;
/// The burst of requests of a consumer.
pub(super) const BURST: u32 = 20;
/// Payments that a consumer may have refused at once: each costs a look into the locked ledger, and
/// the recovery of two keys.
pub(super) const MAX_REFUSED: u32 = 10;
/// The interval at which one more is allowed.
pub(super) const REFUSED_EVERY: Duration = Duration::from_secs(6);
/// The minimum age of an invoice before it is replaced, because each new invoice is a row in the
/// ledger.
const INVOICE_AGE: Duration = Duration::from_secs(1);
/// The number of invoices at which old ones are removed from memory. The ledger keeps them.
const INVOICE_SWEEP_THRESHOLD: usize = 1024;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sessions: Arc<Sessions>,
    config: Payment,
    terms: Terms,
    allowance: Allowance,
    refused: Allowance,
    approver: Option<Approver>,
    invoices: Mutex<HashMap<SessionId, (Instant, Invoice)>>,
}

type Answer = Result<Json<AccountView>, ApiError>;

/// Answers what no route has.
pub(super) fn finish(routes: Router) -> Router {
    routes
        .fallback(async || refusal::no_such_route())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
}

impl Pay {
    /// Creates the service, if the configuration enables it.
    ///
    /// # Errors
    ///
    /// When the service that approves promises cannot be asked.
    pub(super) fn new(
        config: &Payment,
        sessions: &Arc<Sessions>,
        resolver: &Resolver,
    ) -> anyhow::Result<Option<Self>> {
        let Some(terms) = terms::terms(config).filter(|_| config.enabled) else { return Ok(None) };
        let approver = Approver::new(config, resolver)?;
        if approver.is_none() {
            tracing::info!(
                "promises are credited without a check that the consumer's channel exists, has \
                 funds, and has not promised them to others. Fix: set payment.approve_url; see \
                 docs/payments.md"
            );
        }
        Ok(Some(Self(Arc::new(Inner {
            sessions: Arc::clone(sessions),
            config: config.clone(),
            terms,
            allowance: Allowance::new(PER_SECOND, BURST),
            refused: Allowance::every(REFUSED_EVERY, MAX_REFUSED),
            approver,
            invoices: Mutex::default(),
        }))))
    }

    /// Its requests. They are to come through a [`super::listener::SessionListener`].
    pub(super) fn routes(&self) -> Router {
        Router::new()
            .route("/v1/pay", get(show).post(pay))
            .route("/v1/pay/agreement", post(agree))
            .with_state(self.clone())
    }

    /// The same, and an answer to every other.
    #[cfg(test)]
    pub(super) fn router(&self) -> Router {
        finish(self.routes())
    }

    /// Lets a consumer do something that may wait for the ledger, if it does not ask too often.
    async fn work<T: Send + 'static>(
        self,
        caller: Caller,
        work: impl FnOnce(&Inner, SessionId) -> Result<T, PayError> + Send + 'static,
    ) -> Result<T, ApiError> {
        Ok(off_thread(move || work(&self.0, caller.0)).await??)
    }

    /// Takes a payment: judged, approved where somebody is to be asked, and judged again while it is
    /// written down.
    async fn take(self, caller: Caller, message: ExchangeMessage) -> Answer {
        if self.0.approver.is_some() {
            let verify = move |inner: &Inner, session: SessionId| {
                inner.sessions.verify(&session.to_string(), &inner.terms, &message)
            };
            let agreement = self.clone().work(caller, verify).await?;
            if let Some(approver) = &self.0.approver {
                approver.ask(caller.0, &agreement, &message).await?;
            }
        }
        let paid = self.work(caller, move |inner, session| {
            inner.sessions.pay(&session.to_string(), &inner.terms, &message)?;
            // A consumer that has just paid gets no invoice for what it used meanwhile.
            Ok(inner.view(&inner.payment_status(session)?, None))
        });
        Ok(Json(paid.await?))
    }

    fn admit(&self, caller: Caller) -> Result<(), ApiError> {
        self.0.allowance.take(caller.0).then_some(()).ok_or_else(refusal::too_often)
    }
}

impl Inner {
    /// A session's payment status, with an invoice if something is due.
    fn account(&self, session: SessionId) -> Result<AccountView, PayError> {
        let status = self.payment_status(session)?;
        let invoice = match status.agreement {
            Some(_) => self.invoice(&status)?,
            None => None,
        };
        Ok(self.view(&status, invoice.as_ref()))
    }

    fn payment_status(&self, session: SessionId) -> Result<PaymentStatus, PayError> {
        self.sessions.payment_status(&session.to_string(), &self.terms)
    }

    fn view(&self, status: &PaymentStatus, invoice: Option<&Invoice>) -> AccountView {
        view::account(status, &self.terms, &terms::price(&self.config), invoice)
    }

    /// The invoice that is open, or a new one if that is old and more is due.
    fn invoice(&self, status: &PaymentStatus) -> Result<Option<Invoice>, PayError> {
        let known = self.invoices().get(&status.id).copied();
        let agreed = status.agreement.as_ref().map(|agreement| (agreement.id, agreement.paid));
        if let (Some((made, invoice)), Some((id, paid))) = (known, agreed)
            && (invoice.agreement_id, invoice.agreement_total > paid) == (id, true)
            && (made.elapsed() < INVOICE_AGE || invoice.agreement_total >= status.due)
        {
            return Ok(Some(invoice));
        }
        let invoice = self.sessions.invoice(&status.id.to_string(), &self.terms)?;
        let mut invoices = self.invoices();
        if invoices.len() >= INVOICE_SWEEP_THRESHOLD {
            invoices.retain(|_, (made, _)| made.elapsed() < INVOICE_AGE);
        }
        if let Some(invoice) = invoice {
            invoices.insert(status.id, (Instant::now(), invoice));
        }
        Ok(invoice)
    }

    fn invoices(&self) -> MutexGuard<'_, HashMap<SessionId, (Instant, Invoice)>> {
        self.invoices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the agreement, unless it exists already, since an answer may have been lost.
    fn agree(&self, session: SessionId, offered: &Offered) -> Result<(), PayError> {
        let which = session.to_string();
        match self.sessions.agree(
            &which,
            offered,
            terms::floor(&self.config),
            terms::unpaid(&self.config),
        ) {
            Err(PayError::Agreed) => {
                let status = self.payment_status(session)?;
                let same = status.agreement.is_some_and(|agreement| {
                    (agreement.consumer, agreement.price) == (offered.consumer, offered.price)
                });
                if same { Ok(()) } else { Err(PayError::Agreed) }
            }
            result => result,
        }
    }
}

async fn show(State(service): State<Pay>, ConnectInfo(caller): ConnectInfo<Caller>) -> Answer {
    service.admit(caller)?;
    Ok(Json(service.work(caller, Inner::account).await?))
}

async fn agree(
    State(service): State<Pay>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Body,
) -> Answer {
    service.admit(caller)?;
    let expected = r#"{"consumer": "0x...", "per_gib": "...", "per_hour": "..."}"#;
    let request: AgreementRequest = read_json(body, expected).await?;
    let consumer = wire::address("consumer", &request.consumer)?;
    let offered = Offered { consumer, price: request.price(terms::price(&service.0.config))? };
    let agreed = service.work(caller, move |inner, session| {
        if inner.payment_status(session)?.covered.is_none() {
            return Ok(None);
        }
        inner.agree(session, &offered)?;
        inner.account(session).map(Some)
    });
    agreed.await?.map(Json).ok_or_else(refusal::free)
}

async fn pay(
    State(service): State<Pay>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Body,
) -> Answer {
    service.admit(caller)?;
    let expected = "an exchange message: see docs/payments.md";
    let text: ExchangeText = read_json(body, expected).await?;
    let message = ExchangeMessage::try_from(&text)?;
    // Taken before the ledger and any signature are checked, and given back if the payment is good.
    if !service.0.refused.take(caller.0) {
        return Err(refusal::too_many_refused(REFUSED_EVERY));
    }
    let answer = service.clone().take(caller, message).await;
    if answer.as_ref().map_or_else(ApiError::is_ours, |_| true) {
        service.0.refused.give_back(&caller.0);
    }
    answer
}
