//! What the user gives to pay a node of a file on.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use weir_connect::pay::{Payer, Promises, Vouchers};

/// Vouchers, or the key of an identity on the chain.
#[derive(Debug, Args)]
pub(in crate::cli) struct Means {
    /// A voucher of the node, used when a quarter is left; give several to use one after the other
    #[arg(long, value_name = "CODE", conflicts_with_all = ["country", "node"])]
    voucher: Vec<String>,
    /// Pay with promises as the session goes: a file with the key of an identity on the chain, 32
    /// bytes in hex
    #[arg(long, value_name = "FILE", requires = "budget", conflicts_with_all = ["country", "node", "voucher"])]
    promise_key: Option<PathBuf>,
}

/// Who pays, and at most how much of its unit.
pub(in crate::cli) type PaidBy = (Box<dyn Payer + Send>, u64);

impl Means {
    /// Who pays, for at most `budget`; `None` if nothing was given.
    pub(in crate::cli) fn payer(self, budget: Option<u64>) -> anyhow::Result<Option<PaidBy>> {
        if let Some(path) = &self.promise_key {
            let budget = budget.context("--promise-key needs --budget, in wei")?;
            return Ok(Some((Box::new(Promises::open(path)?), budget)));
        }
        if self.voucher.is_empty() {
            return Ok(None);
        }
        let vouchers = u64::try_from(self.voucher.len()).unwrap_or(u64::MAX);
        let budget = budget.unwrap_or(vouchers).min(vouchers);
        Ok(Some((Box::new(Vouchers::new(self.voucher)), budget)))
    }
}
