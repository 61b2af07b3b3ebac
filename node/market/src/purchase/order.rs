//! What is bought, and what it is paid with.

use serde::{Deserialize, Serialize};
use weir_common::PublicKey;
use weir_wireguard::keys;

use super::{Reason, Refusal};

/// The header with a token (NUT-24).
pub const X_CASHU: &str = "x-cashu";
/// The header with a voucher's code. weir's own.
pub const X_VOUCHER: &str = "x-weir-voucher";
/// The longest body of a request, in bytes.
pub const MAX_BODY: usize = 4096;
/// The longest token or code, in bytes.
pub const MAX_PAYMENT: usize = 32 * 1024;

const PROTOCOL: &str = "wireguard";

/// What it is paid with.
#[derive(Clone, PartialEq, Eq)]
pub enum Payment {
    /// A Cashu token, locked to the exit's key.
    Token(String),
    /// A voucher's code.
    Voucher(String),
}

impl std::fmt::Debug for Payment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever reads it in a log could use it.
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Voucher(_) => "Voucher(..)",
        })
    }
}

impl Payment {
    /// The one that the headers have.
    ///
    /// # Errors
    ///
    /// When there is none, or both, or it is too long.
    pub fn from_headers(token: Option<&str>, voucher: Option<&str>) -> Result<Self, Refusal> {
        let payment = match (token.map(str::trim), voucher.map(str::trim)) {
            (Some(token), None) => Self::Token(token.to_owned()),
            (None, Some(code)) => Self::Voucher(code.to_owned()),
            (None, None) => {
                let what = "the request has no payment: send a token in the header X-Cashu, or a \
                            code in X-Weir-Voucher";
                return Err(Refusal::new(Reason::BadRequest, what));
            }
            (Some(_), Some(_)) => {
                let what = "the request has both a token and a voucher: send one of them";
                return Err(Refusal::new(Reason::BadRequest, what));
            }
        };
        payment.check()?;
        Ok(payment)
    }

    /// The header for `POST /purchase`: its name and its value.
    #[must_use]
    pub fn header(&self) -> (&'static str, &str) {
        match self {
            Self::Token(token) => (X_CASHU, token),
            Self::Voucher(code) => (X_VOUCHER, code),
        }
    }

    /// What can be said without arithmetic.
    fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Token(token) if token.len() > MAX_PAYMENT => {
                let what =
                    format!("the token is longer than {MAX_PAYMENT} bytes: send fewer proofs");
                Err(Refusal::new(Reason::InvalidToken, what))
            }
            Self::Token(token) if !token.starts_with("cashu") => {
                let what = "this is not a Cashu token: send all of it, from \"cashuB\" on";
                Err(Refusal::new(Reason::InvalidToken, what))
            }
            Self::Voucher(code) if code.is_empty() || code.len() > 64 => {
                Err(Refusal::new(Reason::InvalidVoucher, "this is not a voucher's code"))
            }
            Self::Token(_) | Self::Voucher(_) => Ok(()),
        }
    }
}

/// A purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The key with which the buyer will connect.
    pub client_key: PublicKey,
    /// What it is paid with.
    pub payment: Payment,
}

/// The body of a request. The payment is in it only in a letter.
#[derive(Serialize, Deserialize)]
struct Body {
    protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_pubkey: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voucher: Option<String>,
}

impl Order {
    /// The body of `POST /purchase`.
    #[must_use]
    pub fn body(&self) -> String {
        json(&Body {
            protocol: PROTOCOL.to_owned(),
            client_pubkey: Some(keys::print_public(&self.client_key)),
            token: None,
            voucher: None,
        })
    }

    /// The content of a letter: the body with the payment.
    pub(super) fn letter(&self) -> String {
        let (token, voucher) = match &self.payment {
            Payment::Token(token) => (Some(token.clone()), None),
            Payment::Voucher(code) => (None, Some(code.clone())),
        };
        json(&Body {
            protocol: PROTOCOL.to_owned(),
            client_pubkey: Some(keys::print_public(&self.client_key)),
            token,
            voucher,
        })
    }

    /// Reads the body of `POST /purchase`, paid with `payment`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn read(body: &[u8], payment: Payment) -> Result<Self, Refusal> {
        let (client_key, _) = read(body, MAX_BODY)?;
        Ok(Self { client_key, payment })
    }

    /// Reads the content of a letter.
    pub(super) fn read_letter(content: &str) -> Result<Self, Refusal> {
        let (client_key, body) = read(content.as_bytes(), MAX_BODY + MAX_PAYMENT)?;
        let payment = Payment::from_headers(body.token.as_deref(), body.voucher.as_deref())?;
        Ok(Self { client_key, payment })
    }
}

fn read(body: &[u8], max: usize) -> Result<(PublicKey, Body), Refusal> {
    let bad = |what: String| Refusal::new(Reason::BadRequest, what);
    let expected = r#"expected {"protocol": "wireguard", "client_pubkey": "..."}"#;
    if body.len() > max {
        return Err(bad(format!("the request's body is longer than {max} bytes")));
    }
    // serde would read an array as the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad(format!("the request's body is not a JSON object; {expected}")));
    }
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the request's body cannot be read: {error}; {expected}")))?;
    if body.protocol != PROTOCOL {
        return Err(bad(format!("this exit has no protocol but WireGuard; {expected}")));
    }
    let key = body.client_pubkey.as_deref();
    let key = key.ok_or_else(|| bad(format!("the request has no client_pubkey; {expected}")))?;
    let key = keys::parse_public(key).map_err(|error| bad(format!("client_pubkey: {error}")))?;
    Ok((key, body))
}

/// Strings and numbers can always be written.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
