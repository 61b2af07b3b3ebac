//! A made-up packet, and the fields of it that rules ask for.

use std::collections::HashMap;

/// A packet. What is not known of it is `None`.
#[derive(Clone, Debug)]
pub(in crate::nft) struct Packet {
    /// `ipv4` or `ipv6`: NFPROTO_IPV4 or NFPROTO_IPV6.
    pub(in crate::nft) family: u8,
    pub(in crate::nft) iifname: Option<String>,
    pub(in crate::nft) oifname: Option<String>,
    /// The known interfaces' indices, by name.
    pub(in crate::nft) indices: HashMap<String, u32>,
    /// A bit of NF_CT_STATE_*; `None` before the kernel has looked for the flow.
    pub(in crate::nft) ct_state: Option<u32>,
    pub(in crate::nft) protocol: u8,
    /// The bytes from the network header on.
    pub(in crate::nft) network: Vec<Option<u8>>,
    /// The offset of the transport header.
    pub(in crate::nft) transport: usize,
    /// The interfaces and ports that a rule meant for this packet names.
    pub(in crate::nft) ours: Vec<Vec<u8>>,
}

/// NF_CT_STATE_BIT(IP_CT_NEW) and (IP_CT_ESTABLISHED).
pub(in crate::nft) const NEW: u32 = 8;

pub(in crate::nft) const ESTABLISHED: u32 = 2;

const NETWORK: u64 = 1;

pub(super) const TRANSPORT: u64 = 2;

impl Packet {
    pub(super) fn meta(&self, key: u64) -> Option<Vec<u8>> {
        let index = |name: &Option<String>| {
            // Without an interface the index is 0.
            let index = name.as_ref().map_or(Some(&0), |name| self.indices.get(name));
            index.map(|index| index.to_ne_bytes().to_vec())
        };
        match key {
            1 => Some(if self.family == 2 { vec![8, 0] } else { vec![0x86, 0xdd] }),
            3 => Some(vec![0; 4]),
            4 => index(&self.iifname),
            5 => index(&self.oifname),
            6 => Some(padded(self.iifname.as_deref().unwrap_or_default())),
            7 => Some(padded(self.oifname.as_deref().unwrap_or_default())),
            15 => Some(vec![self.family]),
            16 => Some(vec![self.protocol]),
            _ => None,
        }
    }

    pub(super) fn ct(&self, key: u64) -> Option<Vec<u8>> {
        let state = self.ct_state?;
        match key {
            0 => Some(state.to_ne_bytes().to_vec()),
            1 => Some(vec![u8::from(state != NEW)]),
            // NFT_CT_MARK.
            3 => Some(vec![0; 4]),
            _ => None,
        }
    }

    pub(super) fn payload(&self, base: u64, offset: usize, length: usize) -> Option<Vec<u8>> {
        let start = match base {
            NETWORK => 0,
            TRANSPORT => self.transport,
            _ => return None,
        };
        let begin = start.checked_add(offset)?;
        self.network.get(begin..begin.checked_add(length)?)?.iter().copied().collect()
    }

    /// Whether this operand is one of weir's interfaces or ports.
    pub(super) fn is_named_by(&self, wanted: &[u8]) -> bool {
        let end = wanted.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.ours.iter().any(|ours| ours == wanted || Some(ours.as_slice()) == wanted.get(..end))
    }
}

fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    padded
}
