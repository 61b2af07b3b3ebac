//! Ports, as an operator writes them: `25/tcp`, `6881-6999`, `53/udp`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A rule that blocks ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// The protocol, or both.
    pub protocol: Option<Protocol>,
    /// The first.
    pub low: u16,
    /// The last.
    pub high: u16,
}

impl PortRule {
    /// Whether the rule applies to this protocol.
    #[must_use]
    pub fn is_of(self, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|own| own == protocol)
    }
}

impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.low)?;
        if self.high != self.low {
            write!(f, "-{}", self.high)?;
        }
        self.protocol.map_or(Ok(()), |protocol| write!(f, "/{}", protocol.as_str()))
    }
}

/// Why a text is not a valid [`PortRule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not ports from 1 to 65535, such as 25/tcp, 53/udp or 6881-6999")]
pub struct NoPorts;

impl FromStr for PortRule {
    type Err = NoPorts;

    fn from_str(text: &str) -> Result<Self, NoPorts> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, None),
            Some((ports, "tcp")) => (ports, Some(Protocol::Tcp)),
            Some((ports, "udp")) => (ports, Some(Protocol::Udp)),
            Some(_) => return Err(NoPorts),
        };
        let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|port| digits && *port > 0).ok_or(NoPorts)
        };
        let (low, high) = (port(low)?, port(high)?);
        if low > high {
            return Err(NoPorts);
        }
        Ok(Self { protocol, low, high })
    }
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first. Not 0.
    pub low: u16,
    /// The last.
    pub high: u16,
}

impl PortRange {
    /// Whether the port is in it.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.low..=self.high).contains(&port)
    }

    /// The number of whole blocks in it. A block has `block_ports` ports and begins at a multiple
    /// of that.
    #[must_use]
    pub fn blocks(self, block_ports: u16) -> u32 {
        let (first, end) = (u32::from(self.low), u32::from(self.high) + 1);
        let ports = u32::from(block_ports).max(1);
        (end / ports).saturating_sub(first.div_ceil(ports))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.low, self.high)
    }
}

/// Why a text is no [`PortRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.problem(), self.fix())]
pub struct NotARange(String);

impl NotARange {
    /// What is wrong, without the fix.
    pub(crate) fn problem(&self) -> String {
        format!("{:?} is not a range of ports", self.0)
    }

    /// What to write instead.
    pub(crate) fn fix(&self) -> String {
        "write the first and the last port, from 1 to 65535, for example \"4096-32767\"".into()
    }
}

impl FromStr for PortRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let rule: Option<PortRule> = text.parse().ok().filter(|_| text.contains('-'));
        match rule {
            Some(PortRule { protocol: None, low, high }) => Ok(Self { low, high }),
            _ => Err(NotARange(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_two_ends_and_whole_blocks() {
        let range: PortRange = "4096-32767".parse().expect("a range");
        assert_eq!((range.to_string().as_str(), range.blocks(32)), ("4096-32767", 896));
        assert!(range.contains(4096) && range.contains(32767));
        assert!(!range.contains(4095) && !range.contains(32768));
        for (text, blocks) in
            [("4097-4159", 1), ("4097-4127", 0), ("4097-4158", 0), ("1-65535", 2047)]
        {
            assert_eq!(
                text.parse::<PortRange>().map(|range| range.blocks(32)),
                Ok(blocks),
                "{text}"
            );
        }
        for bad in ["", "80", "0-9", "9-8", "80-90/tcp", "1-65536", "-9", "9-", "1-2-3"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_read_as_they_are_written() {
        for text in ["25/tcp", "53/udp", "80", "6881-6999", "1-65535/udp"] {
            assert_eq!(text.parse::<PortRule>().expect(text).to_string(), text);
        }
        let one: PortRule = "7-7/tcp".parse().expect("a range of one");
        assert_eq!(one.to_string(), "7/tcp");
        for bad in ["", "0", "65536", "+25", "25/", "25/sctp", "9-8", "1-", "-1", "a", "25 /tcp"] {
            assert_eq!(bad.parse::<PortRule>(), Err(NoPorts), "{bad}");
        }
    }
}
