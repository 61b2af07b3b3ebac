//! Tokens of other wallets.

use serde::Serialize;
use weir_ecash::{Outputs, TokenError, WalletToken};

use super::{Wallet, exchange::Attempt};
use crate::{
    WalletError,
    store::{Place, Purpose},
};

/// Whether ecash of a mint that the wallet does not know is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only of mints that it knows.
    Known,
    /// Of any: the mint is known from then on.
    New,
}

/// A token that was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Received {
    /// The mint.
    pub mint: String,
    /// The unit.
    pub unit: String,
    /// What the wallet has got for it.
    pub amount: u64,
    /// What the mint has kept.
    pub fee: u64,
    /// Whether that was earlier: the same token was received before.
    pub before: bool,
}

impl Wallet {
    /// Exchanges a token at its mint, so that only this wallet can spend what it stands for.
    ///
    /// The same token may be given again: nothing changes then.
    ///
    /// # Errors
    ///
    /// When the token cannot be taken: it is still its owner's, unless the error says that an exchange is unfinished.
    pub async fn receive(&self, token: &str, trust: Trust) -> Result<Received, WalletError> {
        let token = WalletToken::parse(token)?;
        let at = Place { url: token.mint.clone(), unit: token.unit.clone() };
        if trust == Trust::Known && !self.store().knows(&at.url)? {
            return Err(WalletError::UnknownMint(at.url));
        }
        let received = |amount, before| Received {
            mint: at.url.clone(),
            unit: at.unit.clone(),
            amount,
            fee: token.amount.saturating_sub(amount),
            before,
        };
        let _lock = self.lock().await?;
        let hash = token.hash();
        if let Some(amount) = self.store().received(&hash)? {
            return Ok(received(amount, true));
        }
        let failed = self.settle_all(Some(&at.url)).await?;
        if let Some(amount) = self.store().received(&hash)? {
            return Ok(received(amount, false));
        }
        let is_this =
            |purpose: &Purpose| matches!(purpose, Purpose::Receive { hash: it } if *it == hash);
        let open = self.store().open_swaps(Some(&at.url))?;
        if let (true, Some(error)) =
            (open.iter().any(|swap| is_this(&swap.purpose)), failed.into_iter().next())
        {
            return Err(error);
        }
        let mut keysets = self.keysets(&at, false).await?;
        let proofs = match token.proofs(&keysets) {
            Err(TokenError::UnknownKeyset) => {
                keysets = self.keysets(&at, true).await?;
                token.proofs(&keysets)?
            }
            other => other?,
        };
        let mut attempts = 2;
        loop {
            let outputs = Outputs::new(&keysets, proofs.iter().map(|proof| proof.json.as_str()))?;
            let purpose = Purpose::Receive { hash: hash.clone() };
            self.store().add_mint(&at.url)?;
            let swap = self.store().begin_swap(&at, purpose, proofs.clone(), outputs.to_json()?)?;
            attempts -= 1;
            match self.exchange(&swap, &keysets, Attempt::First).await {
                Ok(finished) => return Ok(received(finished.added, false)),
                // Its keyset may have been retired meanwhile.
                Err(WalletError::Refused { .. }) if attempts > 0 => {
                    keysets = self.keysets(&at, true).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
