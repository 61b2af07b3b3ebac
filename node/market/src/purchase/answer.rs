//! What an exit says to a purchase.

use serde::{Deserialize, Serialize};

use super::{Reason, Refusal, order::json};

/// The longest answer that a buyer reads, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024;

/// What was sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sold {
    /// A configuration as `wg-quick` reads it, without the private key.
    pub config: String,
    /// When it ends at the earliest, in seconds since 1970; `None` for when it is used up.
    pub expires_at: Option<u64>,
    /// The billed bytes that were bought; `None` where the exit does not say, or sets no limit.
    pub bytes: Option<u64>,
}

/// An exit's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The exit has sold.
    Sold(Sold),
    /// It has not.
    Refused(Refusal),
}

/// What came is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAnswer {
    /// Too many bytes.
    #[error("the exit's answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// Not the JSON that it must be.
    #[error("the exit's answer is not what the protocol says: {{status, config, expires_at}}")]
    Form,
}

/// The answer as JSON.
#[derive(Default, Serialize, Deserialize)]
struct Json {
    status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Answer {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Sold(_) => 200,
            Self::Refused(refusal) => refusal.status,
        }
    }

    /// The answer as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(&match self {
            Self::Sold(sold) => Json {
                status: "ok".to_owned(),
                config: Some(sold.config.clone()),
                expires_at: sold.expires_at,
                bytes: sold.bytes,
                ..Json::default()
            },
            Self::Refused(refusal) => Json {
                status: "error".to_owned(),
                reason: Some(refusal.reason.clone()),
                message: Some(refusal.message.clone()),
                ..Json::default()
            },
        })
    }

    /// Reads an answer that came with this HTTP status.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn from_json(text: &[u8], status: u16) -> Result<Self, NotAnAnswer> {
        if text.len() > MAX_ANSWER {
            return Err(NotAnAnswer::TooLong);
        }
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(NotAnAnswer::Form);
        }
        let read: Json = serde_json::from_slice(text).map_err(|_| NotAnAnswer::Form)?;
        match (read.status.as_str(), read.config, read.reason) {
            ("ok", Some(config), _) => {
                let (expires_at, bytes) = (read.expires_at, read.bytes);
                Ok(Self::Sold(Sold { config, expires_at, bytes }))
            }
            ("error", _, Some(reason)) => {
                let message = read.message.unwrap_or_default();
                // It may be shown in a terminal.
                let message = message.chars().filter(|letter| !letter.is_control()).take(500);
                Ok(Self::Refused(Refusal { status, reason, message: message.collect() }))
            }
            _ => Err(NotAnAnswer::Form),
        }
    }
}

impl From<Result<Sold, Refusal>> for Answer {
    fn from(result: Result<Sold, Refusal>) -> Self {
        result.map_or_else(Self::Refused, Self::Sold)
    }
}
