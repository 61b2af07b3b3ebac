//! What may be spent in a day. It is taken before something is bought, so that a watcher that is killed
//! and started again never spends more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weir_market::replace::replace;

/// Seconds for which what was spent counts.
const DAY: u64 = 24 * 3600;

/// Why nothing may be bought.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// It is used up.
    #[error("this costs {cost}, and {left} of the day's budget are left")]
    UsedUp {
        /// What was to be spent.
        cost: u64,
        /// What is left.
        left: u64,
    },
    /// The file cannot be used.
    #[error("cannot {doing} the budget {path}: {source}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The day, and what was spent in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    /// When the day began, in seconds since 1970.
    since: u64,
    spent: u64,
}

/// A budget a day, in a file.
#[derive(Clone, Debug)]
pub struct Budget {
    path: PathBuf,
    a_day: u64,
}

impl Budget {
    /// At most this much a day, by this file.
    #[must_use]
    pub fn new(path: &Path, a_day: u64) -> Self {
        Self { path: path.to_owned(), a_day }
    }

    /// Takes what something costs, as of `now` (seconds since 1970).
    ///
    /// # Errors
    ///
    /// When it is too much, or cannot be written down.
    pub fn take(&self, cost: u64, now: u64) -> Result<(), BudgetError> {
        let read = match fs::read(&self.path) {
            // What cannot be read counts as a day that is used up: it ends by itself.
            Ok(text) => {
                serde_json::from_slice(&text).unwrap_or(Spent { since: now, spent: self.a_day })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Spent::default(),
            Err(source) => return Err(self.failed("read", source)),
        };
        // A clock that went back does not begin a new day.
        let mut spent = match now.saturating_sub(read.since) >= DAY {
            true => Spent { since: now, spent: 0 },
            false => read,
        };
        let left = self.a_day.saturating_sub(spent.spent);
        if cost <= left {
            spent.spent = spent.spent.saturating_add(cost);
        }
        // Otherwise too, so that a damaged file is replaced.
        let written = replace(&self.path, |out| Ok(serde_json::to_writer(out, &spent)?));
        written.map_err(|source| self.failed("write", source))?;
        if cost > left { Err(BudgetError::UsedUp { cost, left }) } else { Ok(()) }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> BudgetError {
        BudgetError::Io { doing, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_day_has_a_budget_which_a_restart_does_not_fill_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("budget.json");
        let take = |cost, now| Budget::new(&path, 100).take(cost, now);
        assert!(take(60, NOW).is_ok() && take(40, NOW + 10).is_ok());
        let error = take(1, NOW + DAY - 1).expect_err("it is used up").to_string();
        assert!(error.contains("costs 1, and 0"), "{error}");
        assert!(take(1, NOW - DAY).is_err(), "a clock that went back");
        assert!(take(100, NOW + DAY).is_ok(), "the next day");
        assert!(take(1, NOW + DAY).is_err());
    }

    #[test]
    fn a_damaged_file_costs_a_day_and_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("budget.json");
        fs::write(&path, "{").expect("written");
        let budget = Budget::new(&path, 100);
        assert!(budget.take(1, NOW).is_err());
        fs::write(&path, "{\"since\":1,\"spent\":7}").expect("written");
        assert!(budget.take(100, NOW).is_ok());
    }
}
