//! `weir doctor`: what this machine offers a node, and what is in the way.
//!
//! [`facts`] looks, and changes nothing; [`check`] judges what it saw and is pure. What cannot be
//! seen, for want of root most often, is said to be unknown and is no failure.

pub mod check;
pub mod facts;

use std::path::Path;

use serde::Serialize;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As a node wants it.
    Good,
    /// It could not be seen.
    Unknown,
    /// A node works, but less well than it could.
    Warning,
    /// A node does not start, or serves nobody.
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
    /// What was looked at, in a word or two.
    pub check: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was seen.
    pub found: String,
    /// What to do or type, where there is something to do.
    pub fix: Option<String>,
    /// What the kernel said in detail, such as the end of the verifier's log.
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

/// Looks at this machine with the eyes of a node that has the configuration in `config`.
#[must_use]
pub fn run(config: Option<&Path>) -> Report {
    check::all(&facts::Facts::gather(config)).into()
}
