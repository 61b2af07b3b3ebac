//! Evaluates another program's chain for one of weir's packets: it runs the rules, as the kernel
//! has them, on a made-up packet (`nft_do_chain` in net/netfilter/nf_tables_core.c).
//!
//! A condition that cannot be decided (a socket's mark, an unknown match of iptables) counts as not
//! met, unless the rule also names weir's interface or port.

use std::collections::HashMap;

use super::super::nfnetlink::{attributes, find, number, text};

mod iptables;
mod packet;
mod registers;

use iptables::iptables_match;
pub(super) use packet::{ESTABLISHED, NEW, Packet};
use registers::Registers;

/// The verdict on the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Refused,
}

/// The chains of a table, and the sets that their rules look into.
#[derive(Clone, Debug, Default)]
pub(super) struct Chains {
    /// The expressions of each rule, in order.
    pub(super) rules: HashMap<String, Vec<Vec<u8>>>,
    pub(super) sets: HashMap<String, Set>,
}

/// A set or map.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    pub(super) is_interval: bool,
    pub(super) elements: Vec<Element>,
}

/// An element of a set or map.
#[derive(Clone, Debug)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    pub(super) flags: u64,
    /// NFTA_SET_ELEM_DATA, if it is a map.
    pub(super) data: Vec<u8>,
}

const INTERVAL_END: u64 = 1;
const CATCH_ALL: u64 = 2;

/// The maximum depth of jumps (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;

/// The result of a chain, a rule or an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Continue with the next one.
    Continue,
    /// The rule does not match.
    Break,
    Return,
    Jump(String),
    Goto(String),
    End(Fate),
}

impl Chains {
    /// The fate of a packet in a base chain with this policy.
    pub(super) fn judge(&self, chain: &str, policy: Fate, packet: &Packet) -> Fate {
        match self.walk(chain, packet, 0) {
            Step::End(fate) => fate,
            _ => policy,
        }
    }

    /// Returns `End` or `Return`.
    fn walk(&self, chain: &str, packet: &Packet, depth: usize) -> Step {
        if depth >= MAX_DEPTH {
            return Step::Return;
        }
        for rule in self.rules.get(chain).into_iter().flatten() {
            match self.rule(rule, packet) {
                Step::Continue | Step::Break => {}
                Step::Return => return Step::Return,
                Step::Jump(to) => {
                    if let end @ Step::End(_) = self.walk(&to, packet, depth + 1) {
                        return end;
                    }
                }
                Step::Goto(to) => return self.walk(&to, packet, depth + 1),
                end @ Step::End(_) => return end,
            }
        }
        Step::Return
    }

    fn rule(&self, expressions: &[u8], packet: &Packet) -> Step {
        let mut registers = Registers::new();
        for (_, expression) in attributes(expressions) {
            let (name, data) = (text(find(expression, 1)), find(expression, 2));
            match self.expression(&name, data, packet, &mut registers) {
                Step::Continue => {}
                step => return step,
            }
        }
        Step::Continue
    }

    fn expression(
        &self,
        name: &str,
        data: &[u8],
        packet: &Packet,
        registers: &mut Registers,
    ) -> Step {
        match name {
            "immediate" => {
                let value = find(data, 2);
                if number(find(data, 1)) == 0 {
                    return verdict(value);
                }
                registers.set(data, 1, Some(find(value, 1).to_vec()));
            }
            "meta" if find(data, 1).is_empty() => {}
            "meta" => registers.set(data, 1, packet.meta(number(find(data, 2)))),
            "ct" if find(data, 1).is_empty() => {}
            "ct" => registers.set(data, 1, packet.ct(number(find(data, 2)))),
            "payload" if find(data, 1).is_empty() => {}
            "payload" => {
                let [base, offset, length] = [2, 3, 4].map(|kind| number(find(data, kind)));
                registers.set(data, 1, packet.payload(base, offset as usize, length as usize));
            }
            "fib" => {
                /// NFT_FIB_RESULT_ADDRTYPE, of which RTN_LOCAL is what comes to this machine.
                const ADDRESS_TYPE: u64 = 3;
                let is_input = packet.oifname.is_none();
                let local = number(find(data, 2)) == ADDRESS_TYPE && is_input;
                registers.set(data, 1, local.then(|| 2u32.to_ne_bytes().to_vec()));
            }
            "bitwise" => {
                let length = number(find(data, 3)) as usize;
                let mask_xor = [4, 5].map(|kind| find(find(data, kind), 1));
                let value = registers.get(data, 1, length).filter(|_| number(find(data, 6)) == 0);
                let result = value.map(|value| {
                    let with = value.iter().zip(mask_xor[0]).zip(mask_xor[1]);
                    with.map(|((value, mask), xor)| value & mask ^ xor).collect()
                });
                registers.set(data, 2, result);
            }
            "cmp" => {
                let wanted = find(find(data, 3), 1);
                let value = registers.get(data, 1, wanted.len());
                let fits = value.as_ref().map(|value| {
                    let order = value.as_slice().cmp(wanted);
                    match number(find(data, 2)) {
                        0 => order.is_eq(),
                        1 => order.is_ne(),
                        2 => order.is_lt(),
                        3 => order.is_le(),
                        4 => order.is_gt(),
                        _ => order.is_ge(),
                    }
                });
                let is_equality = number(find(data, 2)) == 0;
                return registers.judge(fits, is_equality && packet.is_named_by(wanted));
            }
            "range" => {
                let [low, high] = [3, 4].map(|kind| find(find(data, kind), 1));
                let value = registers.get(data, 1, low.len());
                let is_in = value.map(|value| (low..=high).contains(&value.as_slice()));
                let is_inverted = number(find(data, 2)) == 1;
                return registers.judge(is_in.map(|is_in| is_in != is_inverted), !is_inverted);
            }
            "lookup" => return self.lookup(data, packet, registers),
            // The packet is within the rate or the number.
            "limit" | "connlimit" | "quota" => {
                let flags = match name {
                    "limit" => 5,
                    "connlimit" => 2,
                    _ => 2,
                };
                return registers.judge(Some(number(find(data, flags)) & 1 == 0), false);
            }
            "dynset" => {
                // The expressions that it runs for an element: one, or a list.
                let one = find(data, 7);
                let several = attributes(find(data, 10)).map(|(_, one)| one);
                for inner in several.chain((!one.is_empty()).then_some(one)) {
                    let (name, data) = (text(find(inner, 1)), find(inner, 2));
                    if self.expression(&name, data, packet, registers) == Step::Break {
                        return Step::Break;
                    }
                }
            }
            "reject" => return Step::End(Fate::Refused),
            // Another program or NAT continues with the packet.
            "queue" | "masq" | "nat" | "redir" | "tproxy" | "synproxy" | "fwd" => {
                return Step::End(Fate::Accepted);
            }
            "match" => return iptables_match(data, packet, registers),
            "target" => match text(find(data, 1)).as_str() {
                "REJECT" | "DROP" => return Step::End(Fate::Refused),
                "ACCEPT" => return Step::End(Fate::Accepted),
                "RETURN" => return Step::Return,
                _ => {}
            },
            "counter" | "log" | "notrack" | "objref" | "last" | "dup" | "ct_timeout" => {}
            // An unknown expression may have written any register.
            _ => registers.forget(),
        }
        Step::Continue
    }

    fn lookup(&self, data: &[u8], packet: &Packet, registers: &mut Registers) -> Step {
        let is_map = !find(data, 3).is_empty();
        let is_inverted = number(find(data, 5)) & 1 == 1;
        let set = self.sets.get(&text(find(data, 1)));
        let length = set.and_then(|set| set.elements.iter().map(|it| it.key.len()).max());
        let key = length.map_or(Some(Vec::new()), |length| registers.get(data, 2, length));
        let (Some(set), Some(key)) = (set, key) else {
            return registers.judge(None, false);
        };
        let found = set.find(&key);
        if !is_map {
            let names_us = found.is_some() && !is_inverted && packet.is_named_by(&key);
            return registers.judge(Some(found.is_some() != is_inverted), names_us);
        }
        let Some(element) = found else { return Step::Break };
        if number(find(data, 3)) == 0 {
            return verdict(&element.data);
        }
        registers.set(data, 3, Some(find(&element.data, 1).to_vec()));
        Step::Continue
    }
}

impl Set {
    fn find(&self, key: &[u8]) -> Option<&Element> {
        let known = self.elements.iter().filter(|element| element.flags & CATCH_ALL == 0);
        let found = if self.is_interval {
            // Each element begins a range, or ends the previous one.
            known
                .filter(|element| element.key.as_slice() <= key)
                .max_by(|one, two| one.key.cmp(&two.key).then(two.flags.cmp(&one.flags)))
                .filter(|element| element.flags & INTERVAL_END == 0)
        } else {
            let mut known = known;
            known.find(|element| element.key == key)
        };
        found.or_else(|| self.elements.iter().find(|element| element.flags & CATCH_ALL != 0))
    }
}

fn verdict(data: &[u8]) -> Step {
    let verdict = find(data, 2);
    let chain = || text(find(verdict, 2));
    // Negative codes are nftables' own (`enum nft_verdicts`).
    match number(find(verdict, 1)) as u32 as i32 {
        0 => Step::End(Fate::Refused),
        -1 => Step::Continue,
        -2 => Step::Break,
        -3 => Step::Jump(chain()),
        -4 => Step::Goto(chain()),
        -5 => Step::Return,
        _ => Step::End(Fate::Accepted),
    }
}
