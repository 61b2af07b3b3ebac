//! The external addresses of a worker, and the blocks of their ports that its sessions have.

use std::{net::IpAddr, sync::Arc};

use crate::{
    flow::{EXTERNAL_V6, Ticks, seconds},
    parse::{Address, mapped},
    policy::Protocol,
    ports::Ports,
};

/// How long a block that was given back waits before another session may get it: answers to the one
/// before do not reach the next one, and an abuse notice whose clock is wrong finds nobody.
pub(crate) const QUARANTINE: Ticks = seconds(120);

/// The number of external addresses that there can be: those of IPv4, and one of IPv6.
const EXTERNALS: usize = EXTERNAL_V6 as usize + 1;

/// A bit for each port.
type PortSet = Box<[u64]>;

/// A block of ports. A free one is in its address's list of free ones, any other in its session's.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// The session that has or had it, plus 1.
    owner: u32,
    /// Mappings, TCP flows, and one if it is pinned.
    uses: u32,
    /// When it was given back. 0 if never.
    freed: Ticks,
    /// The blocks before and behind it, plus 1.
    before: u32,
    behind: u32,
    is_held: bool,
    /// It was restored, and waits for its first flow.
    is_pinned: bool,
}

/// The ends of a list of blocks, as numbers plus 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List {
    first: u32,
    last: u32,
}

/// The blocks that a session has in one IP version.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    list: List,
    pub(crate) count: u16,
    /// The index of the address of all of them: a session keeps one (RFC 4787, REQ-2).
    pub(crate) external: u8,
    /// The block that it gave back last, plus 1.
    last_given: u32,
}

/// One external address.
#[derive(Debug)]
struct External {
    address: IpAddr,
    blocks: Vec<Block>,
    free: List,
    udp: PortSet,
    icmp: PortSet,
    /// Ports that TCP flows have had since their block was taken.
    tcp: PortSet,
}

/// A block that changed hands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) external: u8,
    pub(crate) first: u16,
    pub(crate) address: IpAddr,
}

/// The external addresses of a worker.
#[derive(Debug)]
pub(crate) struct Pool {
    ports: Arc<Ports>,
    externals: [Option<Box<External>>; EXTERNALS],
    /// Their addresses, which each packet asks for.
    addresses: [Option<Address>; EXTERNALS],
    worker: u32,
    workers: u32,
    seed: u64,
    /// The number of blocks that sessions have.
    held: u32,
}

fn set_bit(set: &mut PortSet, port: u16, to: bool) {
    if let Some(word) = set.get_mut(usize::from(port / 64)) {
        let bit = 1 << (port % 64);
        *word = if to { *word | bit } else { *word & !bit };
    }
}

fn has_bit(set: &PortSet, port: u16) -> bool {
    set.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 != 0)
}

impl External {
    fn set(&self, protocol: Protocol) -> &PortSet {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Icmp => &self.icmp,
        }
    }

    fn set_mut(&mut self, protocol: Protocol) -> &mut PortSet {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Icmp => &mut self.icmp,
        }
    }

    fn block(&self, number: u32) -> Block {
        self.blocks.get(number as usize).copied().unwrap_or_default()
    }

    fn change(&mut self, number: u32, change: impl FnOnce(&mut Block)) {
        if let Some(block) = self.blocks.get_mut(number as usize) {
            change(block);
        }
    }

    fn append(&mut self, mut list: List, number: u32) -> List {
        self.change(number, |block| (block.before, block.behind) = (list.last, 0));
        match list.last {
            0 => list.first = number + 1,
            last => self.change(last - 1, |block| block.behind = number + 1),
        }
        list.last = number + 1;
        list
    }

    fn take_out(&mut self, mut list: List, number: u32) -> List {
        let Block { before, behind, .. } = self.block(number);
        match before {
            0 => list.first = behind,
            before => self.change(before - 1, |block| block.behind = behind),
        }
        match behind {
            0 => list.last = before,
            behind => self.change(behind - 1, |block| block.before = before),
        }
        list
    }
}

impl Pool {
    pub(crate) fn new(ports: Arc<Ports>, worker: u32, workers: u32, seed: u64) -> Self {
        let externals = std::array::from_fn(|_| None);
        Self {
            ports,
            externals,
            addresses: [None; EXTERNALS],
            worker,
            workers: workers.max(1),
            seed,
            held: 0,
        }
    }

    /// How many blocks the worker has of each address.
    pub(crate) fn blocks_of_an_address(&self) -> u32 {
        (0..self.numbers()).filter(|number| self.is_ours(*number)).count() as u32
    }

    fn numbers(&self) -> u32 {
        (1u32 << 16).div_ceil(u32::from(self.ports.block_len()))
    }

    fn first_port(&self, number: u32) -> u16 {
        (number * u32::from(self.ports.block_len())) as u16
    }

    /// Whether a block is the worker's, and has a port at all.
    fn is_ours(&self, number: u32) -> bool {
        let first = self.first_port(number);
        let end = u32::from(first) + u32::from(self.ports.block_len());
        self.ports.worker_of(first, self.workers) == self.worker
            && (u32::from(first)..end).any(|port| self.ports.contains(port as u16))
    }

    /// The worker whose sessions use the port.
    pub(crate) fn worker_of(&self, port: u16) -> u32 {
        self.ports.worker_of(port, self.workers)
    }

    pub(crate) fn address(&self, external: u8) -> Option<IpAddr> {
        self.external(external).map(|external| external.address)
    }

    /// The address in the form of both versions.
    #[inline]
    pub(crate) fn bytes(&self, external: u8) -> Option<Address> {
        *self.addresses.get(usize::from(external))?
    }

    /// Whether there is an IPv4 address.
    pub(crate) fn has_v4(&self) -> bool {
        self.addresses.iter().take(usize::from(EXTERNAL_V6)).any(Option::is_some)
    }

    fn external(&self, external: u8) -> Option<&External> {
        self.externals.get(usize::from(external))?.as_deref()
    }

    fn external_mut(&mut self, external: u8) -> Option<&mut External> {
        self.externals.get_mut(usize::from(external))?.as_deref_mut()
    }

    /// The index of an external address.
    #[inline]
    pub(crate) fn find(&self, address: Address, v6: bool) -> Option<u8> {
        if v6 {
            return (self.bytes(EXTERNAL_V6)? == address).then_some(EXTERNAL_V6);
        }
        let mut own = self.addresses.iter().take(usize::from(EXTERNAL_V6));
        own.position(|own| *own == Some(address)).map(|index| index as u8)
    }

    /// Adds an address, if it is not there and there is room.
    pub(crate) fn add(&mut self, address: IpAddr) {
        let (bytes, range) = match address {
            IpAddr::V4(v4) => (mapped(v4.octets()), 0..usize::from(EXTERNAL_V6)),
            IpAddr::V6(v6) => (v6.octets(), usize::from(EXTERNAL_V6)..EXTERNALS),
        };
        if self.find(bytes, address.is_ipv6()).is_some() {
            return;
        }
        let set = || vec![0u64; 1 << 10].into_boxed_slice();
        let mut external = Box::new(External {
            address,
            blocks: vec![Block::default(); self.numbers() as usize],
            free: List::default(),
            udp: set(),
            icmp: set(),
            tcp: set(),
        });
        // In random order: a session's ports tell nothing of those before and after it (RFC 6056).
        let mut numbers: Vec<u32> =
            (0..self.numbers()).filter(|number| self.is_ours(*number)).collect();
        for at in (1..numbers.len()).rev() {
            numbers.swap(at, self.random() as usize % (at + 1));
        }
        for number in numbers {
            external.free = external.append(external.free, number);
        }
        let slots = self.externals.iter_mut().zip(&mut self.addresses);
        let mut slots = slots.skip(range.start).take(range.len());
        if let Some((room, own)) = slots.find(|(external, _)| external.is_none()) {
            *room = Some(external);
            *own = Some(bytes);
        }
    }

    /// Forgets an address of which no session has a block.
    pub(crate) fn forget(&mut self, external: u8) {
        let place = usize::from(external);
        if let Some((external, own)) =
            self.externals.get_mut(place).zip(self.addresses.get_mut(place))
        {
            *external = None;
            *own = None;
        }
    }

    /// Steele and Vigna's SplitMix64.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// How many blocks sessions have.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Whether a port is in a block of some session, and has or had a flow.
    pub(crate) fn is_used(&self, external: u8, protocol: Protocol, port: u16) -> bool {
        self.external(external).is_some_and(|external| has_bit(external.set(protocol), port))
    }

    /// A port of the session's blocks that `is_free`: in the oldest block that has one, and there
    /// the one that has the same place as the inner port, or the next one. So an inner port has the
    /// same external port again, also after a restart. At most `probes` ports of each block are tried.
    pub(crate) fn find_port(
        &self,
        held: &Held,
        port: u16,
        probes: u32,
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let external = self.external(held.external)?;
        let len = u32::from(self.ports.block_len());
        let mut block = held.list.first;
        while block != 0 {
            let first = u32::from(self.first_port(block - 1));
            let candidates = (0..len).map(|step| (first + (u32::from(port) + step) % len) as u16);
            let candidates = candidates.filter(|port| self.ports.contains(*port));
            let mut candidates = candidates.take(probes as usize);
            if let Some(port) = candidates.find(|port| is_free(*port)) {
                return Some(port);
            }
            block = external.block(block - 1).behind;
        }
        None
    }

    /// A free port for a protocol whose ports belong to one mapping each, found as by
    /// [`Pool::find_port`].
    pub(crate) fn find_unused(&self, held: &Held, port: u16, protocol: Protocol) -> Option<u16> {
        let external = self.external(held.external)?;
        self.find_port(held, port, u32::MAX, |port| !has_bit(external.set(protocol), port))
    }

    /// Gives a session without blocks an address: the one of its slot if that has a block, else the
    /// next one that has.
    pub(crate) fn choose_address(&self, slot: u32, v6: bool, now: Ticks) -> Option<u8> {
        if v6 {
            return self.external(EXTERNAL_V6).map(|_| EXTERNAL_V6);
        }
        let own = || (0..EXTERNAL_V6).filter(|index| self.external(*index).is_some());
        let start = (slot / self.workers) as usize % own().count().max(1);
        let mut in_turn = own().cycle().skip(start).take(own().count());
        in_turn.find(|index| self.next_free(*index, now).is_some()).or_else(|| own().next())
    }

    /// The free block that has waited longest, if that is long enough.
    fn next_free(&self, external: u8, now: Ticks) -> Option<u32> {
        let external = self.external(external)?;
        let number = external.free.first.checked_sub(1)?;
        let freed = external.block(number).freed;
        (freed == 0 || now.wrapping_sub(freed) >= QUARANTINE).then_some(number)
    }

    /// Takes another block for a session. `held.external` is its address.
    pub(crate) fn take(&mut self, slot: u32, held: &mut Held, now: Ticks) -> Option<Moved> {
        // What it had before, it may have again at once.
        let before = held.last_given.checked_sub(1).filter(|number| {
            self.external(held.external).is_some_and(|external| {
                let block = external.block(*number);
                !block.is_held && block.owner == slot + 1
            })
        });
        let number = before.or_else(|| self.next_free(held.external, now))?;
        self.give(slot, held, number)
    }

    /// Takes a certain block for a session, which then keeps it until [`Pool::unpin`].
    pub(crate) fn restore(&mut self, slot: u32, held: &mut Held, first: u16) -> bool {
        let number = u32::from(first / self.ports.block_len());
        let is_free =
            self.external(held.external).is_some_and(|external| !external.block(number).is_held);
        if self.first_port(number) != first || !self.is_ours(number) || !is_free {
            return false;
        }
        let is_given = self.give(slot, held, number).is_some();
        if let Some(external) = self.external_mut(held.external) {
            external.change(number, |block| (block.uses, block.is_pinned) = (1, true));
        }
        is_given
    }

    fn give(&mut self, slot: u32, held: &mut Held, number: u32) -> Option<Moved> {
        let first = self.first_port(number);
        let external = self.external_mut(held.external)?;
        external.free = external.take_out(external.free, number);
        held.list = external.append(held.list, number);
        external.change(number, |block| {
            (block.owner, block.uses, block.is_held) = (slot + 1, 0, true);
        });
        let address = external.address;
        held.count += 1;
        self.held += 1;
        Some(Moved { external: held.external, first, address })
    }

    /// A mapping or a TCP flow begins to use a port.
    pub(crate) fn begin_use(&mut self, external: u8, protocol: Protocol, port: u16) {
        let number = u32::from(port / self.ports.block_len());
        if let Some(external) = self.external_mut(external) {
            set_bit(external.set_mut(protocol), port, true);
            external.change(number, |block| block.uses += 1);
        }
    }

    /// A mapping or a TCP flow ends. The block is given back if it was the last one.
    pub(crate) fn end_use(
        &mut self,
        held: &mut Held,
        external: u8,
        protocol: Protocol,
        port: u16,
        now: Ticks,
    ) -> Option<Moved> {
        let number = u32::from(port / self.ports.block_len());
        let own = self.external_mut(external)?;
        if protocol != Protocol::Tcp {
            set_bit(own.set_mut(protocol), port, false);
        }
        own.change(number, |block| block.uses = block.uses.saturating_sub(1));
        self.give_back(held, external, number, now)
    }

    /// Takes back [`Pool::begin_use`], without giving back the block.
    pub(crate) fn drop_use(&mut self, external: u8, port: u16) {
        let number = u32::from(port / self.ports.block_len());
        if let Some(external) = self.external_mut(external) {
            external.change(number, |block| block.uses = block.uses.saturating_sub(1));
        }
    }

    /// A restored block no longer waits for its first flow.
    pub(crate) fn unpin(
        &mut self,
        slot: u32,
        held: &mut Held,
        external: u8,
        first: u16,
        now: Ticks,
    ) -> Option<Moved> {
        let number = u32::from(first / self.ports.block_len());
        let own = self.external_mut(external)?;
        let block = own.block(number);
        if !block.is_pinned || block.owner != slot + 1 {
            return None;
        }
        own.change(number, |block| {
            (block.is_pinned, block.uses) = (false, block.uses.saturating_sub(1));
        });
        self.give_back(held, external, number, now)
    }

    /// Gives a block back that nothing uses.
    fn give_back(
        &mut self,
        held: &mut Held,
        external: u8,
        number: u32,
        now: Ticks,
    ) -> Option<Moved> {
        let first = self.first_port(number);
        let len = self.ports.block_len();
        let own = self.external_mut(external)?;
        let block = own.block(number);
        if block.uses != 0 || !block.is_held {
            return None;
        }
        held.list = own.take_out(held.list, number);
        own.free = own.append(own.free, number);
        own.change(number, |block| (block.freed, block.is_held) = (now.max(1), false));
        for port in 0..len {
            set_bit(&mut own.tcp, first.saturating_add(port), false);
        }
        let address = own.address;
        held.count -= 1;
        held.last_given = number + 1;
        self.held -= 1;
        Some(Moved { external, first, address })
    }
}

impl Held {
    /// Forgets what the session had before: another one gets its slot.
    pub(crate) fn forget(&mut self) {
        self.last_given = 0;
    }
}
