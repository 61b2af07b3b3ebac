//! A print (hash) of weir's table in the kernel, by which changes of other programs are detected.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
};

use super::{
    super::nfnetlink::{attributes as each, dump, find, named, text},
    kernel::{INET, NFTABLES},
};

const GET_TABLE: u16 = NFTABLES | 1;
const GET_CHAIN: u16 = NFTABLES | 4;
const GET_RULE: u16 = NFTABLES | 7;
const GET_SET: u16 = NFTABLES | 10;

/// NFTA_TABLE_USE, NFTA_CHAIN_COUNTERS and NFTA_SET_COUNT (Linux 6.16), which the kernel updates.
const TABLE_USE: u16 = 3;
const CHAIN_COUNTERS: u16 = 8;
const SET_COUNT: u16 = 20;
/// NFTA_RULE_EXPRESSIONS, and within an expression its name and its data.
const EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;

/// A hash of a table's flags, chains, rules and sets. It omits the sets' elements, because reading
/// long lists is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print(u64);

impl Print {
    /// Reads the print of an `inet` table; `None` if it does not exist.
    pub(super) fn read(table: &str) -> io::Result<Option<Self>> {
        let mut hasher = DefaultHasher::new();
        let mut seen = false;
        for kind in [GET_TABLE, GET_CHAIN, GET_RULE, GET_SET] {
            let filter = if kind == GET_RULE { named(1, table) } else { Vec::new() };
            for (_, attributes) in dump(kind, INET, &filter)? {
                if text(find(&attributes, 1)) == table {
                    seen |= kind == GET_TABLE;
                    kind.hash(&mut hasher);
                    hash(kind, &attributes, &mut hasher);
                }
            }
        }
        Ok(seen.then(|| Self(hasher.finish())))
    }
}

fn hash(kind: u16, attributes: &[u8], hasher: &mut DefaultHasher) {
    for (attribute, value) in each(attributes) {
        match (kind, attribute) {
            (GET_TABLE, TABLE_USE) | (GET_CHAIN, CHAIN_COUNTERS) | (GET_SET, SET_COUNT) => {}
            (GET_RULE, EXPRESSIONS) => {
                for (_, expression) in each(value) {
                    let name = text(find(expression, EXPRESSION_NAME));
                    // These contain their counts.
                    if !matches!(name.as_str(), "counter" | "last" | "quota") {
                        expression.hash(hasher);
                    }
                    name.hash(hasher);
                }
            }
            _ => (attribute, value).hash(hasher),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashed(kind: u16, attributes: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hash(kind, attributes, &mut hasher);
        hasher.finish()
    }

    #[test]
    fn what_a_table_counts_is_not_part_of_its_print_and_all_else_is() {
        let of_use = |count: &str| [named(1, "weir"), named(TABLE_USE, count)].concat();
        assert_eq!(hashed(GET_TABLE, &of_use("1")), hashed(GET_TABLE, &of_use("2")));
        // A set to which rules add elements.
        let of_count = |count: &str| [named(1, "weir"), named(SET_COUNT, count)].concat();
        assert_eq!(hashed(GET_SET, &of_count("1")), hashed(GET_SET, &of_count("2")));
        let of_flags = |flags: &str| [named(1, "weir"), named(2, flags)].concat();
        assert_ne!(hashed(GET_TABLE, &of_flags("0")), hashed(GET_TABLE, &of_flags("1")));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [GET_TABLE, GET_RULE] {
                hashed(kind, &bytes);
            }
        }
    }
}
