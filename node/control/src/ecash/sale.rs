//! Sessions that are sold for a token.

use std::sync::Arc;

use tokio::time::Instant;
use weir_common::PublicKey;
use weir_ledger::ecash::{Accept, NewToken, Taken};
use weir_sessions::{SessionError, Snapshot, registry::Sale};

use super::{Cashu, EXCHANGE_TIMEOUT, KnownMint, NotAccepted};

/// What is sold at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The fewest bytes.
    pub(crate) min: u64,
    /// The most bytes.
    pub(crate) max: u64,
    /// Seconds for which it can be used; `None` without a limit.
    pub(crate) seconds: Option<u64>,
}

/// Why nothing is sold. The token is still its owner's, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSold {
    /// The token is not taken.
    #[error(transparent)]
    NotAccepted(#[from] NotAccepted),
    /// It buys too little.
    #[error("the token buys {bytes} bytes, and at least {min} are sold at once: send more")]
    TooLittle {
        /// What it buys.
        bytes: u64,
        /// The fewest.
        min: u64,
    },
    /// It buys too much.
    #[error("the token buys {bytes} bytes, and at most {max} are sold at once: send less")]
    TooMuch {
        /// What it buys.
        bytes: u64,
        /// The most.
        max: u64,
    },
    /// It was taken, and the mint has not answered yet.
    #[error(
        "the token was taken, and its mint has not exchanged it yet: send the same request again \
         in some seconds"
    )]
    Pending,
}

impl From<SessionError> for NotSold {
    fn from(error: SessionError) -> Self {
        Self::NotAccepted(error.into())
    }
}

/// What was sold, and whether the same order had found it before.
type Sold = (Snapshot, bool);

impl Cashu {
    /// Sells a session to the owner of `key` for a token. The same order again says the same.
    ///
    /// # Errors
    ///
    /// Says why it is not sold.
    pub(crate) async fn sell(
        self: &Arc<Self>,
        key: PublicKey,
        text: &str,
        terms: Terms,
    ) -> Result<Sold, NotSold> {
        let (mint, token) = self.judge(text).await?;
        let (sessions, hash) = (Arc::clone(&self.sessions), token.hash);
        let before = tokio::task::spawn_blocking(move || sessions.sold_for_token(key, hash));
        if let Some(before) = before.await.map_err(|_| NotAccepted::Internal)?? {
            return sold(before);
        }
        // The mint's fee is no reason to refuse who sends exactly the least.
        let (bytes, face) = (token.bytes, self.bytes(token.amount()));
        if face < terms.min {
            return Err(NotSold::TooLittle { bytes, min: terms.min });
        }
        if bytes > terms.max {
            return Err(NotSold::TooMuch { bytes, max: terms.max });
        }
        let limit = Accept::UpTo(self.max_unredeemed);
        let sale = match self.write_sale(key, terms, token.clone(), limit).await? {
            Sale::Refused(Taken::OverLimit) => {
                self.exchange_and_sell(mint, key, terms, token).await
            }
            sale => sold(sale),
        };
        self.ledger.note_mints().map_err(SessionError::from)?;
        sale
    }

    /// Has the mint exchange a token before the session may be used.
    async fn exchange_and_sell(
        self: &Arc<Self>,
        mint: &KnownMint,
        key: PublicKey,
        terms: Terms,
        token: NewToken,
    ) -> Result<Sold, NotSold> {
        let deadline = Instant::now() + EXCHANGE_TIMEOUT;
        let lock = tokio::time::timeout_at(deadline, mint.exchanging.lock()).await;
        let _exchanging = lock.map_err(|_| NotAccepted::MintUnreachable)?;
        let (held, number) = match self.write_sale(key, terms, token, Accept::AfterSwap).await? {
            Sale::Held(held, number) => (held, number),
            sale => return sold(sale),
        };
        let id = held.session.id.to_string();
        match tokio::time::timeout_at(deadline, self.exchange_token(mint, number)).await {
            Ok(Ok(true)) => Ok((self.sessions.get(&id)?, false)),
            // The token is its owner's again. A node that is killed here leaves a session without
            // credit, which ends by itself.
            Ok(Ok(false)) => {
                let sessions = Arc::clone(&self.sessions);
                let ended = tokio::task::spawn_blocking(move || sessions.end(&id, "unpaid"));
                ended.await.map_err(|_| NotAccepted::Internal)??;
                Err(NotAccepted::MintUnreachable.into())
            }
            Ok(Err(error)) => {
                tracing::warn!(mint = mint.url, "a token waits for its mint: {error:#}");
                mint.wake.notify_one();
                Err(NotSold::Pending)
            }
            Err(_) => {
                mint.wake.notify_one();
                Err(NotSold::Pending)
            }
        }
    }

    async fn write_sale(
        self: &Arc<Self>,
        key: PublicKey,
        terms: Terms,
        token: NewToken,
        accept: Accept,
    ) -> Result<Sale<Taken>, NotSold> {
        let sessions = Arc::clone(&self.sessions);
        let sale = tokio::task::spawn_blocking(move || {
            sessions.sell_for_token(key, terms.seconds, &token, accept)
        });
        Ok(sale.await.map_err(|_| NotAccepted::Internal)??)
    }
}

fn sold(sale: Sale<Taken>) -> Result<Sold, NotSold> {
    match sale {
        Sale::Sold(snapshot) => Ok((snapshot, false)),
        Sale::Before(snapshot) => Ok((snapshot, true)),
        Sale::Held(..) | Sale::HeldBefore => Err(NotSold::Pending),
        Sale::Refused(Taken::TooManyHeld | Taken::OverLimit) => {
            Err(NotAccepted::MintUnreachable.into())
        }
        Sale::Spent | Sale::Refused(_) => Err(NotAccepted::Spent.into()),
    }
}
