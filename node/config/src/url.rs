//! URLs that the operator names, to which weir sends requests.

use std::str::FromStr;

use http::Uri;

/// `http[s]://host[:port]/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    uri: Uri,
    is_secure: bool,
    port: u16,
}

/// Why a text is not an [`HttpUrl`].
#[derive(Debug, thiserror::Error)]
pub enum NotHttp {
    /// It has not the form of a URL.
    #[error("{0:?} is not a URL: {1}")]
    Form(String, http::uri::InvalidUri),
    /// It is of another scheme.
    #[error("{0:?} begins neither with https:// nor with http://")]
    Scheme(String),
    /// It names no host.
    #[error("{0:?} has no host")]
    Host(String),
}

impl HttpUrl {
    /// The name or address of the host.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The port: 80 or 443 where the text names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is to use TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// What to ask the host for.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl FromStr for HttpUrl {
    type Err = NotHttp;

    fn from_str(text: &str) -> Result<Self, NotHttp> {
        let uri: Uri = text.parse().map_err(|error| NotHttp::Form(text.to_owned(), error))?;
        let (is_secure, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(NotHttp::Scheme(text.to_owned())),
        };
        if uri.host().is_none_or(str::is_empty) {
            return Err(NotHttp::Host(text.to_owned()));
        }
        let port = uri.port_u16().unwrap_or(port);
        Ok(Self { uri, is_secure, port })
    }
}

impl std::fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.uri.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url: HttpUrl = "https://example.net/usage?a=1".parse().expect("a URL");
        assert_eq!((url.host(), url.port(), url.is_secure()), ("example.net", 443, true));
        assert_eq!(url.path(), "/usage?a=1");
        let url: HttpUrl = "http://[::1]:8080".parse().expect("a URL");
        assert_eq!((url.host(), url.port(), url.is_secure()), ("[::1]", 8080, false));
        assert_eq!(url.path(), "/");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "example.net", "ftp://example.net/", "https://", "http:///usage", "http://a b/"]
        {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }
}
