//! Which implementation the messages of a batch take.

use std::{env, sync::OnceLock};

use thiserror::Error;

/// The environment variable that forces a path: `ring`, `avx2` or `avx512`.
pub const ENVIRONMENT: &str = "WEIR_AEAD";

/// An implementation that this processor can run: no other value can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ring,
}

/// Why a path cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// There is none of this name.
    #[error("the cipher has no path {0:?}: the paths are ring, avx2 and avx512")]
    Unknown(String),
    /// This processor lacks instructions that it needs.
    #[error("this processor cannot run the cipher's path {name}, which needs {needs}")]
    Unavailable {
        /// The name of the path.
        name: &'static str,
        /// The instructions.
        needs: &'static str,
    },
}

/// The names, each with the instructions that the path needs.
const NAMES: [(&str, &str, Option<Kind>); 3] = [
    ("avx512", "AVX-512 F, BW, VL, DQ, IFMA and VBMI2", None),
    ("avx2", "AVX2", None),
    ("ring", "nothing", Some(Kind::Ring)),
];

impl Path {
    /// ring's assembly, which runs anywhere.
    pub const RING: Self = Self(Kind::Ring);

    /// The fastest path of this processor.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Path> = OnceLock::new();
        *BEST.get_or_init(|| Self::RING)
    }

    /// The path that [`ENVIRONMENT`] names, or [`Self::best`] if it is not set.
    ///
    /// # Errors
    ///
    /// Fails if the variable names no path, or one that this processor cannot run.
    pub fn from_environment() -> Result<Self, PathError> {
        match env::var_os(ENVIRONMENT) {
            None => Ok(Self::best()),
            Some(name) => Self::named(&name.to_string_lossy()),
        }
    }

    /// The path of this name.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or if this processor cannot run it.
    pub fn named(name: &str) -> Result<Self, PathError> {
        let of_name = |(known, _, _): &&(&str, &str, _)| *known == name;
        let Some((name, needs, kind)) = NAMES.iter().find(of_name) else {
            return Err(PathError::Unknown(name.to_owned()));
        };
        kind.map(Self).ok_or(PathError::Unavailable { name, needs })
    }

    /// All paths that this processor can run.
    pub fn available() -> impl Iterator<Item = Self> {
        NAMES.iter().filter_map(|(name, _, _)| Self::named(name).ok())
    }

    /// The name, as in [`ENVIRONMENT`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Ring => "ring",
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }
}
