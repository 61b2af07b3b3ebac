//! `weir doctor`: checks this machine for problems that affect a node.
//!
//! [`facts`] observes and changes nothing. [`check`] judges the facts and is pure. A fact that
//! cannot be observed, usually because root is needed, is reported as unknown and is not a failure.

pub mod check;
pub mod facts;

use std::path::Path;

use serde::Serialize;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Good for a node.
    Good,
    /// It could not be observed.
    Unknown,
    /// A node works, but with limitations.
    Warning,
    /// A node does not start, or cannot serve consumers.
    Bad,
}

impl Verdict {
    /// The verdict in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subject, in a word or two.
    pub check: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// The observation.
    pub found: String,
    /// The fix, if there is one.
    pub fix: Option<String>,
    /// The kernel's output in detail, such as the end of the verifier's log.
    pub detail: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check, verdict, found: found.into(), fix: None, detail: Vec::new() }
    }

    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, found)
    }

    fn unknown(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, why)
    }

    fn warning(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(check, Verdict::Warning, found) }
    }

    fn bad(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(check, Verdict::Bad, found) }
    }

    fn with(mut self, detail: Vec<String>) -> Self {
        self.detail = detail;
        self
    }
}

/// All findings, in the order in which a node would meet them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The worst of the verdicts.
    pub verdict: Verdict,
    /// One for each check.
    pub findings: Vec<Finding>,
}

impl From<Vec<Finding>> for Report {
    fn from(findings: Vec<Finding>) -> Self {
        let verdict = findings.iter().map(|finding| finding.verdict).max();
        Self { verdict: verdict.unwrap_or(Verdict::Good), findings }
    }
}

/// Checks this machine for a node with the configuration file `config`.
#[must_use]
pub fn run(config: Option<&Path>) -> Report {
    check::all(&facts::Facts::gather(config)).into()
}
