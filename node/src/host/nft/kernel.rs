//! What the kernel's tables have, asked by netlink. `nft` would read every element of every set
//! before it answers, which takes tens of seconds when the lists are long.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// NFNL_SUBSYS_NFTABLES, in the upper half of a message's type.
pub(super) const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = NFTABLES | 4;
const GET_SET: u16 = NFTABLES | 10;
const GET_OBJECT: u16 = NFTABLES | 19;
/// NLM_F_REQUEST | NLM_F_DUMP.
const DUMP: u16 = 0x301;
pub(super) const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The header of a netlink message, and that of nftables behind it.
pub(super) const HEADER: usize = 16;
const NF_HEADER: usize = 4;
/// The flag of an attribute that has others inside.
pub(super) const NESTED: u16 = 0x8000;

pub(super) const INET: u8 = 1;

/// A chain that sees packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) family: &'static str,
    pub(super) table: String,
    pub(super) name: String,
    /// NF_INET_FORWARD and so on.
    pub(super) hook: u32,
    /// Whether it drops what no rule accepts.
    pub(super) drops: bool,
}

/// A named counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedCounter {
    pub(super) name: String,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// The counters of an `inet` table; none if there is no such table.
pub(super) fn counters(table: &str) -> io::Result<Vec<NamedCounter>> {
    let objects = dump(GET_OBJECT, INET, &attribute(1, table))?;
    let counter = |(_, attributes): &(u8, Vec<u8>)| {
        let is_counter = number(find(attributes, 3)) == 1 && text(find(attributes, 1)) == table;
        let data = find(attributes, 4);
        is_counter.then(|| NamedCounter {
            name: text(find(attributes, 2)),
            packets: number(find(data, 2)),
            bytes: number(find(data, 1)),
        })
    };
    Ok(objects.iter().filter_map(counter).collect())
}

/// The sets of an `inet` table that have a name of their own.
pub(super) fn sets(table: &str) -> io::Result<Vec<String>> {
    /// NFT_SET_ANONYMOUS.
    const ANONYMOUS: u64 = 1;
    let set = |(_, attributes): &(u8, Vec<u8>)| {
        let is_own = text(find(attributes, 1)) == table;
        let named = number(find(attributes, 3)) & ANONYMOUS == 0;
        (is_own && named).then(|| text(find(attributes, 2)))
    };
    match dump(GET_SET, INET, &attribute(1, table)) {
        Ok(found) => Ok(found.iter().filter_map(set).collect()),
        // There is no such table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The base chains of all tables that see IP packets.
pub(super) fn base_chains() -> io::Result<Vec<BaseChain>> {
    let chain = |(family, attributes): &(u8, Vec<u8>)| {
        let family = match *family {
            INET => "inet",
            2 => "ip",
            10 => "ip6",
            _ => return None,
        };
        let hook = find(attributes, 4);
        (!hook.is_empty()).then(|| BaseChain {
            family,
            table: text(find(attributes, 1)),
            name: text(find(attributes, 3)),
            hook: u32::try_from(number(find(hook, 1))).unwrap_or(u32::MAX),
            // A chain without a policy accepts.
            drops: !find(attributes, 5).is_empty() && number(find(attributes, 5)) == 0,
        })
    };
    Ok(dump(GET_CHAIN, 0, &[])?.iter().filter_map(chain).collect())
}

/// The number of the last change of any table: it is another one after each transaction.
pub(super) fn generation() -> io::Result<u32> {
    const GET_GENERATION: u16 = NFTABLES | 16;
    let socket = open()?;
    socket.send(&message(GET_GENERATION, REQUEST, 0, &[]), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let mut found = Vec::new();
    take(&answer, &mut found)?;
    let generation = found.first().map(|(_, attributes)| number(find(attributes, 1)));
    generation
        .and_then(|generation| u32::try_from(generation).ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A socket to nftables.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A message with its headers.
pub(super) fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER + NF_HEADER + attributes.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// Asks for everything of a kind: the family and the attributes of each.
pub(super) fn dump(kind: u16, family: u8, attributes: &[u8]) -> io::Result<Vec<(u8, Vec<u8>)>> {
    let socket = open()?;
    socket.send(&message(kind, DUMP, family, attributes), 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if take(&answer, &mut found)? {
            return Ok(found);
        }
    }
}

/// Takes the messages of one answer; whether that was the last.
pub(super) fn take(mut answer: &[u8], found: &mut Vec<(u8, Vec<u8>)>) -> io::Result<bool> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is cut off");
    while let Some(header) = answer.first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = answer.get(HEADER..length).ok_or_else(broken)?;
        match u16::from_ne_bytes([t0, t1]) {
            DONE => return Ok(true),
            ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            _ => {
                let (header, attributes) = body.split_at_checked(NF_HEADER).ok_or_else(broken)?;
                found.push((header.first().copied().unwrap_or_default(), attributes.to_vec()));
            }
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

pub(super) fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let length = 4 + text.len() + 1;
    let mut attribute = (length as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(text.bytes());
    attribute.resize(length.next_multiple_of(4), 0);
    attribute
}

/// The value of the attribute of a kind; empty if there is none.
pub(super) fn find(mut attributes: &[u8], kind: u16) -> &[u8] {
    while let Some(&[l0, l1, k0, k1]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = attributes.get(4..length) else { break };
        if u16::from_ne_bytes([k0, k1]) & !NESTED == kind {
            return value;
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    &[]
}

pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// Numbers of nftables are big-endian, of 4 or 8 bytes.
pub(super) fn number(value: &[u8]) -> u64 {
    value.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let mut both = attribute(1, "weir");
        both.extend(attribute(NESTED | 2, "x"));
        assert_eq!((text(find(&both, 1)), text(find(&both, 2))), ("weir".into(), "x".into()));
        assert_eq!(find(&both, 3), b"");
        assert_eq!(number(&[0, 0, 1, 2]), 258);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut found = Vec::new();
            drop(take(&bytes, &mut found));
            for kind in 0..4 {
                find(&bytes, kind);
            }
        }
    }
}
