//! Reads the kernel's nftables by netlink. `nft` reads every element of every set first, which
//! takes tens of seconds with long lists.

use std::{io, ops::ControlFlow};

use super::{
    super::nfnetlink::{Connection, attributes, dump, find, named, number, text, walk},
    evaluate::{Chains, Element, Set},
};

/// NFNL_SUBSYS_NFTABLES, in the upper half of a message's type.
pub(super) const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = NFTABLES | 4;
const GET_RULE: u16 = NFTABLES | 7;
const GET_SET: u16 = NFTABLES | 10;
const GET_ELEMENT: u16 = NFTABLES | 13;
const GET_GENERATION: u16 = NFTABLES | 16;
const GET_OBJECT: u16 = NFTABLES | 19;

pub(super) const INET: u8 = 1;

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) family: &'static str,
    pub(super) table: String,
    pub(super) name: String,
    /// NFPROTO_INET, NFPROTO_IPV4 or NFPROTO_IPV6.
    pub(super) number: u8,
    /// `filter`, `nat` or `route`.
    pub(super) kind: String,
    /// The hook, such as NF_INET_FORWARD.
    pub(super) hook: u32,
    pub(super) priority: i32,
    /// Whether its policy is `drop`.
    pub(super) drops: bool,
}

/// A named counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedCounter {
    pub(super) name: String,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// The counters of an `inet` table; empty if it does not exist.
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

/// The names of the named sets of an `inet` table.
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
        // The table does not exist.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The base chains of all tables that see IP packets.
pub(super) fn base_chains() -> io::Result<Vec<BaseChain>> {
    let chain = |(number_of, attributes): &(u8, Vec<u8>)| {
        let family = match *number_of {
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
            number: *number_of,
            kind: text(find(attributes, 7)),
            hook: u32::try_from(number(find(hook, 1))).unwrap_or(u32::MAX),
            priority: number(find(hook, 2)) as u32 as i32,
            // A chain without a policy accepts.
            drops: !find(attributes, 5).is_empty() && number(find(attributes, 5)) == 0,
        })
    };
    Ok(dump(GET_CHAIN, 0, &[])?.iter().filter_map(chain).collect())
}

/// The maximum size of a set that is evaluated.
const MAX_ELEMENTS: usize = 4096;

/// The rules of a table, and its sets without the large ones.
pub(super) fn chains(family: u8, table: &str) -> io::Result<Chains> {
    let mut chains = Chains::default();
    for (_, rule) in dump(GET_RULE, family, &named(1, table))? {
        if text(find(&rule, 1)) == table {
            let expressions = find(&rule, 4).to_vec();
            chains.rules.entry(text(find(&rule, 2))).or_default().push(expressions);
        }
    }
    for (_, set) in dump(GET_SET, family, &named(1, table))? {
        /// NFT_SET_INTERVAL and NFT_SET_CONCAT. Ranges of concatenations are not supported here.
        const INTERVAL: u64 = 0x4;
        const CONCAT: u64 = 0x80;
        let (name, flags) = (text(find(&set, 2)), number(find(&set, 3)));
        if text(find(&set, 1)) != table || flags & INTERVAL != 0 && flags & CONCAT != 0 {
            continue;
        }
        let mut elements = Vec::new();
        let of_set = [named(1, table), named(2, &name)].concat();
        walk(GET_ELEMENT, family, &of_set, &mut |_, list| {
            elements.extend(attributes(find(list, 3)).map(|(_, element)| Element {
                key: find(find(element, 1), 1).to_vec(),
                flags: number(find(element, 3)),
                data: find(element, 2).to_vec(),
            }));
            if elements.len() > MAX_ELEMENTS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if elements.len() <= MAX_ELEMENTS {
            chains.sets.insert(name, Set { is_interval: flags & INTERVAL != 0, elements });
        }
    }
    Ok(chains)
}

/// Reads the ruleset's generation (NFT_MSG_GETGEN), which each transaction changes.
#[derive(Debug, Default)]
pub(super) struct Generations(Connection);

impl Generations {
    /// The current generation.
    pub(super) fn now(&mut self) -> io::Result<u32> {
        let answers = self.0.ask(GET_GENERATION)?;
        let generation = answers.first().map(|(_, answer)| number(find(answer, 1)));
        generation
            .and_then(|generation| u32::try_from(generation).ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
