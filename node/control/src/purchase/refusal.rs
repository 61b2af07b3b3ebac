//! The node's errors in the protocol's words.

use weir_ecash::Refusal as TokenRefusal;
use weir_ledger::vouchers::VoucherUse;
use weir_market::purchase::{Reason, Refusal};
use weir_sessions::SessionError;

use crate::ecash::{NotAccepted, NotSold};

pub(super) fn not_sold(error: NotSold) -> Refusal {
    let message = error.to_string();
    match error {
        NotSold::NotAccepted(error) => not_accepted(error),
        NotSold::TooLittle { .. } => Refusal::new(Reason::BelowMinPurchase, message),
        NotSold::TooMuch { .. } => Refusal::new(Reason::AboveMaxPurchase, message),
        NotSold::Pending => Refusal::new(Reason::Unavailable, message),
    }
}

fn not_accepted(error: NotAccepted) -> Refusal {
    let message = error.to_string();
    let reason = match error {
        NotAccepted::Refused(refusal) => of_token(&refusal),
        NotAccepted::Spent => Reason::DoubleSpent,
        NotAccepted::MintUnreachable | NotAccepted::Internal => Reason::Unavailable,
        NotAccepted::Session(error) => return of_session(error),
    };
    Refusal::new(reason, message)
}

fn of_token(refusal: &TokenRefusal) -> Reason {
    match refusal {
        TokenRefusal::WrongMint => Reason::WrongMint,
        TokenRefusal::NotLocked(_)
        | TokenRefusal::WrongLock(_)
        | TokenRefusal::Condition
        | TokenRefusal::RefundTooEarly => Reason::WrongP2pk,
        TokenRefusal::TooSmall => Reason::AmountMismatch,
        TokenRefusal::Unreadable
        | TokenRefusal::TooLong
        | TokenRefusal::WrongUnit(_)
        | TokenRefusal::UnknownKeyset
        | TokenRefusal::InactiveKeyset
        | TokenRefusal::WrongAmount
        | TokenRefusal::NoDleq
        | TokenRefusal::BadDleq
        | TokenRefusal::Duplicate => Reason::InvalidToken,
    }
}

/// Strangers learn neither sessions nor the configuration.
pub(super) fn of_session(error: SessionError) -> Refusal {
    match error {
        SessionError::KeyTaken(_) | SessionError::Key(_) => Refusal::new(
            Reason::BadRequest,
            "this client_pubkey has a session here, or cannot have one: make a new key for each \
             purchase, or pay inside the tunnel",
        ),
        SessionError::Full(_) | SessionError::AtMost(_) => {
            Refusal::new(Reason::NoIpAvailable, "the exit is full: nothing was taken; try another")
        }
        SessionError::Quota => {
            Refusal::new(Reason::Policy, "the exit's quota is used up: nothing was taken")
        }
        error => {
            tracing::error!(%error, "cannot sell");
            let what = "the exit cannot sell now: send the same request again later";
            Refusal::new(Reason::Unavailable, what)
        }
    }
}

pub(super) fn of_voucher(refused: VoucherUse) -> Refusal {
    let (reason, what) = match refused {
        VoucherUse::Revoked => (Reason::InvalidVoucher, "this voucher was revoked by its seller"),
        VoucherUse::Expired => (Reason::InvalidVoucher, "this voucher's time is over"),
        VoucherUse::Unknown => {
            (Reason::InvalidVoucher, "there is no such voucher: check the code, and the exit")
        }
        VoucherUse::Used
        | VoucherUse::Before
        | VoucherUse::Credited { .. }
        | VoucherUse::NoSession => (Reason::DoubleSpent, "this voucher was used before"),
    };
    Refusal::new(reason, what)
}
