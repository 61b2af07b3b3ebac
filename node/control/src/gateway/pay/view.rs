//! A session's account for its consumer.

use weir_ledger::state_name;
use weir_promise::{
    Agreement, Invoice, Price, Terms,
    account::{AccountView, AgreementView, TermsView},
    wire::InvoiceText,
};
use weir_sessions::registry::pay::PaymentStatus;

/// How a session stands, with the invoice over what is due.
pub(super) fn account(
    status: &PaymentStatus,
    terms: &Terms,
    price: &Price,
    invoice: Option<&Invoice>,
) -> AccountView {
    let agreed = |agreement: &Agreement| AgreementView {
        agreement_id: agreement.id.to_string(),
        consumer: agreement.consumer.to_string(),
        channel_id: terms.channel_of(agreement.consumer).to_string(),
        per_gib: agreement.price.per_gib.to_string(),
        per_hour: agreement.price.per_hour.to_string(),
        unpaid_bytes: agreement.unpaid.bytes,
        unpaid_seconds: agreement.unpaid.seconds,
        leeway: agreement.price.due(agreement.unpaid).to_string(),
        due: status.due.to_string(),
        paid: agreement.paid.to_string(),
        promised: status.promised.to_string(),
    };
    AccountView {
        session: status.id.to_string(),
        state: state_name(status.state).to_owned(),
        must_pay: status.covered.is_some(),
        bytes: status.bytes,
        covered_bytes: status.covered.unwrap_or(status.bytes).min(status.bytes),
        seconds: status.seconds,
        terms: TermsView::new(terms, price),
        agreement: status.agreement.as_ref().map(agreed),
        invoice: invoice.map(InvoiceText::from),
    }
}
