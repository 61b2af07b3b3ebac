//! Exchanges with a mint, brought to their end whatever happened to the answers before.

use weir_ecash::{Held, Keysets, LockKey, Outputs, SpentState, check_request, check_response};

use super::{Wallet, unix_now};
use crate::{
    WalletError,
    http::{Answer, NoAnswer},
    store::{Finished, OpenSwap, Purpose, Spendable},
};

/// Whether an exchange was asked for before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The mint has not seen it.
    First,
    /// The mint may have carried it out.
    Again,
}

impl Wallet {
    /// Brings open exchanges to their end: all, or those with one mint. Says what could not be finished yet.
    pub(super) async fn settle_all(
        &self,
        url: Option<&str>,
    ) -> Result<Vec<WalletError>, WalletError> {
        let open = self.store().open_swaps(url)?;
        let mut failed = Vec::new();
        for swap in open {
            match self.settle(&swap).await {
                Ok(_) => {}
                Err(error @ (WalletError::Database(_) | WalletError::File { .. })) => {
                    return Err(error);
                }
                Err(error) => failed.push(error),
            }
        }
        Ok(failed)
    }

    async fn settle(&self, swap: &OpenSwap) -> Result<Finished, WalletError> {
        // The keys of what it is exchanged for were known when it began.
        let (stored, _) = self.store().keysets(&swap.at)?;
        let keysets = Keysets::restore(&swap.at.unit, stored.iter().map(String::as_str));
        match self.restore(swap, &keysets).await? {
            Some(finished) => Ok(finished),
            None => self.exchange(swap, &keysets, Attempt::Again).await,
        }
    }

    /// Sends an exchange to the mint, and writes down what came of it.
    pub(super) async fn exchange(
        &self,
        swap: &OpenSwap,
        keysets: &Keysets,
        attempt: Attempt,
    ) -> Result<Finished, WalletError> {
        let outputs = Outputs::from_json(&swap.outputs)?;
        let inputs = swap.inputs.iter().map(|proof| proof.json.as_str());
        let request = match self.refund_key(swap)? {
            Some(key) => outputs.swap_request(inputs, &key)?,
            None => outputs.open_swap_request(inputs)?,
        };
        let url = &swap.at.url;
        match self.ask(url, "/v1/swap", request).await {
            Ok(answer) if answer.status.is_success() => {
                self.finish(swap, keysets, &outputs, &answer)
            }
            Ok(answer) if is_refusal(&answer) => self.refused(swap, keysets, &answer).await,
            Ok(answer) => Err(unfinished(swap, format!("it answers {}", answer.excerpt()))),
            Err(NoAnswer::NotSent(reason)) if attempt == Attempt::First => {
                self.store().abandon_swap(swap, &[])?;
                Err(WalletError::Unreachable { mint: url.clone(), reason })
            }
            Err(error) => match self.restore(swap, keysets).await {
                Ok(Some(finished)) => Ok(finished),
                _ => Err(unfinished(swap, error.to_string())),
            },
        }
    }

    /// Asks for the answer to an exchange again; `None` if the mint has not carried it out.
    async fn restore(
        &self,
        swap: &OpenSwap,
        keysets: &Keysets,
    ) -> Result<Option<Finished>, WalletError> {
        let outputs = Outputs::from_json(&swap.outputs)?;
        let asked = self.ask(&swap.at.url, "/v1/restore", outputs.restore_request()?).await;
        let answer = asked.map_err(|error| unfinished(swap, error.to_string()))?;
        if !answer.status.is_success() {
            return Err(unfinished(swap, format!("it answers {}", answer.excerpt())));
        }
        let restored = outputs.open_restored(keysets, &answer.body);
        match restored.map_err(|error| unfinished(swap, error.to_string()))? {
            Some(made) => self.write(swap, &outputs, made).map(Some),
            None => Ok(None),
        }
    }

    /// The mint said no: because it had done it before, because the proofs are spent, or for another reason.
    async fn refused(
        &self,
        swap: &OpenSwap,
        keysets: &Keysets,
        answer: &Answer,
    ) -> Result<Finished, WalletError> {
        if let Some(finished) = self.restore(swap, keysets).await? {
            return Ok(finished);
        }
        let states = self.states(&swap.at.url, &swap.inputs).await;
        let states = states.map_err(|reason| unfinished(swap, reason))?;
        if states.contains(&SpentState::Pending) {
            return Err(unfinished(swap, "it is still at this ecash".to_owned()));
        }
        let spent = swap.inputs.iter().zip(&states);
        let spent: Vec<_> = spent.filter(|(_, state)| **state == SpentState::Spent).collect();
        let points: Vec<_> = spent.iter().map(|(proof, _)| proof.y.clone()).collect();
        self.store().abandon_swap(swap, &points)?;
        let lost = spent.iter().map(|(proof, _)| proof.amount).sum();
        Err(match &swap.purpose {
            Purpose::Receive { .. } if lost > 0 => WalletError::Spent,
            Purpose::Reclaim { sent } if lost > 0 => WalletError::Claimed(*sent),
            Purpose::Send { .. } if lost > 0 => WalletError::SpentElsewhere(lost),
            _ => WalletError::Refused { mint: swap.at.url.clone(), reason: answer.excerpt() },
        })
    }

    /// What the mint says of proofs, in their order.
    pub(super) async fn states(
        &self,
        mint: &str,
        proofs: &[Held],
    ) -> Result<Vec<SpentState>, String> {
        let points: Option<Vec<_>> = proofs.iter().map(Held::point).collect();
        let points = points.ok_or("a stored proof has no point")?;
        let request = check_request(&points).map_err(|error| error.to_string())?;
        let answer = self.ask(mint, "/v1/checkstate", request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(format!("it answers {}", answer.excerpt()));
        }
        check_response(&points, &answer.body).map_err(|error| error.to_string())
    }

    fn finish(
        &self,
        swap: &OpenSwap,
        keysets: &Keysets,
        outputs: &Outputs,
        answer: &Answer,
    ) -> Result<Finished, WalletError> {
        let made = outputs.open(keysets, &answer.body);
        self.write(swap, outputs, made.map_err(|error| unfinished(swap, error.to_string()))?)
    }

    fn write(
        &self,
        swap: &OpenSwap,
        outputs: &Outputs,
        made: Vec<(u64, String)>,
    ) -> Result<Finished, WalletError> {
        let (mut paid, mut kept) = (Vec::new(), Vec::new());
        for ((_, json), is_paid) in made.iter().zip(outputs.are_paid()) {
            let to = if is_paid { &mut paid } else { &mut kept };
            to.push(Held::read(json)?);
        }
        self.store().finish_swap(swap, &paid, &kept, unix_now())
    }

    /// The key with which the inputs of an exchange are signed, if they are locked.
    fn refund_key(&self, swap: &OpenSwap) -> Result<Option<LockKey>, WalletError> {
        let Purpose::Reclaim { sent } = swap.purpose else { return Ok(None) };
        match self.store().spendable(sent)? {
            Spendable::Open => Ok(None),
            Spendable::No => Err(WalletError::NoRefund(sent)),
            Spendable::From(_, key) => {
                LockKey::parse(&key).map(Some).map_err(|_| WalletError::NoRefund(sent))
            }
        }
    }
}

/// Whether a mint has judged a request, and not only put it off.
fn is_refusal(answer: &Answer) -> bool {
    answer.status.is_client_error() && ![404, 405, 408, 429].contains(&answer.status.as_u16())
}

fn unfinished(swap: &OpenSwap, reason: String) -> WalletError {
    WalletError::Unfinished { mint: swap.at.url.clone(), reason }
}
