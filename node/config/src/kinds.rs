//! The kinds of values that are neither a number nor a plain text.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// A value that weir chooses, or that the operator sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    /// `"auto"`.
    #[default]
    Auto,
    /// The operator's value.
    Set(T),
}

impl<T> Auto<T> {
    /// The operator's value, if it is set.
    #[must_use]
    pub fn set(&self) -> Option<&T> {
        match self {
            Self::Auto => None,
            Self::Set(value) => Some(value),
        }
    }
}

/// The address or name, and the port, to which consumers send their datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
        let port: u16 = port.parse().map_err(|_| "its port is not a number from 1 to 65535")?;
        if port == 0 {
            return Err("its port is not a number from 1 to 65535");
        }
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            inner.parse::<Ipv6Addr>().map_err(|_| "the brackets do not contain an IPv6 address")?;
            return Ok(Self { host: inner.into(), port });
        }
        if host.contains(':') {
            return Err("an IPv6 address needs brackets around it");
        }
        let numbers = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if numbers && host.parse::<Ipv4Addr>().is_err() {
            return Err("its host is not an IPv4 address");
        }
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if host.len() > 253 || !host.split('.').all(label) {
            return Err("its host is neither an address nor a name");
        }
        Ok(Self { host: host.into(), port })
    }
}

macro_rules! words {
    ($(#[doc = $about:literal])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident = $word:literal,)* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            #[default]
            $($(#[doc = $doc])* $variant,)*
        }

        impl $name {
            /// The words for it, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word,)*];

            /// The word in the configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Parses a word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// How the guard is attached.
    GuardMode {
        /// The best mode that the machine supports.
        Auto = "auto",
        /// In the driver, or else without a guard.
        Native = "native",
        /// In the kernel's generic path, or else without a guard.
        Generic = "generic",
        /// Off.
        Off = "off",
        /// In any mode; the node does not start without a guard.
        Required = "required",
    }
}

words! {
    /// The I/O backend of the workers.
    IoMode {
        /// io_uring if it is allowed, else system calls.
        Auto = "auto",
        /// io_uring; the node does not start without it.
        Uring = "uring",
        /// io_uring without multishot reads.
        UringSingle = "uring-single",
        /// Plain system calls.
        Syscall = "syscall",
    }
}

words! {
    /// How consumers' data reaches the workers.
    ReceiveMode {
        /// By AF_XDP if possible, else through the sockets.
        Auto = "auto",
        /// By AF_XDP; the node does not start without it.
        AfXdp = "af_xdp",
        /// Through the kernel's network stack and the sockets.
        Sockets = "sockets",
    }
}

words! {
    /// How consumers' packets are to leave.
    EgressMode {
        /// By the bypass where that is possible, else through the kernel.
        Auto = "auto",
        /// By the node's own NAT, past the kernel's network stack, or the node does not start.
        Bypass = "bypass",
        /// Through the kernel's forwarding and its NAT.
        Kernel = "kernel",
    }
}

/// An amount of money in wei: a text in the configuration, because TOML's numbers are too small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wei(pub u128);

impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Wei {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The parser would accept a sign.
        let digits = if text.starts_with('+') { "" } else { text };
        digits.parse().map(Self)
    }
}

words! {
    /// Whether a running node gives up unneeded privileges.
    SandboxMode {
        /// As far as the kernel supports it.
        Auto = "auto",
        /// Off.
        Off = "off",
        /// Completely; the node does not start otherwise.
        Required = "required",
    }
}

words! {
    /// The log level.
    LogLevel {
        /// Normal operation.
        Info = "info",
        /// Failures.
        Error = "error",
        /// Also conditions that need the operator's attention.
        Warn = "warn",
        /// Also details for debugging.
        Debug = "debug",
    }
}

words! {
    /// The format of log lines.
    LogFormat {
        /// Text for people.
        Text = "text",
        /// A JSON object.
        Json = "json",
    }
}

/// The address of a listener that can be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// There is no listener.
    Off,
    /// The address and port of the listener.
    On(SocketAddr),
}

words! {
    /// The kind of line that an exit's address belongs to.
    IpType {
        /// Nobody says.
        Unknown = "unknown",
        /// A home's line.
        Residential = "residential",
        /// A mobile network.
        Cellular = "cellular",
        /// A data centre.
        Hosting = "hosting",
        /// A company's or a school's line.
        Business = "business",
    }
}
