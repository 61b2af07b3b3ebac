//! Reading a wg-quick configuration as a client does, because wg-quick itself would change the
//! routes and the resolver of the machine.

use anyhow::{Context as _, Result};

/// A configuration, parted into what `wg` takes and what wg-quick does itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WgQuick {
    /// What `wg setconf` takes.
    pub wg: String,
    /// `Address`, with prefix lengths.
    pub addresses: Vec<String>,
    /// `MTU`.
    pub mtu: Option<u32>,
    /// `DNS`.
    pub dns: Vec<String>,
    /// `Endpoint`.
    pub endpoint: Option<String>,
}

impl WgQuick {
    /// Reads a configuration.
    ///
    /// # Errors
    /// If a line is neither a section, nor a comment, nor a key with its value.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parsed = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with('[') {
                parsed.keep(line);
                continue;
            }
            let (key, value) =
                line.split_once('=').with_context(|| format!("no key and value: {line:?}"))?;
            let (key, value) = (key.trim(), value.trim());
            let list = || value.split(',').map(|item| item.trim().to_owned());
            match key.to_ascii_lowercase().as_str() {
                "address" => parsed.addresses.extend(list()),
                "dns" => parsed.dns.extend(list()),
                "mtu" => parsed.mtu = Some(value.parse().context("MTU")?),
                "endpoint" => {
                    parsed.endpoint = Some(value.to_owned());
                    parsed.keep(line);
                }
                _ => parsed.keep(line),
            }
        }
        Ok(parsed)
    }

    /// The same with another `Endpoint`.
    ///
    /// # Errors
    /// If there is none to replace.
    pub fn with_endpoint(mut self, endpoint: &str) -> Result<Self> {
        let old = self.endpoint.replace(endpoint.to_owned()).context("no Endpoint")?;
        self.wg = self.wg.replace(&old, endpoint);
        Ok(self)
    }

    fn keep(&mut self, line: &str) {
        self.wg.push_str(line);
        self.wg.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wg_takes_is_parted_from_what_wg_quick_does() {
        let text = "[Interface]\nPrivateKey = a=\nAddress = 10.66.0.2/32, fd00::2/128\nMTU=1420\n\
                    DNS = 9.9.9.9\n[Peer] # node\nPublicKey = b=\nEndpoint = 45.80.2.2:51820\n";
        let parsed = WgQuick::parse(text).expect("it is well formed");
        assert_eq!(parsed.addresses, ["10.66.0.2/32", "fd00::2/128"]);
        assert_eq!(parsed.mtu, Some(1420));
        assert_eq!(parsed.dns, ["9.9.9.9"]);
        let moved = parsed.with_endpoint("[::1]:1").expect("there is an endpoint");
        let wg = "[Interface]\nPrivateKey = a=\n[Peer]\nPublicKey = b=\nEndpoint = [::1]:1\n";
        assert_eq!(moved.wg, wg);
    }

    #[test]
    fn a_line_without_value_is_an_error() {
        assert!(WgQuick::parse("[Interface]\nPrivateKey\n").is_err());
    }
}
