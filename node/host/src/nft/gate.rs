//! The gate: a second table that passes consumers' packets only while the exit policy is in force.
//!
//! The policy's first chain marks packets from the TUN device. The gate, one priority later, drops
//! unmarked packets and clears the mark. So if another program flushes the ruleset, no consumer's
//! packet passes, even before weir notices. The gate belongs to a socket of this process
//! (`NFT_TABLE_F_OWNER`, Linux 5.12). Other programs can neither change nor flush it, and the
//! kernel removes it with the process.

use std::{io, ops::ControlFlow};

use netlink_sys::Socket;

use super::{
    super::nfnetlink::{ACK, REQUEST, attribute, message, named, nested, open, take},
    NftError,
    kernel::{self, Generations, INET, NFTABLES},
    print::Print,
};

/// The table's name.
pub(super) const NAME: &str = "weir_gate";
/// The counter of dropped packets.
const COUNTER: &str = "no_policy";
/// The mark bit of packets that the policy has seen. It is set and cleared between two chains of
/// one hook.
pub(super) const SEEN: u32 = 0x0080_0000;

const NEW_TABLE: u16 = NFTABLES;
const NEW_CHAIN: u16 = NFTABLES | 3;
const NEW_RULE: u16 = NFTABLES | 6;
const NEW_OBJECT: u16 = NFTABLES | 18;
/// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// NLM_F_REQUEST with NLM_F_CREATE, NLM_F_EXCL, NLM_F_APPEND, NLM_F_ACK.
const CREATE: u16 = REQUEST | 0x400;
const CREATE_NEW: u16 = CREATE | 0x200;
const APPEND: u16 = CREATE | 0x800;
/// NFT_TABLE_F_OWNER.
const OWNER: u32 = 2;

/// One after `priority raw`, at which the policy sets the mark.
const PRIORITY: i32 = -299;
/// NF_INET_PRE_ROUTING.
const PREROUTING: u32 = 0;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// NFT_META_MARK, NFT_META_IIF.
const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
/// NFT_REG_VERDICT, NFT_REG_1.
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// NFT_CMP_EQ, NFT_CMP_NEQ.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// The gate. It exists as long as this value.
pub(crate) struct Gate {
    /// The kernel removes the table when this socket is closed.
    _owner: Socket,
    is_owned: bool,
    /// For a gate without an owner: the last generation in which it was seen.
    generations: Generations,
    generation: Option<u32>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("is_owned", &self.is_owned).finish_non_exhaustive()
    }
}

impl Gate {
    /// Installs the gate for the interface with this index.
    ///
    /// # Errors
    ///
    /// Fails if the kernel rejects it.
    pub(crate) fn close_behind(index: u32) -> Result<Self, NftError> {
        let made = make(index, OWNER).or_else(|error| match error.raw_os_error() {
            // A killed run may have left a gate without an owner.
            Some(libc::EEXIST) => {
                super::remove_gate().map_err(io::Error::other)?;
                make(index, OWNER)
            }
            _ => Err(error),
        });
        match made {
            Ok(owner) => Ok(Self::new(owner, true)),
            // Linux before 5.12 has no table owners.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                super::remove_gate()?;
                let owner = make(index, 0).map_err(NftError::Gate)?;
                Ok(Self::new(owner, false))
            }
            Err(error) => Err(NftError::Gate(error)),
        }
    }

    fn new(owner: Socket, is_owned: bool) -> Self {
        let generations = Generations::default();
        Self { _owner: owner, is_owned, generations, generation: None }
    }

    /// Whether the gate has an owner, so that no other program can remove it.
    #[must_use]
    pub(crate) fn is_owned(&self) -> bool {
        self.is_owned
    }

    /// Whether the gate exists.
    pub(crate) fn is_there(&mut self) -> io::Result<bool> {
        if self.is_owned {
            return Ok(true);
        }
        let generation = Some(self.generations.now()?);
        if self.generation != generation {
            // Read after the generation, so that a later change is not missed.
            let is_there = Print::read(NAME)?.is_some();
            self.generation = generation.filter(|_| is_there);
        }
        Ok(self.generation.is_some())
    }
}

/// The number of packets that the gate has dropped; 0 without a gate.
///
/// # Errors
///
/// Fails if the kernel's tables cannot be read.
pub fn dropped_by_gate() -> Result<u64, NftError> {
    let counters = kernel::counters(NAME).map_err(NftError::Ask)?;
    let packets = counters.iter().filter(|it| it.name == COUNTER).map(|it| it.packets);
    Ok(packets.sum())
}

/// Creates the table in one transaction.
fn make(index: u32, flags: u32) -> io::Result<Socket> {
    let socket = open()?;
    socket.send(&transaction(index, flags), 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        // Errors come first, then the answer to the last message, which asked for one.
        if take(&answer, &mut |_, _| ControlFlow::Continue(()))? {
            return Ok(socket);
        }
    }
}

fn transaction(index: u32, flags: u32) -> Vec<u8> {
    let table = named(1, NAME);
    let name = |kind: u16, chain: &str| named(kind, chain);
    let hook = [number(1, PREROUTING), number(2, PRIORITY.cast_unsigned())].concat();
    let chain = [
        table.clone(),
        name(3, "gate"),
        nested(4, &hook),
        number(5, NF_ACCEPT),
        named(7, "filter"),
    ];
    let counter = [table.clone(), name(2, COUNTER), number(3, 1), nested(4, &[])];
    let rule = |expressions: &[Vec<u8>]| {
        let list = nested(4, &expressions.concat());
        [table.clone(), name(2, "gate"), list].concat()
    };
    let mut batch = batch_message(BATCH_BEGIN);
    let mut add = |kind, flags, attributes: &[u8]| {
        batch.extend(message(kind, flags, INET, attributes));
    };
    add(NEW_TABLE, CREATE_NEW, &[table.clone(), number(2, flags)].concat());
    add(NEW_OBJECT, CREATE, &counter.concat());
    add(NEW_CHAIN, CREATE, &chain.concat());
    let others = [load(META_IIF), compare(NOT_EQUAL, index), verdict(NF_ACCEPT)];
    add(NEW_RULE, APPEND, &rule(&others));
    let unseen = [load(META_MARK), and(SEEN), compare(EQUAL, 0), count(), verdict(NF_DROP)];
    add(NEW_RULE, APPEND, &rule(&unseen));
    let clear = [load(META_MARK), and(!SEEN), store(META_MARK)];
    add(NEW_RULE, APPEND | ACK, &rule(&clear));
    batch.extend(batch_message(BATCH_END));
    batch
}

/// A message that begins or ends a transaction of NFNL_SUBSYS_NFTABLES.
fn batch_message(kind: u16) -> Vec<u8> {
    let mut message = message(kind, REQUEST, 0, &[]);
    let end = message.len();
    if let Some(subsystem) = message.get_mut(end - 2..) {
        subsystem.copy_from_slice(&(NFTABLES >> 8).to_be_bytes());
    }
    message
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// An element of a rule's list of expressions.
fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[named(1, name), nested(2, &data.concat())].concat())
}

/// A value in a register, in the machine's order of bytes.
fn value(kind: u16, value: u32) -> Vec<u8> {
    nested(kind, &attribute(1, &value.to_ne_bytes()))
}

fn load(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)])
}

fn store(key: u32) -> Vec<u8> {
    expression("meta", &[number(2, key), number(3, REGISTER)])
}

fn compare(how: u32, with: u32) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, how), value(3, with)])
}

fn and(mask: u32) -> Vec<u8> {
    let registers = [number(1, REGISTER), number(2, REGISTER), number(3, 4)].concat();
    expression("bitwise", &[registers, value(4, mask), value(5, 0)])
}

fn count() -> Vec<u8> {
    expression("objref", &[number(1, 1), named(2, COUNTER)])
}

fn verdict(code: u32) -> Vec<u8> {
    let data = nested(2, &nested(2, &number(1, code)));
    expression("immediate", &[number(1, VERDICT), data])
}
