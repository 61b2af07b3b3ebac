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

/// `ws[s]://host[:port]/path`: a relay or a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketUrl(HttpUrl);

/// Why a text is not a [`WebSocketUrl`].
#[derive(Debug, thiserror::Error)]
pub enum NotWebSocket {
    /// Another scheme.
    #[error("{0:?} begins neither with wss:// nor with ws://")]
    Scheme(String),
    /// Not a URL with a host.
    #[error(transparent)]
    Form(#[from] NotHttp),
}

impl WebSocketUrl {
    /// The name or address of the host.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host()
    }

    /// The port: 80 or 443 where the text names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Whether the connection is to use TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.is_secure()
    }
}

impl FromStr for WebSocketUrl {
    type Err = NotWebSocket;

    fn from_str(text: &str) -> Result<Self, NotWebSocket> {
        let other = || NotWebSocket::Scheme(text.to_owned());
        let rest = text.strip_prefix("ws").ok_or_else(other)?;
        if !rest.starts_with("://") && !rest.starts_with("s://") {
            return Err(other());
        }
        Ok(Self(format!("http{rest}").parse()?))
    }
}

impl std::fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        write!(f, "ws{}", text.strip_prefix("http").unwrap_or(&text))
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

    #[test]
    fn relays_are_web_sockets() {
        let url: WebSocketUrl = "wss://relay.example/path".parse().expect("a URL");
        assert_eq!((url.host(), url.port(), url.is_secure()), ("relay.example", 443, true));
        assert_eq!(url.to_string(), "wss://relay.example/path");
        let url: WebSocketUrl = "ws://127.0.0.1:7447".parse().expect("a URL");
        assert_eq!((url.port(), url.is_secure()), (7447, false));
        for text in ["", "ws", "https://relay.example", "wss://", "wsss://a", "ws:/a", "ws//a"] {
            assert!(text.parse::<WebSocketUrl>().is_err(), "{text}");
        }
    }
}
