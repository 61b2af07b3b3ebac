//! A purchase, from the payment to the configuration.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::http::Method;
use nostr::key::PublicKey;
use weir_config::HttpUrl;
use weir_market::purchase::{
    self, Answer, BuyerKey, Info, NotAnAnswer, Offer, Order, Reason, Refusal,
};
use weir_wallet::{Payment as Token, Refund, Wallet, WalletError, http::Http};
use weir_wireguard::keys::PrivateKey;

use crate::{
    CannotBuy, NotAConfig, Open, Pay, Plan, RecordError, WgConfig,
    record::{Payment, Record, Records, Stage},
};

#[cfg(test)]
mod tests;

/// How long an exit may take: it may have to ask its mint first.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was bought.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// Its name, for [`Buyer::shown`].
    pub id: String,
    /// The exit's key in the market, in hex.
    pub exit: String,
    /// The configuration.
    pub config: WgConfig,
    /// When it ends at the earliest, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// The billed bytes that were bought.
    pub bytes: Option<u64>,
    /// What was paid; 0 for a voucher.
    pub spent: u64,
    /// In which unit.
    pub unit: Option<String>,
}

/// Why nothing was bought.
#[derive(Debug, thiserror::Error)]
pub enum BuyError {
    /// The listing does not sell to this buyer.
    #[error(transparent)]
    CannotBuy(#[from] CannotBuy),
    /// The wallet did not pay. The exit has seen nothing.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The purchase cannot be written down. The exit has seen nothing of it.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Nothing was paid, because the exit was not reached.
    #[error("the exit does not sell now: {0}. Nothing was paid")]
    Unreachable(String),
    /// Another exit answers at that address.
    #[error("another exit than the listing's answers at {0}. Nothing was paid")]
    AnotherExit(String),
    /// It is not known whether the exit has sold.
    #[error(
        "the exit gave no usable answer: {0}. Nothing is lost: weir buy --resume asks again with the same payment"
    )]
    Unanswered(String),
    /// The exit did not sell, and did not take the payment.
    #[error("the exit refused ({reason}): {message}. {token}")]
    Refused {
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        message: String,
        /// What becomes of the payment.
        token: String,
    },
    /// The exit has sold something that cannot be used.
    #[error("the exit was paid, and sent something that is not a tunnel's configuration: {0}")]
    Config(#[from] NotAConfig),
    /// The file is damaged.
    #[error("the stored purchase {0} cannot be read")]
    Damaged(String),
}

impl BuyError {
    /// Whether the money may be gone nevertheless, at least for a while.
    #[must_use]
    pub const fn may_be_paid(&self) -> bool {
        match self {
            Self::CannotBuy(_) | Self::Record(_) | Self::Unreachable(_) | Self::AnotherExit(_) => {
                false
            }
            Self::Wallet(error) => matches!(error, WalletError::Unfinished { .. }),
            Self::Unanswered(_) | Self::Refused { .. } | Self::Config(_) | Self::Damaged(_) => true,
        }
    }
}

/// Whether it is known which tokens the wallet has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Known,
    /// An exchange with a mint is not finished.
    Unknown,
}

/// The names by which exits are to be called, by the address of their purchases and their key. Each is
/// asked for once, because exits limit how often one network may connect.
type Servers = HashMap<(String, String), String>;

/// Buys with a wallet, beside whose file the purchases are.
#[derive(Debug)]
pub struct Buyer<'a> {
    wallet: &'a Wallet,
    http: Http,
    records: Records,
}

impl<'a> Buyer<'a> {
    /// A buyer. `directory` is the wallet's.
    #[must_use]
    pub fn new(wallet: &'a Wallet, directory: &Path, http: Http) -> Self {
        Self { wallet, http: http.with_timeout(TIMEOUT), records: Records::new(directory) }
    }

    /// Buys. When the process is killed, [`Self::resume`] goes on.
    ///
    /// # Errors
    ///
    /// Says why nothing was bought, and what becomes of the payment.
    pub async fn buy(&self, plan: &Plan) -> Result<Purchase, BuyError> {
        // Nothing is paid to an exit that cannot be reached.
        let mut servers = Servers::new();
        self.server(&plan.url, &plan.exit, &mut servers).await?;
        let key = PrivateKey::random();
        let record = Record::new(plan, &key.print(), unix_now());
        self.records.write(&record)?;
        let paid = match &plan.pay {
            Pay::Ecash { mint, unit, lock, amount } => {
                let (lock, note) = (Some((lock.as_str(), Refund::usual())), record.note());
                let amount = *amount;
                let token = Token { mint: Some(mint), unit, amount, lock, note: &note };
                let sent = self.wallet.send(&token).await;
                match sent {
                    Ok(sent) => Some(sent),
                    // The mint may have made the token.
                    Err(error @ WalletError::Unfinished { .. }) => return Err(error.into()),
                    Err(error) => {
                        self.records.remove(&record.id)?;
                        return Err(error.into());
                    }
                }
            }
            Pay::Voucher(_) => None,
        };
        let record = match paid {
            None => record,
            Some(sent) => {
                let text = sent.token.unwrap_or_default();
                let payment = Payment::Token { text, number: sent.number, amount: sent.amount };
                self.advance(record, Stage::Asking { payment })?
            }
        };
        self.go_on(record, &mut servers).await
    }

    /// The purchases that are not finished.
    ///
    /// # Errors
    ///
    /// When their directory cannot be read.
    pub fn open(&self) -> Result<Vec<Open>, RecordError> {
        Ok(self.records.all()?.iter().map(Record::open).collect())
    }

    /// Goes on with every purchase that is not finished: asks those again that did not answer or refused.
    ///
    /// # Errors
    ///
    /// When their directory cannot be used.
    pub async fn resume(&self) -> Result<Vec<(String, Result<Purchase, BuyError>)>, BuyError> {
        let mut all = Vec::new();
        let open = self.records.all()?;
        let (mut made, mut servers) = (Made::Known, Servers::new());
        if open.iter().any(|record| record.stage == Stage::Paying)
            && !self.wallet.recover().await?.is_empty()
        {
            made = Made::Unknown;
        }
        for record in open {
            let id = record.id.clone();
            let Some(record) = self.paid(record, made)? else { continue };
            all.push((id, self.go_on(record, &mut servers).await));
        }
        Ok(all)
    }

    /// Says that a purchase was shown to its buyer, or stored where it belongs. Its file is deleted.
    ///
    /// # Errors
    ///
    /// When it cannot be deleted.
    pub fn shown(&self, id: &str) -> Result<(), RecordError> {
        self.records.remove(id)
    }

    /// A purchase with its token. `None` if the wallet never made it, or cannot say yet.
    fn paid(&self, record: Record, made: Made) -> Result<Option<Record>, BuyError> {
        let token = |payment: &Payment| match payment {
            Payment::Token { number, .. } => Some(*number),
            Payment::Voucher { .. } => None,
        };
        let sent = self.wallet.sent()?;
        match &record.stage {
            Stage::Paying => {
                let note = record.note();
                let found = sent.into_iter().find(|sent| sent.note == note);
                let Some((text, found)) = found.and_then(|it| Some((it.token.clone()?, it))) else {
                    if made == Made::Known {
                        self.records.remove(&record.id)?;
                    }
                    return Ok(None);
                };
                let payment = Payment::Token { text, number: found.number, amount: found.amount };
                self.advance(record, Stage::Asking { payment }).map(Some)
            }
            // Its token was taken back meanwhile.
            Stage::Refused { payment, .. }
                if token(payment).is_some_and(|number| {
                    let found = sent.iter().find(|sent| sent.number == number);
                    found.is_none_or(|sent| sent.token.is_none())
                }) =>
            {
                self.records.remove(&record.id)?;
                Ok(None)
            }
            _ => Ok(Some(record)),
        }
    }

    fn advance(&self, record: Record, stage: Stage) -> Result<Record, BuyError> {
        let record = Record { stage, ..record };
        self.records.write(&record)?;
        Ok(record)
    }

    /// Asks the exit, unless it has sold already.
    async fn go_on(&self, record: Record, servers: &mut Servers) -> Result<Purchase, BuyError> {
        let payment = match &record.stage {
            Stage::Sold { .. } => return purchase(&record),
            Stage::Asking { payment } | Stage::Refused { payment, .. } => payment.clone(),
            Stage::Paying => return Err(BuyError::Damaged(record.id)),
        };
        let unanswered = |what: String| BuyError::Unanswered(what);
        match self.ask(&record, &payment, servers).await.map_err(|error| match error {
            BuyError::Unreachable(what) => unanswered(what),
            error => error,
        })? {
            Answer::Sold(sold) => {
                let spent = match payment {
                    Payment::Token { amount, .. } => amount,
                    Payment::Voucher { .. } => 0,
                };
                let (expires_at, bytes) = (sold.expires_at, sold.bytes);
                let stage = Stage::Sold { config: sold.config, expires_at, bytes, spent };
                purchase(&self.advance(record, stage)?)
            }
            Answer::Refused(refusal) if is_passing(&refusal) => {
                Err(unanswered(refusal.to_string()))
            }
            Answer::Refused(Refusal { reason, message, .. }) => {
                let token = match &payment {
                    Payment::Token { number, .. } => format!(
                        "Its token {number} is still the wallet's, locked to that exit: weir buy --resume tries it \
                         there again, and weir wallet reclaim {number} takes it back when its time is over"
                    ),
                    Payment::Voucher { .. } => "The voucher was not used".to_owned(),
                };
                let (word, text) = (reason.to_string(), message.clone());
                match payment {
                    Payment::Voucher { .. } => self.records.remove(&record.id)?,
                    payment => {
                        let stage = Stage::Refused { payment, reason: word, message: text };
                        self.advance(record, stage)?;
                    }
                }
                Err(BuyError::Refused { reason, message, token })
            }
        }
    }

    async fn ask(
        &self,
        record: &Record,
        payment: &Payment,
        servers: &mut Servers,
    ) -> Result<Answer, BuyError> {
        let damaged = || BuyError::Damaged(record.id.clone());
        let url: HttpUrl = record.url.parse().map_err(|_| damaged())?;
        let exit = PublicKey::from_hex(&record.exit).map_err(|_| damaged())?;
        let server = self.server(&url, &record.exit, servers).await?;
        let price = record.price.as_deref().map(str::parse).transpose().map_err(|_| damaged())?;
        let offer = Offer { server, exit, listing: record.listing.clone(), price };
        let key = PrivateKey::parse(&record.private_key).map_err(|_| damaged())?;
        let payment = match payment {
            Payment::Token { text, .. } => purchase::Payment::Token(text.clone()),
            Payment::Voucher { code } => purchase::Payment::Voucher(code.clone()),
        };
        let order = Order { client_key: key.public(), payment };
        // An authorization counts for some minutes only. What makes the order the same is its token and its key.
        let authorization = offer.authorize(&BuyerKey::random(), unix_now());
        let headers = [
            ("content-type", "application/json"),
            ("authorization", authorization.as_str()),
            order.payment.header(),
        ];
        let asked = self.http.ask(Method::POST, &url, &headers, order.body().into_bytes()).await;
        let answer = asked.map_err(|error| BuyError::Unanswered(error.to_string()))?;
        Answer::from_json(&answer.body, answer.status.as_u16()).map_err(|error| match error {
            NotAnAnswer::TooLong => BuyError::Unanswered(error.to_string()),
            NotAnAnswer::Form => BuyError::Unanswered(answer.excerpt()),
        })
    }

    /// The name by which buyers are to call the exit, after a look whether it is there and is the listing's.
    async fn server(
        &self,
        url: &HttpUrl,
        exit: &str,
        servers: &mut Servers,
    ) -> Result<String, BuyError> {
        let place = (url.to_string(), exit.to_owned());
        if let Some(server) = servers.get(&place) {
            return Ok(server.clone());
        }
        let info = info(&self.http, url).await.map_err(BuyError::Unreachable)?;
        if !info.pubkey.eq_ignore_ascii_case(exit) {
            return Err(BuyError::AnotherExit(url.host().to_owned()));
        }
        servers.insert(place, info.endpoint.clone());
        Ok(info.endpoint)
    }
}

/// What an exit says of its sales. Its address is beside that of purchases.
///
/// # Errors
///
/// Says, in words, why it is not known.
pub async fn info(http: &Http, purchases: &HttpUrl) -> Result<Info, String> {
    let text = purchases.to_string();
    let base = text.trim_end_matches('/');
    let base = base.strip_suffix("/purchase").unwrap_or(base);
    let url: HttpUrl = format!("{base}/info").parse().map_err(|_| format!("no URL: {text}"))?;
    let accept = [("accept", "application/json")];
    let answer = http.ask(Method::GET, &url, &accept, Vec::new()).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("{url} answers {}", answer.excerpt()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("{url} cannot be read: {error}"))
}

/// Whether the same request may be answered otherwise later, or was carried out although this says no.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal.reason, Reason::RateLimited | Reason::Unavailable)
        || (refusal.status >= 500 && refusal.reason != Reason::NoIpAvailable)
}

fn purchase(record: &Record) -> Result<Purchase, BuyError> {
    let Stage::Sold { config, expires_at, bytes, spent } = &record.stage else {
        return Err(BuyError::Damaged(record.id.clone()));
    };
    let key = PrivateKey::parse(&record.private_key);
    let key = key.map_err(|_| BuyError::Damaged(record.id.clone()))?;
    Ok(Purchase {
        id: record.id.clone(),
        exit: record.exit.clone(),
        config: WgConfig::read(config, key)?,
        expires_at: *expires_at,
        bytes: *bytes,
        spent: *spent,
        unit: record.unit.clone(),
    })
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
