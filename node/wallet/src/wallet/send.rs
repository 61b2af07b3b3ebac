//! Tokens for others.

use std::time::Duration;

use weir_ecash::{Held, Keysets, LockKey, Outputs, choose};

use super::{Wallet, checked, exchange::Attempt, unix_now};
use crate::{
    Sent, WalletError,
    store::{Place, Purpose},
};

/// How much to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// A token of this amount. The payee bears the mint's fee for its redemption.
    Exactly(u64),
    /// A token that is worth at least this amount after the mint's fee for its redemption.
    Worth(u64),
}

impl Amount {
    fn units(self) -> u64 {
        match self {
            Self::Exactly(units) | Self::Worth(units) => units,
        }
    }
}

/// Whether a locked token can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refund {
    /// After this time. Nodes refuse what can be taken back too soon: see [`Refund::usual`].
    After(Duration),
    /// Never.
    Never,
}

impl Refund {
    /// After 32 days. Nodes want 7 days unless they are configured otherwise, and other software of the market 30.
    #[must_use]
    pub const fn usual() -> Self {
        Self::After(Duration::from_hours(32 * 24))
    }
}

/// A payment.
#[derive(Clone, Copy, Debug)]
pub struct Payment<'a> {
    /// Of which mint; `None`: the one of which the wallet has most.
    pub mint: Option<&'a str>,
    /// The unit, such as `sat`.
    pub unit: &'a str,
    /// How much.
    pub amount: Amount,
    /// The public key (66 hex digits) whose owner alone can spend it, and what happens if nobody does.
    pub lock: Option<(&'a str, Refund)>,
    /// What it is for, for [`Wallet::sent`].
    pub note: &'a str,
}

impl Wallet {
    /// Makes a token. It stays listed in [`Wallet::sent`] until its payee has exchanged it, and can be taken back with
    /// [`Wallet::reclaim`] until then.
    ///
    /// # Errors
    ///
    /// When the wallet has too little, or the mint does not exchange.
    pub async fn send(&self, payment: &Payment<'_>) -> Result<Sent, WalletError> {
        let _lock = self.lock().await?;
        let at = self.choose_mint(payment)?;
        self.settle_all(Some(&at.url)).await?;
        let mut attempts = 2;
        let mut fresh = false;
        loop {
            if let (None, Amount::Exactly(amount)) = (payment.lock, payment.amount) {
                let proofs = self.store().proofs(&at)?;
                if let Some(proofs) = exactly(proofs, amount) {
                    let number = self.store().send_as_is(&at, &proofs, payment.note, unix_now())?;
                    return self.store().sent_token(number);
                }
            }
            let keysets = self.keysets(&at, fresh).await?;
            attempts -= 1;
            match self.send_exchanged(&at, payment, &keysets).await {
                // A keyset may have been retired meanwhile.
                Err(WalletError::Refused { .. }) if attempts > 0 => fresh = true,
                other => return other,
            }
        }
    }

    /// Pays a payee who takes it offline: the token is locked to its key, and has the mint's proofs of its signatures.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn pay(
        &self,
        mint: &str,
        unit: &str,
        amount: Amount,
        lock: &str,
        note: &str,
    ) -> Result<Sent, WalletError> {
        let lock = Some((lock, Refund::usual()));
        self.send(&Payment { mint: Some(mint), unit, amount, lock, note }).await
    }

    async fn send_exchanged(
        &self,
        at: &Place,
        payment: &Payment<'_>,
        keysets: &Keysets,
    ) -> Result<Sent, WalletError> {
        let amount = match payment.amount {
            Amount::Exactly(amount) => amount,
            Amount::Worth(worth) => keysets.amount_worth(worth)?,
        };
        let proofs = self.store().proofs(at)?;
        let have: u64 = proofs.iter().map(|proof| proof.amount).sum();
        let chosen = choose(keysets, &proofs, amount).ok_or_else(|| WalletError::NotEnough {
            have,
            need: amount,
            unit: at.unit.clone(),
            at: format!(" of the mint {}", at.url),
        })?;
        let inputs: Vec<Held> =
            chosen.into_iter().filter_map(|place| proofs.get(place).cloned()).collect();
        let texts = || inputs.iter().map(|proof| proof.json.as_str());
        let (mut lock, mut refund) = (None, None);
        let outputs = match payment.lock {
            None => Outputs::exact(keysets, texts(), amount, None)?,
            Some((payee, after)) => {
                let mut locked = weir_ecash::Lock { key: payee.to_owned(), refund: None };
                if let Refund::After(time) = after {
                    // A key of its own for each payment, so that payments cannot be linked by it.
                    let key = LockKey::random();
                    let after = unix_now().saturating_add(time.as_secs());
                    locked = key.lock_with_refund(payee, after);
                    refund = Some((after, key.to_hex().to_string()));
                }
                lock = Some(locked.key.clone());
                Outputs::exact(keysets, texts(), amount, Some(&locked))?
            }
        };
        let purpose = Purpose::Send { note: payment.note.to_owned(), lock, refund };
        let swap = self.store().begin_swap(at, purpose, inputs, outputs.to_json()?)?;
        let finished = self.exchange(&swap, keysets, Attempt::First).await?;
        self.store().sent_token(finished.sent.unwrap_or_default())
    }

    /// The mint of a payment: the one that it names, or the one of which the wallet has most.
    fn choose_mint(&self, payment: &Payment<'_>) -> Result<Place, WalletError> {
        let place = |url: String| Place { url, unit: payment.unit.to_owned() };
        let store = self.store();
        if let Some(url) = payment.mint {
            let url = checked(url)?;
            return match store.knows(&url)? {
                true => Ok(place(url)),
                false => Err(WalletError::UnknownMint(url)),
            };
        }
        let balances = store.balances()?;
        let of_unit = balances.into_iter().filter(|it| it.unit == payment.unit);
        let most = of_unit.max_by_key(|it| it.balance + it.unfinished);
        let (need, unit) = (payment.amount.units(), payment.unit.to_owned());
        let at = String::new();
        most.map(|it| place(it.mint)).ok_or(WalletError::NotEnough { have: 0, need, unit, at })
    }
}

/// Proofs that are worth exactly this amount, if there are such. Values are powers of two, so that taking the largest
/// first finds them.
fn exactly(mut proofs: Vec<Held>, amount: u64) -> Option<Vec<Held>> {
    proofs.sort_by_key(|proof| std::cmp::Reverse(proof.amount));
    let mut left = amount;
    proofs.retain(|proof| {
        let fits = proof.amount <= left;
        left -= if fits { proof.amount } else { 0 };
        fits
    });
    (left == 0 && amount > 0).then_some(proofs)
}
