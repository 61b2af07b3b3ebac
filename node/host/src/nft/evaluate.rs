//! What a chain of somebody else's does with a packet of ours: its rules, as the kernel has them,
//! carried out on a packet that is made up (`net/netfilter/nf_tables_core.c`).
//!
//! What cannot be told (a mark that a socket has, a match of iptables' that is not understood)
//! fits no rule, unless the rule names our interface or port besides.

use std::collections::HashMap;

use super::super::nfnetlink::{attributes, find, number, text};

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Refused,
}

/// A packet, as far as it is known.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// `ipv4` or `ipv6`: NFPROTO_IPV4 or NFPROTO_IPV6.
    pub(super) family: u8,
    pub(super) iifname: Option<String>,
    pub(super) oifname: Option<String>,
    /// By name, those that are known.
    pub(super) indices: HashMap<String, u32>,
    /// A bit of NF_CT_STATE_*; `None` before the kernel has looked for the flow.
    pub(super) ct_state: Option<u32>,
    pub(super) protocol: u8,
    /// From the network header on, with what is unknown of it.
    pub(super) network: Vec<Option<u8>>,
    /// Where the header of the protocol begins.
    pub(super) transport: usize,
    /// What a rule names that is meant for this packet: an interface or a port.
    pub(super) ours: Vec<Vec<u8>>,
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

/// One of its elements.
#[derive(Clone, Debug)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    pub(super) flags: u64,
    /// NFTA_SET_ELEM_DATA, if it is a map.
    pub(super) data: Vec<u8>,
}

const INTERVAL_END: u64 = 1;
const CATCH_ALL: u64 = 2;

/// How deep chains may call each other: NFT_JUMP_STACK_SIZE.
const MAX_DEPTH: usize = 16;

/// What comes of a chain, a rule or an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// To the next one.
    Continue,
    /// The rule does not fit.
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

    /// Ends with a fate, or with a return.
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
        let mut state = State { registers: [None; REGISTERS], names_us: false };
        for (_, expression) in attributes(expressions) {
            let (name, data) = (text(find(expression, 1)), find(expression, 2));
            match self.expression(&name, data, packet, &mut state) {
                Step::Continue => {}
                step => return step,
            }
        }
        Step::Continue
    }

    fn expression(&self, name: &str, data: &[u8], packet: &Packet, state: &mut State) -> Step {
        match name {
            "immediate" => {
                let value = find(data, 2);
                if number(find(data, 1)) == 0 {
                    return verdict(value);
                }
                state.set(data, 1, Some(find(value, 1).to_vec()));
            }
            "meta" if find(data, 1).is_empty() => {}
            "meta" => state.set(data, 1, packet.meta(number(find(data, 2)))),
            "ct" if find(data, 1).is_empty() => {}
            "ct" => state.set(data, 1, packet.ct(number(find(data, 2)))),
            "payload" if find(data, 1).is_empty() => {}
            "payload" => {
                let [base, offset, length] = [2, 3, 4].map(|kind| number(find(data, kind)));
                state.set(data, 1, packet.payload(base, offset as usize, length as usize));
            }
            "fib" => {
                /// NFT_FIB_RESULT_ADDRTYPE, of which RTN_LOCAL is what comes to this machine.
                const ADDRESS_TYPE: u64 = 3;
                let is_input = packet.oifname.is_none();
                let local = number(find(data, 2)) == ADDRESS_TYPE && is_input;
                state.set(data, 1, local.then(|| 2u32.to_ne_bytes().to_vec()));
            }
            "bitwise" => {
                let length = number(find(data, 3)) as usize;
                let mask_xor = [4, 5].map(|kind| find(find(data, kind), 1));
                let value = state.get(data, 1, length).filter(|_| number(find(data, 6)) == 0);
                let result = value.map(|value| {
                    let with = value.iter().zip(mask_xor[0]).zip(mask_xor[1]);
                    with.map(|((value, mask), xor)| value & mask ^ xor).collect()
                });
                state.set(data, 2, result);
            }
            "cmp" => {
                let wanted = find(find(data, 3), 1);
                let value = state.get(data, 1, wanted.len());
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
                return state.judge(fits, is_equality && packet.is_named_by(wanted));
            }
            "range" => {
                let [low, high] = [3, 4].map(|kind| find(find(data, kind), 1));
                let value = state.get(data, 1, low.len());
                let is_in = value.map(|value| (low..=high).contains(&value.as_slice()));
                let is_inverted = number(find(data, 2)) == 1;
                return state.judge(is_in.map(|is_in| is_in != is_inverted), !is_inverted);
            }
            "lookup" => return self.lookup(data, packet, state),
            // Below its rate, or fewer than so many.
            "limit" | "connlimit" | "quota" => {
                let flags = match name {
                    "limit" => 5,
                    "connlimit" => 2,
                    _ => 2,
                };
                return state.judge(Some(number(find(data, flags)) & 1 == 0), false);
            }
            "dynset" => {
                // What it does with each element, one or several of them.
                let one = find(data, 7);
                let several = attributes(find(data, 10)).map(|(_, one)| one);
                for inner in several.chain((!one.is_empty()).then_some(one)) {
                    let (name, data) = (text(find(inner, 1)), find(inner, 2));
                    if self.expression(&name, data, packet, state) == Step::Break {
                        return Step::Break;
                    }
                }
            }
            "reject" => return Step::End(Fate::Refused),
            // Somebody else goes on with it.
            "queue" | "masq" | "nat" | "redir" | "tproxy" | "synproxy" | "fwd" => {
                return Step::End(Fate::Accepted);
            }
            "match" => return iptables_match(data, packet, state),
            "target" => match text(find(data, 1)).as_str() {
                "REJECT" | "DROP" => return Step::End(Fate::Refused),
                "ACCEPT" => return Step::End(Fate::Accepted),
                "RETURN" => return Step::Return,
                _ => {}
            },
            "counter" | "log" | "notrack" | "objref" | "last" | "dup" | "ct_timeout" => {}
            // It may have written any of them.
            _ => state.registers = [None; REGISTERS],
        }
        Step::Continue
    }

    fn lookup(&self, data: &[u8], packet: &Packet, state: &mut State) -> Step {
        let is_map = !find(data, 3).is_empty();
        let is_inverted = number(find(data, 5)) & 1 == 1;
        let set = self.sets.get(&text(find(data, 1)));
        let length = set.and_then(|set| set.elements.iter().map(|it| it.key.len()).max());
        let key = length.map_or(Some(Vec::new()), |length| state.get(data, 2, length));
        let (Some(set), Some(key)) = (set, key) else {
            return state.judge(None, false);
        };
        let found = set.find(&key);
        if !is_map {
            let names_us = found.is_some() && !is_inverted && packet.is_named_by(&key);
            return state.judge(Some(found.is_some() != is_inverted), names_us);
        }
        let Some(element) = found else { return Step::Break };
        if number(find(data, 3)) == 0 {
            return verdict(&element.data);
        }
        state.set(data, 3, Some(find(&element.data, 1).to_vec()));
        Step::Continue
    }
}

impl Set {
    fn find(&self, key: &[u8]) -> Option<&Element> {
        let known = self.elements.iter().filter(|element| element.flags & CATCH_ALL == 0);
        let found = if self.is_interval {
            // Each begins a range, or ends the one before it.
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
    // Negative ones are nftables' own.
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

/// The matches of iptables, through nftables' compatibility layer.
fn iptables_match(data: &[u8], packet: &Packet, state: &mut State) -> Step {
    let info = find(data, 3);
    let half = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    match text(find(data, 1)).as_str() {
        "comment" | "limit" => Step::Continue,
        "conntrack" | "state" => {
            // struct xt_conntrack_mtinfo*: the flags of what is compared, then the states. Before
            // them four addresses with their masks, two times, a protocol and four ports.
            const FLAGS: usize = 4 * 32 + 8 + 2 + 8;
            const STATE: u16 = 1;
            const STATE_ALIAS: u16 = 1 << 13;
            let wanted = if text(find(data, 1)) == "state" {
                info.first_chunk().map(|states| u32::from_ne_bytes(*states))
            } else {
                let only = half(FLAGS).filter(|flags| flags & !(STATE | STATE_ALIAS) == 0);
                let inverted = half(FLAGS + 2).is_some_and(|flags| flags & STATE != 0);
                let states = half(FLAGS + 4).map(|states| if inverted { !states } else { states });
                only.and(states).map(u32::from)
            };
            let fits = wanted.zip(packet.ct_state).map(|(wanted, state)| wanted & state != 0);
            state.judge(fits, false)
        }
        "udp" => {
            let ports = [0, 4].map(|at| half(at).zip(half(at + 2)));
            let own = [0, 2].map(|at| packet.payload(TRANSPORT, at, 2));
            let is_plain = info.get(8) == Some(&0) && packet.protocol == libc::IPPROTO_UDP as u8;
            let fits = ports.iter().zip(&own).try_fold(is_plain, |fits, (range, port)| {
                let (low, high) = (*range)?;
                let port = u16::from_be_bytes(*port.as_ref()?.first_chunk()?);
                Some(fits && (low..=high).contains(&port))
            });
            state.judge(fits, true)
        }
        _ => state.judge(None, false),
    }
}

const NETWORK: u64 = 1;
const TRANSPORT: u64 = 2;

impl Packet {
    fn meta(&self, key: u64) -> Option<Vec<u8>> {
        let index = |name: &Option<String>| {
            // Without an interface it is 0.
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

    fn ct(&self, key: u64) -> Option<Vec<u8>> {
        let state = self.ct_state?;
        match key {
            0 => Some(state.to_ne_bytes().to_vec()),
            1 => Some(vec![u8::from(state != NEW)]),
            // Its mark.
            3 => Some(vec![0; 4]),
            _ => None,
        }
    }

    fn payload(&self, base: u64, offset: usize, length: usize) -> Option<Vec<u8>> {
        let start = match base {
            NETWORK => 0,
            TRANSPORT => self.transport,
            _ => return None,
        };
        let begin = start.checked_add(offset)?;
        self.network.get(begin..begin.checked_add(length)?)?.iter().copied().collect()
    }

    /// Whether a rule that asks for this means us.
    fn is_named_by(&self, wanted: &[u8]) -> bool {
        let end = wanted.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.ours.iter().any(|ours| ours == wanted || Some(ours.as_slice()) == wanted.get(..end))
    }
}

/// NF_CT_STATE_BIT(IP_CT_NEW) and (IP_CT_ESTABLISHED).
pub(super) const NEW: u32 = 8;
pub(super) const ESTABLISHED: u32 = 2;

fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    padded
}

/// Bytes of all registers: NFT_REG32_NUM of four.
const REGISTERS: usize = 80;

struct State {
    registers: [Option<u8>; REGISTERS],
    /// Whether the rule names an interface or a port of ours.
    names_us: bool,
}

impl State {
    /// What an expression comes to, whose condition holds or not, or cannot be told.
    fn judge(&mut self, holds: Option<bool>, names_us: bool) -> Step {
        self.names_us |= holds == Some(true) && names_us;
        match holds {
            Some(true) => Step::Continue,
            None if self.names_us => Step::Continue,
            _ => Step::Break,
        }
    }

    /// The byte offset of a register. Four have 16 bytes, the others 4.
    fn offset(data: &[u8], kind: u16) -> usize {
        match number(find(data, kind)) as usize {
            register @ 1..=4 => (register - 1) * 16,
            register => register.saturating_sub(8) * 4,
        }
    }

    fn get(&self, data: &[u8], kind: u16, length: usize) -> Option<Vec<u8>> {
        let begin = Self::offset(data, kind);
        self.registers.get(begin..begin.checked_add(length)?)?.iter().copied().collect()
    }

    fn set(&mut self, data: &[u8], kind: u16, value: Option<Vec<u8>>) {
        let begin = Self::offset(data, kind);
        let registers = self.registers.get_mut(begin..).unwrap_or_default();
        match value {
            // A register that is written is zero behind what is written, up to four bytes.
            Some(value) => {
                let length = value.len().next_multiple_of(4);
                let padded = value.iter().copied().chain(std::iter::repeat(0)).take(length);
                registers.iter_mut().zip(padded).for_each(|(to, byte)| *to = Some(byte));
            }
            None => registers.iter_mut().take(16).for_each(|to| *to = None),
        }
    }
}
