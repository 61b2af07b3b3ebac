//! What the kernel's tables have, asked by netlink. `nft` would read every element of every set
//! before it answers, which takes tens of seconds when the lists are long.

use std::io;

use super::super::nfnetlink::{dump, find, named, number, text};

/// NFNL_SUBSYS_NFTABLES, in the upper half of a message's type.
const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = NFTABLES | 4;
const GET_SET: u16 = NFTABLES | 10;
const GET_OBJECT: u16 = NFTABLES | 19;

const INET: u8 = 1;

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
    let objects = dump(GET_OBJECT, INET, &named(1, table))?;
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
        let has_name = number(find(attributes, 3)) & ANONYMOUS == 0;
        (is_own && has_name).then(|| text(find(attributes, 2)))
    };
    match dump(GET_SET, INET, &named(1, table)) {
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
