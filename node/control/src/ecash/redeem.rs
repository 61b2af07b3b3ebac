//! The exchange of tokens at their mint.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use weir_ecash::{Outputs, SpentState, check_request, check_response};
use weir_ledger::{
    Ledger, LedgerError,
    ecash::{HeldProof, OpenSwap},
};

use super::{Cashu, KEYSETS_AGE, KnownMint, MIN_KEYSETS_AGE};
use crate::delivery::post::NoAnswer;

/// The proofs of one exchange. Mints refuse requests that are much larger.
const MAX_INPUTS: u32 = 64;
/// The exchanges of one round, so that a round ends.
const MAX_SWAPS: u32 = 16;
/// The waits after exchanges that did not come to an end: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(600);

impl Cashu {
    /// Exchanges what was taken, again and again, until `stopped` says so.
    pub async fn run(self: Arc<Self>, stopped: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for place in 0..self.mints.len() {
            tasks.spawn(Arc::clone(&self).run_mint(place, stopped.clone()));
        }
        tasks.join_all().await;
    }

    async fn run_mint(self: Arc<Self>, place: usize, mut stopped: watch::Receiver<bool>) {
        let mint = &self.mints[place];
        let mut wait = Duration::ZERO;
        let mut failed_before = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = mint.wake.notified(), if !failed_before => {}
                _ = stopped.changed() => return,
            }
            let round = async {
                let _exchanging = mint.exchanging.lock().await;
                self.round(mint).await
            };
            let done = tokio::select! {
                done = round => done,
                // What was begun is in the ledger.
                _ = stopped.changed() => return,
            };
            wait = match done {
                Ok(()) => {
                    if failed_before {
                        tracing::info!(mint = mint.url, "the mint exchanges tokens again");
                    }
                    failed_before = false;
                    self.redeem_every
                }
                Err(error) => {
                    if !failed_before {
                        tracing::warn!(
                            mint = mint.url,
                            "tokens are not exchanged now, and are tried again: {error:#}"
                        );
                    }
                    let next = if failed_before { wait * 2 } else { FIRST_WAIT };
                    failed_before = true;
                    next.clamp(FIRST_WAIT, LAST_WAIT)
                }
            };
        }
    }

    /// One round: what was begun is brought to its end, then whatever there is is exchanged.
    pub(super) async fn round(&self, mint: &KnownMint) -> anyhow::Result<()> {
        if mint.is_older(KEYSETS_AGE) || !mint.keysets().is_ready() {
            self.refresh(mint).await?;
        }
        let done = self.exchange_all(mint).await;
        self.credit_exchanged(mint).await?;
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.note_mints()).await??;
        done
    }

    async fn exchange_all(&self, mint: &KnownMint) -> anyhow::Result<()> {
        let url = mint.url.clone();
        let open = self.write(move |ledger| ledger.open_swaps(&url, MAX_SWAPS)).await?;
        for swap in open {
            if !self.restore(mint, &swap).await? {
                self.exchange(mint, &swap).await?;
            }
        }
        for _ in 0..MAX_SWAPS {
            let url = mint.url.clone();
            let held = self.write(move |ledger| ledger.held_proofs(&url, MAX_INPUTS)).await?;
            let Some(first) = held.first() else { break };
            let (token, alone) = (first.token, first.alone);
            let with = |proof: &HeldProof| match alone {
                true => proof.token == token,
                false => !proof.alone,
            };
            let inputs: Vec<_> = held.into_iter().filter(with).collect();
            let swap = self.begin(mint, inputs).await?.context("proofs are in a swap already")?;
            self.exchange(mint, &swap).await?;
        }
        Ok(())
    }

    /// Exchanges one token and credits it. Says `false` if the mint was not reached: the token is its owner's again.
    pub(super) async fn exchange_token(
        &self,
        mint: &KnownMint,
        token: u64,
    ) -> anyhow::Result<bool> {
        let held = self.write(move |ledger| ledger.held_proofs_of(token)).await?;
        let swap = self.begin(mint, held).await?.context("the token is in a swap already")?;
        if let Err(error) = self.exchange(mint, &swap).await {
            if let Some(NoAnswer::NotSent(_)) = error.downcast_ref::<NoAnswer>() {
                self.write(move |ledger| ledger.return_token(token, swap.number)).await?;
                return Ok(false);
            }
            return Err(error);
        }
        self.credit_exchanged(mint).await?;
        Ok(true)
    }

    /// Writes a swap down, before the mint sees anything of it.
    async fn begin(
        &self,
        mint: &KnownMint,
        inputs: Vec<HeldProof>,
    ) -> anyhow::Result<Option<OpenSwap>> {
        let outputs = Outputs::new(&mint.keysets(), proofs(&inputs))?.to_json()?;
        let points: Vec<_> = inputs.iter().map(|input| input.y).collect();
        let (url, stored) = (mint.url.clone(), outputs.clone());
        let number = self.write(move |ledger| ledger.begin_swap(&url, &points, &stored)).await?;
        Ok(number.map(|number| OpenSwap { number, outputs, inputs }))
    }

    /// Sends a swap to the mint, and writes down what came of it. An error means that the swap is still open, or
    /// was refused and given up.
    async fn exchange(&self, mint: &KnownMint, swap: &OpenSwap) -> anyhow::Result<()> {
        let outputs = Outputs::from_json(&swap.outputs)?;
        let request = outputs.swap_request(proofs(&swap.inputs), &self.key)?;
        let (status, body) = mint.api.ask("/v1/swap", request).await?;
        if status.is_success() {
            let proofs = outputs.open(&mint.keysets(), &body)?;
            self.finish(swap.number, proofs).await?;
            return Ok(());
        }
        let is_refusal = status.is_client_error() && ![408, 429].contains(&status.as_u16());
        ensure!(is_refusal, "the mint answers {status}");
        // It may have been carried out before, and the answer was lost.
        if self.restore(mint, swap).await? {
            return Ok(());
        }
        let points: Vec<_> = swap.inputs.iter().map(|input| input.y).collect();
        let (checked, states) = mint.api.ask("/v1/checkstate", check_request(&points)?).await?;
        ensure!(checked.is_success(), "the mint answers {checked} to the question what is spent");
        let states = check_response(&points, &states)?;
        ensure!(!states.contains(&SpentState::Pending), "the mint is still at these proofs");
        let spent = points.iter().zip(&states).filter(|(_, state)| **state == SpentState::Spent);
        let spent: Vec<_> = spent.map(|(point, _)| *point).collect();
        let number = swap.number;
        let lost = self.write(move |ledger| ledger.abandon_swap(number, &spent)).await?;
        // The keyset may have been retired meanwhile.
        *mint.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if lost > 0 {
            tracing::error!(
                mint = mint.url,
                lost,
                "the mint says that tokens locked to this node were spent elsewhere. Fix: check \
                 whether another node has the same cashu.key_file, or stop taking this mint's \
                 tokens (cashu.mints)"
            );
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        bail!("the mint refuses ({status}): {said:?}");
    }

    /// Asks for the answer to a swap again. Says whether the mint had carried it out.
    async fn restore(&self, mint: &KnownMint, swap: &OpenSwap) -> anyhow::Result<bool> {
        let outputs = Outputs::from_json(&swap.outputs)?;
        let (status, body) = mint.api.ask("/v1/restore", outputs.restore_request()?).await?;
        ensure!(status.is_success(), "the mint answers {status} to the request to restore");
        let Some(proofs) = outputs.open_restored(&mint.keysets(), &body)? else { return Ok(false) };
        self.finish(swap.number, proofs).await?;
        Ok(true)
    }

    /// Credits tokens that were exchanged first.
    async fn credit_exchanged(&self, mint: &KnownMint) -> anyhow::Result<()> {
        let url = mint.url.clone();
        for due in self.write(move |ledger| ledger.uncredited(&url)).await? {
            let sessions = Arc::clone(&self.sessions);
            let credit = move || sessions.credit_token(due.token, due.session);
            tokio::task::spawn_blocking(credit).await??;
        }
        Ok(())
    }

    async fn finish(&self, swap: u64, proofs: Vec<(u64, String)>) -> anyhow::Result<bool> {
        self.write(move |ledger| ledger.finish_swap(swap, &proofs)).await
    }

    /// Does something with the ledger where nobody waits for it.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> anyhow::Result<T> {
        let ledger = self.ledger.clone();
        Ok(tokio::task::spawn_blocking(move || work(&mut ledger.lock())).await??)
    }

    /// Fetches a mint's keysets.
    pub(super) async fn refresh(&self, mint: &KnownMint) -> anyhow::Result<()> {
        *mint.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut keysets = mint.keysets();
        let before = keysets.clone();
        let (status, list) = mint.api.ask("/v1/keysets", Vec::new()).await?;
        ensure!(status.is_success(), "the mint answers {status} to the question for its keysets");
        for id in keysets.update(&list)? {
            let (status, keys) = mint.api.ask(&format!("/v1/keys/{id}"), Vec::new()).await?;
            ensure!(status.is_success(), "the mint answers {status} to the question for its keys");
            keysets.add_keys(&keys)?;
        }
        if keysets != before {
            let stored = keysets.stored()?;
            let (url, unit) = (mint.url.clone(), self.unit.clone());
            self.write(move |ledger| ledger.set_keysets(&url, &unit, &stored)).await?;
        }
        *mint.keysets.write().unwrap_or_else(PoisonError::into_inner) = keysets;
        Ok(())
    }

    /// Fetches the keysets that are not fresh, because of a token with an unknown one. Says whether any was fetched.
    /// However many such tokens come, each mint is asked once in [`MIN_KEYSETS_AGE`].
    pub(super) async fn refresh_for_token(&self) -> bool {
        let mut any = false;
        for mint in &self.mints {
            if mint.is_older(MIN_KEYSETS_AGE) {
                any |= self.refresh(mint).await.is_ok();
            }
        }
        any
    }
}

fn proofs(inputs: &[HeldProof]) -> impl Iterator<Item = &str> {
    inputs.iter().map(|input| input.proof.as_str())
}
