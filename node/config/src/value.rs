//! How each kind of value is read from TOML and written to it.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
    str::FromStr,
};

use alloy_primitives::Address;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::{Spanned, de::DeValue};

use super::{
    amounts::{AtMost, BitRate, ByteCount},
    kinds::{
        Auto, EgressMode, GuardMode, HostPort, IoMode, IpType, ListenAddr, LogFormat, LogLevel,
        ReceiveMode, SandboxMode, Wei,
    },
    mistake::nearest,
    schedule::Window,
};
use crate::{PortRange, PortRule};

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What, with the value.
    pub problem: String,
    /// What to write instead.
    pub fix: String,
    /// The bytes of the value, where it is only a part of the key's.
    pub at: Option<Range<usize>>,
}

impl Problem {
    fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into(), at: None }
    }
}

/// A value that the configuration can have.
pub(crate) trait Value: Sized {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem>;
    /// Writes it as TOML.
    fn show(&self) -> String;
}

/// How a value looks in a message.
fn quote(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn text<'v>(value: &'v Spanned<DeValue<'_>>, example: &str) -> Result<&'v str, Problem> {
    let value = value.get_ref();
    value.as_str().ok_or_else(|| {
        Problem::new(
            format!("{} is not a string", quote(value)),
            format!("write a string in quotes, for example {example}"),
        )
    })
}

fn parsed<T: FromStr>(
    value: &Spanned<DeValue<'_>>,
    what: &str,
    example: &str,
) -> Result<T, Problem> {
    let text = text(value, example)?;
    text.parse().map_err(|_| {
        Problem::new(format!("{text:?} is not {what}"), format!("write for example {example}"))
    })
}

macro_rules! number {
    ($($type:ty, $least:literal);*) => {$(
        impl Value for $type {
            fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
                let value = value.get_ref();
                let range = format!(
                    "write a whole number from {} to {}, without quotes", $least, Self::MAX
                );
                let Some(number) = value.as_integer() else {
                    return Err(Problem::new(
                        format!("{} is not a whole number", quote(value)),
                        range,
                    ));
                };
                Self::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| Problem::new(format!("{} is out of range", number.as_str()), range))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

number!(u16, 0; u32, 0; i32, -2_147_483_648);

impl Value for bool {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        let value = value.get_ref();
        value.as_bool().ok_or_else(|| {
            Problem::new(
                format!("{} is neither true nor false", quote(value)),
                "write true or false, without quotes",
            )
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        Ok(text(value, "\"weir0\"")?.to_owned())
    }

    fn show(&self) -> String {
        toml::Value::String(self.clone()).to_string()
    }
}

impl Value for PathBuf {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        let text = text(value, "\"/var/lib/weir\"")?;
        if text.contains('\0') || !text.starts_with('/') {
            return Err(Problem::new(
                format!("{text:?} is not an absolute path"),
                "write a path that begins with /",
            ));
        }
        Ok(text.into())
    }

    fn show(&self) -> String {
        self.display().to_string().show()
    }
}

impl<T: AutoValue> Value for Auto<T> {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        if value.get_ref().as_str() == Some("auto") {
            return Ok(Self::Auto);
        }
        T::read_set(value).map(Self::Set)
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "\"auto\"".into(),
            Self::Set(value) => value.show_set(),
        }
    }
}

/// A value that can be left to weir.
pub(crate) trait AutoValue: Sized {
    /// Reads what is not `"auto"`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    fn read_set(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem>;
    /// Writes it as TOML.
    fn show_set(&self) -> String;
}

impl AutoValue for String {
    fn read_set(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        Ok(text(value, "\"auto\" or \"eth0\"")?.to_owned())
    }

    fn show_set(&self) -> String {
        self.show()
    }
}

impl AutoValue for u16 {
    fn read_set(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        Self::read(value).map_err(|problem| Problem {
            fix: "write \"auto\", or a whole number without quotes".into(),
            ..problem
        })
    }

    fn show_set(&self) -> String {
        self.show()
    }
}

impl AutoValue for AtMost {
    fn read_set(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        Self::read(value).map_err(|problem| Problem {
            fix: "write \"auto\", a whole number without quotes, or \"off\"".into(),
            ..problem
        })
    }

    fn show_set(&self) -> String {
        self.show()
    }
}

impl AutoValue for HostPort {
    fn read_set(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        let text = text(value, "\"auto\" or \"exit.example.net:51820\"")?;
        text.parse().map_err(|reason| {
            Problem::new(
                format!("{text:?} is not an endpoint: {reason}"),
                "write \"auto\", \"exit.example.net:51820\", \"198.51.100.7:51820\" or \
                 \"[2001:db8::7]:51820\"",
            )
        })
    }

    fn show_set(&self) -> String {
        self.to_string().show()
    }
}

macro_rules! one_word {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
                let choices: Vec<String> =
                    Self::WORDS.iter().map(|word| format!("{word:?}")).collect();
                let word = text(value, &choices.join(" or "))?;
                Self::from_word(word).ok_or_else(|| {
                    let meant = nearest(word, Self::WORDS)
                        .map(|near| format!("did you mean {near:?}? "))
                        .unwrap_or_default();
                    Problem::new(
                        format!("{word:?} is not one of the choices"),
                        format!("{meant}write one of {}", choices.join(", ")),
                    )
                })
            }

            fn show(&self) -> String {
                format!("{:?}", self.as_str())
            }
        }
    )*};
}

one_word!(GuardMode, IoMode, ReceiveMode, EgressMode, SandboxMode, LogLevel, LogFormat, IpType);

impl Value for ListenAddr {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        if value.get_ref().as_str() == Some("off") {
            return Ok(Self::Off);
        }
        parsed::<SocketAddr>(value, "an address with a port", "\"127.0.0.1:9587\" or \"off\"")
            .map(Self::On)
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "\"off\"".into(),
            Self::On(address) => format!("\"{address}\""),
        }
    }
}

macro_rules! address {
    ($($type:ty, $what:literal, $example:literal;)*) => {$(
        impl Value for $type {
            fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
                parsed(value, $what, $example)
            }

            fn show(&self) -> String {
                format!("\"{self}\"")
            }
        }
    )*};
}

/// A text whose error has a problem and a fix.
macro_rules! explained {
    ($($type:ty, $example:literal;)*) => {$(
        impl Value for $type {
            fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
                let text = text(value, $example)?;
                text.parse().map_err(|error: <$type as FromStr>::Err| {
                    Problem::new(error.problem(), error.fix())
                })
            }

            fn show(&self) -> String {
                format!("\"{self}\"")
            }
        }
    )*};
}

explained! {
    BitRate, "\"200 Mbit/s\" or \"off\"";
    ByteCount, "\"2 TB\" or \"off\"";
    Window, "\"Mon-Fri 08:00-18:00 down=100mbit\"";
    PortRange, "\"4096-32767\"";
}

impl Value for AtMost {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        if value.get_ref().as_str() == Some("off") {
            return Ok(Self::default());
        }
        let fix = "write a whole number without quotes, or \"off\"";
        match u32::read(value).map_err(|problem| Problem { fix: fix.into(), ..problem })? {
            0 => Err(Problem::new("0 would block everything", fix)),
            most => Ok(Self::new(most)),
        }
    }

    fn show(&self) -> String {
        match self.get() {
            0 => "\"off\"".into(),
            most => most.to_string(),
        }
    }
}

address! {
    SocketAddr, "an address and a port", "\"127.0.0.1:7447\"";
    IpAddr, "an IP address", "\"9.9.9.9\"";
    Ipv4Net, "an IPv4 network", "\"10.66.0.0/16\"";
    Ipv6Net, "an IPv6 network", "\"fd66:7765:6972::/64\"";
    Wei, "a whole number of wei", "\"100000000000000000\"";
    PortRule, "ports", "\"25/tcp\", \"6881-6999\" or \"53/udp\"";
    IpNet, "a network", "\"192.168.7.0/24\" or \"2001:db8:7::/48\"";
}

impl AutoValue for Vec<IpAddr> {
    fn read_set(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        Self::read(value)
    }

    fn show_set(&self) -> String {
        self.show()
    }
}

impl AutoValue for Wei {
    fn read_set(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        Self::read(value)
    }

    fn show_set(&self) -> String {
        self.show()
    }
}

/// A network; an empty text is none.
impl Value for Option<Ipv6Net> {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        let example = "\"2001:db8:7::/64\" or \"\"";
        if text(value, example)?.is_empty() {
            return Ok(None);
        }
        parsed(value, "an IPv6 network", example).map(Some)
    }

    fn show(&self) -> String {
        self.map_or(String::new(), |network| network.to_string()).show()
    }
}

/// An address on a chain; an empty text is none.
impl Value for Option<Address> {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        let example = "\"0x87F0F4b7e0FAb14A565C87BAbbA6c40c92281b51\"";
        if text(value, example)?.is_empty() {
            return Ok(None);
        }
        parsed(value, "an address on a chain (0x and 40 hex digits)", example).map(Some)
    }

    fn show(&self) -> String {
        self.map_or(String::new(), |address| address.to_string()).show()
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Problem> {
        let Some(elements) = value.get_ref().as_array() else {
            let value = quote(value.get_ref());
            return Err(Problem::new(
                format!("{value} is not a list"),
                format!("put it in brackets: [{value}]"),
            ));
        };
        let read = |element: &Spanned<DeValue<'_>>| {
            T::read(element).map_err(|problem| Problem { at: Some(element.span()), ..problem })
        };
        elements.iter().map(read).collect()
    }

    fn show(&self) -> String {
        let elements: Vec<String> = self.iter().map(Value::show).collect();
        format!("[{}]", elements.join(", "))
    }
}
