//! The token for the API over TCP.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::header::AUTHORIZATION,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand_core::{OsRng, RngCore as _};
use ring::digest::{Digest, SHA256, digest};
use zeroize::Zeroizing;

use super::error::ApiError;
use crate::connections::Trust;

/// The minimum length of a token. Shorter ones can be guessed.
const MIN_LENGTH: usize = 20;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file operation failed.
    #[error("cannot read or create the API token {path}: {source}. See api.token_file")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others than the owner can read the file.
    #[error("other users can read the token {path}: protect it with: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The token is too short.
    #[error(
        "the token in {path} has fewer than {MIN_LENGTH} characters: remove the file, and weir \
         creates a new one"
    )]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// The token. Only its hash is kept, and hashes are compared, so that the time that a comparison
/// takes says nothing of the token.
#[derive(Clone, Debug)]
pub struct Token(Digest);

impl Token {
    /// The token in a file, made there (mode 0600) where there is none.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or made, others can read it, or what it has is no secret.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let io = |source| TokenError::Io { path: path.to_owned(), source };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match made {
            Ok(mut file) => {
                let mut random = Zeroizing::new([0; 32]);
                OsRng.fill_bytes(&mut *random);
                let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random));
                writeln!(file, "{}", *text).and_then(|()| file.sync_all()).map_err(io)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(error)),
        }
        let mode = fs::metadata(path).map_err(io)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(TokenError::Exposed { path: path.to_owned() });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(io)?);
        let text = text.trim();
        if text.len() < MIN_LENGTH {
            return Err(TokenError::Short { path: path.to_owned() });
        }
        Ok(Self(digest(&SHA256, text.as_bytes())))
    }

    fn is(&self, given: &str) -> bool {
        digest(&SHA256, given.as_bytes()).as_ref() == self.0.as_ref()
    }
}

/// Passes a request that has the token.
pub(super) async fn require(State(token): State<Token>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    match given {
        Some((scheme, given))
            if scheme.eq_ignore_ascii_case("bearer") && token.is(given.trim()) =>
        {
            if let Some(ConnectInfo(trust)) = request.extensions().get::<ConnectInfo<Trust>>() {
                trust.grant();
            }
            next.run(request).await
        }
        _ => ApiError::unauthorised().into_response(),
    }
}
