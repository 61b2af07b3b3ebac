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
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
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

/// A path of this name, and whether this processor can run it.
struct Row {
    name: &'static str,
    needs: &'static str,
    kind: fn() -> Option<Kind>,
}

/// All paths.
const ROWS: [Row; 3] = [
    Row { name: "avx512", needs: "AVX-512 F, BW, VL, DQ, IFMA and VBMI2", kind: avx512 },
    Row { name: "avx2", needs: "AVX2", kind: avx2 },
    Row { name: "ring", needs: "nothing", kind: || Some(Kind::Ring) },
];

#[cfg(target_arch = "x86_64")]
fn avx512() -> Option<Kind> {
    super::avx512::is_available().then_some(Kind::Avx512)
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> Option<Kind> {
    super::avx2::is_available().then_some(Kind::Avx2)
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> Option<Kind> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Option<Kind> {
    None
}

impl Path {
    /// ring's assembly, which runs anywhere.
    pub const RING: Self = Self(Kind::Ring);

    /// The fastest path of this processor: AVX-512 where there is all of it, else ring's.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Path> = OnceLock::new();
        *BEST.get_or_init(|| avx512().map_or(Self::RING, Self))
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
        let Some(row) = ROWS.iter().find(|row| row.name == name) else {
            return Err(PathError::Unknown(name.to_owned()));
        };
        let kind = (row.kind)();
        kind.map(Self).ok_or(PathError::Unavailable { name: row.name, needs: row.needs })
    }

    /// All paths that this processor can run.
    pub fn available() -> impl Iterator<Item = Self> {
        ROWS.iter().filter_map(|row| (row.kind)().map(Self))
    }

    /// The name, as in [`ENVIRONMENT`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            Kind::Ring => "ring",
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }
}
