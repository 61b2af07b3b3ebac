//! What became of sent tokens.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_ecash::{Held, Outputs, SpentState};

use super::{Wallet, exchange::Attempt, unix_now};
use crate::{
    SentState, WalletError,
    store::{Place, Purpose, SentProofs, Spendable},
};

/// The most proofs of one question to a mint.
const MAX_POINTS: usize = 100;

/// A token that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// The mint.
    pub mint: String,
    /// The unit.
    pub unit: String,
    /// What the wallet has got back.
    pub amount: u64,
    /// What the mint has kept.
    pub fee: u64,
}

impl Wallet {
    /// Asks the mints which of the sent tokens were claimed. Says which mints did not answer.
    ///
    /// # Errors
    ///
    /// When the file cannot be used.
    pub async fn check_sent(&self) -> Result<Vec<WalletError>, WalletError> {
        let _lock = self.lock().await?;
        let mut by_mint: BTreeMap<String, Vec<SentProofs>> = BTreeMap::new();
        for sent in self.store().unclaimed()? {
            by_mint.entry(sent.at.url.clone()).or_default().push(sent);
        }
        let mut failed = Vec::new();
        for (mint, sent) in by_mint {
            if let Err(reason) = self.check_sent_of(&mint, &sent).await? {
                failed.push(WalletError::Unreachable { mint, reason });
            }
        }
        Ok(failed)
    }

    async fn check_sent_of(
        &self,
        mint: &str,
        sent: &[SentProofs],
    ) -> Result<Result<(), String>, WalletError> {
        let all: Vec<(u64, Held)> = sent
            .iter()
            .flat_map(|sent| sent.proofs.iter().map(|proof| (sent.number, proof.clone())))
            .collect();
        // Claimed is what has no proof that is not spent.
        let mut is_spent: BTreeMap<u64, bool> = BTreeMap::new();
        for some in all.chunks(MAX_POINTS) {
            let proofs: Vec<_> = some.iter().map(|(_, proof)| proof.clone()).collect();
            let states = match self.states(mint, &proofs).await {
                Ok(states) => states,
                Err(reason) => return Ok(Err(reason)),
            };
            for ((number, _), state) in some.iter().zip(states) {
                *is_spent.entry(*number).or_insert(true) &= state == SpentState::Spent;
            }
        }
        for (number, _) in is_spent.into_iter().filter(|(_, spent)| *spent) {
            self.store().set_sent(number, SentState::Claimed, unix_now())?;
        }
        Ok(Ok(()))
    }

    /// Takes back a sent token that nobody has claimed. One that is locked to its payee can be taken back only when
    /// its time is over.
    ///
    /// # Errors
    ///
    /// When it cannot be taken back, or not yet.
    pub async fn reclaim(&self, number: u64) -> Result<Taken, WalletError> {
        let _lock = self.lock().await?;
        let sent = self.store().sent_token(number)?;
        let at = Place { url: sent.mint, unit: sent.unit };
        let before = self.balance_at(&at)?;
        let taken = |amount: u64| Taken {
            mint: at.url.clone(),
            unit: at.unit.clone(),
            amount,
            fee: sent.amount.saturating_sub(amount),
        };
        let failed = self.settle_all(Some(&at.url)).await?;
        // An earlier attempt may just have come to its end.
        let state = self.store().sent_token(number)?.state;
        if state == SentState::Reclaimed && sent.state == SentState::Unclaimed {
            return Ok(taken(self.balance_at(&at)?.saturating_sub(before)));
        }
        let is_this = |purpose: &Purpose| *purpose == Purpose::Reclaim { sent: number };
        let open = self.store().open_swaps(Some(&at.url))?;
        if let (true, Some(error)) =
            (open.iter().any(|swap| is_this(&swap.purpose)), failed.into_iter().next())
        {
            return Err(error);
        }
        if state != SentState::Unclaimed {
            return Err(WalletError::Claimed(number));
        }
        match self.store().spendable(number)? {
            Spendable::Open => {}
            Spendable::No => return Err(WalletError::NoRefund(number)),
            Spendable::From(after, _) if after > unix_now() => {
                return Err(WalletError::RefundLater(number, after));
            }
            Spendable::From(..) => {}
        }
        let keysets = self.keysets(&at, false).await?;
        let unclaimed = self.store().unclaimed()?;
        let found = unclaimed.into_iter().find(|sent| sent.number == number);
        let proofs = found.ok_or(WalletError::Claimed(number))?.proofs;
        let outputs = Outputs::new(&keysets, proofs.iter().map(|proof| proof.json.as_str()))?;
        let purpose = Purpose::Reclaim { sent: number };
        let swap = self.store().begin_swap(&at, purpose, proofs, outputs.to_json()?)?;
        let finished = self.exchange(&swap, &keysets, Attempt::First).await?;
        Ok(taken(finished.added))
    }

    fn balance_at(&self, at: &Place) -> Result<u64, WalletError> {
        let proofs = self.store().proofs(at)?;
        Ok(proofs.iter().map(|proof| proof.amount).sum())
    }
}
