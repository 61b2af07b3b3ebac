//! Payments to an exit from inside its tunnel.

use std::net::SocketAddr;

use ::http::Method;
use serde::{Deserialize, Serialize};
use weir_config::HttpUrl;
use weir_ecash::WantedPayment;
use weir_wallet::{
    Amount, Payment, Refund, Sent, Wallet, WalletError,
    http::{Answer, Http, NoAnswer},
};

/// The header of a payment request and of a token (NUT-24).
const X_CASHU: &str = "x-cashu";
/// The note of a token that the exit may not have seen.
const UNANSWERED: &str = "top-up, unanswered";
/// The note of a token that the exit has not seen.
const READY: &str = "top-up, ready";
/// The note of one that it has taken.
const TAKEN: &str = "top-up";

/// What an exit wants, by its payment request.
pub type Wanted = WantedPayment;

/// Why nothing was credited.
#[derive(Debug, thiserror::Error)]
pub enum TopUpError {
    /// The wallet did not pay.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The exit takes no ecash, or says it in a way that cannot be read.
    #[error("the exit takes no ecash inside the tunnel: {0}")]
    NoEcash(String),
    /// The wallet has no ecash that the exit takes.
    #[error(
        "the exit takes ecash of {0}, of which the wallet has too little. Fix: weir wallet receive TOKEN"
    )]
    NoFunds(String),
    /// The exit was not reached.
    #[error("the exit was not reached inside the tunnel: {0}")]
    Unreachable(String),
    /// It is not known whether the exit has taken the token.
    #[error(
        "the exit did not answer to the payment: {0}. The next payment sends the same token first"
    )]
    Unanswered(String),
    /// The exit did not take the token.
    #[error("the exit refused the token {number} ({code}): {message}")]
    Refused {
        /// The token's number in the wallet.
        number: u64,
        /// Why, for programs.
        code: String,
        /// Why, for people.
        message: String,
    },
}

/// What was credited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ToppedUp {
    /// Billed bytes.
    pub bytes: u64,
    /// Seconds.
    pub seconds: u64,
    /// What was paid, in the unit.
    pub spent: u64,
}

/// The exit's answer.
#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    seconds: u64,
}

#[derive(Deserialize)]
struct Failed {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Pays an exit inside the tunnel.
#[derive(Debug)]
pub struct TopUp<'a> {
    wallet: &'a Wallet,
    http: Http,
    url: HttpUrl,
}

impl<'a> TopUp<'a> {
    /// Pays the exit whose gateway is at this address and port.
    ///
    /// # Errors
    ///
    /// Never: an address and a port are a URL.
    pub fn new(wallet: &'a Wallet, http: Http, gateway: SocketAddr) -> Result<Self, TopUpError> {
        let url = format!("http://{gateway}/v1/pay/ecash");
        let url = url.parse().map_err(|_| TopUpError::Unreachable(url))?;
        Ok(Self { wallet, http, url })
    }

    /// What the exit wants (NUT-24).
    ///
    /// # Errors
    ///
    /// When it is not reached, or takes no ecash.
    pub async fn wanted(&self) -> Result<Wanted, TopUpError> {
        let asked = self.http.ask(Method::GET, &self.url, &[], Vec::new()).await;
        let answer = asked.map_err(|error| TopUpError::Unreachable(error.to_string()))?;
        let header = answer.headers.get(X_CASHU).and_then(|header| header.to_str().ok());
        let header = header.ok_or_else(|| TopUpError::NoEcash(answer.excerpt()))?;
        WantedPayment::parse(header).ok_or_else(|| {
            TopUpError::NoEcash("its payment request (NUT-18) cannot be read".to_owned())
        })
    }

    /// Has a token for [`TopUp::pay`] ready, unless there is one. A paused session reaches the exit, and no mint. The
    /// token comes back to the wallet if it is never used.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn prepare(&self, wanted: &Wanted, amount: u64) -> Result<(), TopUpError> {
        if self.open(wanted, amount)?.is_none() {
            self.lock(wanted, amount).await?;
        }
        Ok(())
    }

    /// Pays this much. What an earlier payment has left unanswered is sent again first, and counts: nothing is paid
    /// twice. Then a token that is ready is used, if it is not worth more.
    ///
    /// # Errors
    ///
    /// When nothing was credited.
    pub async fn pay(&self, wanted: &Wanted, amount: u64) -> Result<ToppedUp, TopUpError> {
        let token = match self.open(wanted, amount)? {
            Some(token) => token,
            None => self.lock(wanted, amount).await?,
        };
        self.wallet.set_note(token.number, UNANSWERED)?;
        self.give(&token).await
    }

    /// A token for this exit that may be unused.
    fn open(&self, wanted: &Wanted, amount: u64) -> Result<Option<Sent>, TopUpError> {
        let mut own = self.wallet.sent()?;
        own.retain(|sent| sent.lock.as_ref() == Some(&wanted.lock) && sent.token.is_some());
        let unanswered = own.iter().position(|sent| sent.note == UNANSWERED);
        let is_ready = |sent: &Sent| sent.note == READY && sent.amount <= amount;
        let found = unanswered.or_else(|| own.iter().position(is_ready));
        Ok(found.map(|index| own.swap_remove(index)))
    }

    async fn lock(&self, wanted: &Wanted, amount: u64) -> Result<Sent, TopUpError> {
        let funds = self.wallet.balances()?;
        let takes = |mint: &String| weir_ecash::mint_url(mint);
        let mints: Vec<_> = wanted.mints.iter().filter_map(takes).collect();
        let richest = funds
            .iter()
            .filter(|it| it.unit == wanted.unit && mints.contains(&it.mint) && it.balance >= amount)
            .max_by_key(|it| it.balance);
        let mint = richest.ok_or_else(|| TopUpError::NoFunds(mints.join(", ")))?;
        let payment = Payment {
            mint: Some(&mint.mint),
            unit: &wanted.unit,
            amount: Amount::Exactly(amount),
            lock: Some((&wanted.lock, Refund::usual())),
            note: READY,
        };
        Ok(self.wallet.send(&payment).await?)
    }

    async fn give(&self, sent: &Sent) -> Result<ToppedUp, TopUpError> {
        let token = sent.token.as_deref().unwrap_or_default();
        let json = serde_json::json!({ "token": token }).to_string();
        let headers = [("content-type", "application/json")];
        let answer = match self.http.ask(Method::POST, &self.url, &headers, json.into()).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(what) | NoAnswer::Lost(what)) => {
                return Err(TopUpError::Unanswered(what));
            }
        };
        if answer.status.is_success() {
            let given: Given = serde_json::from_slice(&answer.body)
                .map_err(|error| TopUpError::Unanswered(error.to_string()))?;
            self.wallet.set_note(sent.number, TAKEN)?;
            return Ok(ToppedUp { bytes: given.bytes, seconds: given.seconds, spent: sent.amount });
        }
        // Only a refusal of the payment itself says that the token was not taken.
        if answer.status.as_u16() != 402 {
            return Err(TopUpError::Unanswered(answer.excerpt()));
        }
        let (code, message) = error(&answer);
        self.wallet.set_note(sent.number, &format!("top-up, refused: {code}"))?;
        Err(TopUpError::Refused { number: sent.number, code, message })
    }
}

fn error(answer: &Answer) -> (String, String) {
    let printable = |text: String| text.chars().filter(|it| !it.is_control()).take(300).collect();
    match serde_json::from_slice::<Failed>(&answer.body) {
        Ok(failed) => (printable(failed.error.code), printable(failed.error.message)),
        Err(_) => ("unknown".to_owned(), answer.excerpt()),
    }
}
