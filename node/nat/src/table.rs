//! The flows in a slab, and two indexes of chains over it. Entry 0 is never used: 0 is no entry.

use crate::{
    flow::{DownKey, Flow, State, UpKey},
    hash::Keys,
};

/// All flows of a worker.
#[derive(Debug)]
pub(crate) struct Table {
    /// Grows up to its capacity, which is allocated from the start.
    flows: Vec<Flow>,
    up: Box<[u32]>,
    down: Box<[u32]>,
    /// The first entry that was used and is free.
    free: u32,
    len: u32,
    capacity: u32,
    keys: Keys,
    /// What an index beyond the slab gets: nothing has such an index.
    none: Flow,
}

/// The chain that a hash belongs to.
#[inline(always)]
fn bucket(hash: u64, heads: &[u32]) -> usize {
    hash as usize & heads.len().wrapping_sub(1)
}

impl Table {
    pub(crate) fn new(capacity: u32, keys: Keys) -> Self {
        let capacity = capacity.clamp(1, 1 << 28);
        let heads = capacity.next_power_of_two() as usize;
        let mut flows = Vec::with_capacity(capacity as usize + 1);
        flows.push(Flow::default());
        Self {
            flows,
            // Zeros come from the operating system untouched.
            up: vec![0; heads].into_boxed_slice(),
            down: vec![0; heads].into_boxed_slice(),
            free: 0,
            len: 0,
            capacity,
            keys,
            none: Flow::default(),
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// One more than the largest index that was ever used.
    pub(crate) fn end(&self) -> u32 {
        self.flows.len() as u32
    }

    /// The bytes that it has allocated.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.flows.capacity() * size_of::<Flow>() + (self.up.len() + self.down.len()) * 4
    }

    #[inline(always)]
    pub(crate) fn at(&self, index: u32) -> &Flow {
        self.flows.get(index as usize).unwrap_or(&self.none)
    }

    #[inline(always)]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut Flow {
        self.flows.get_mut(index as usize).unwrap_or(&mut self.none)
    }

    /// The flow of a packet from the consumer, or 0.
    #[inline]
    pub(crate) fn find_up(&self, key: &UpKey) -> u32 {
        let mut index = self.up_head(key);
        while index != 0 {
            let flow = self.at(index);
            if flow.up_key() == *key {
                break;
            }
            index = flow.up_next;
        }
        index
    }

    /// The flow of a packet from the internet, or 0.
    #[inline]
    pub(crate) fn find_down(&self, key: &DownKey) -> u32 {
        let mut index = self.down_head(key);
        while index != 0 {
            let flow = self.at(index);
            if flow.down_key() == *key {
                break;
            }
            index = flow.down_next;
        }
        index
    }

    #[inline(always)]
    fn up_head(&self, key: &UpKey) -> u32 {
        self.up.get(bucket(self.keys.up(key), &self.up)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn down_head(&self, key: &DownKey) -> u32 {
        self.down.get(bucket(self.keys.down(key), &self.down)).copied().unwrap_or_default()
    }

    fn set_up_head(&mut self, key: &UpKey, index: u32) {
        let bucket = bucket(self.keys.up(key), &self.up);
        if let Some(head) = self.up.get_mut(bucket) {
            *head = index;
        }
    }

    fn set_down_head(&mut self, key: &DownKey, index: u32) {
        let bucket = bucket(self.keys.down(key), &self.down);
        if let Some(head) = self.down.get_mut(bucket) {
            *head = index;
        }
    }

    /// Adds a flow whose keys no other has. Returns its index, or 0 if the table is full.
    pub(crate) fn insert(&mut self, mut flow: Flow) -> u32 {
        if self.is_full() {
            return 0;
        }
        let (up, down) = (flow.up_key(), flow.down_key());
        flow.up_next = self.up_head(&up);
        flow.down_next = self.down_head(&down);
        let index = match self.free {
            0 => {
                self.flows.push(flow);
                self.end() - 1
            }
            index => {
                self.free = self.at(index).up_next;
                *self.at_mut(index) = flow;
                index
            }
        };
        self.set_up_head(&up, index);
        self.set_down_head(&down, index);
        self.len += 1;
        index
    }

    /// Frees an entry that has a flow.
    pub(crate) fn remove(&mut self, index: u32) {
        let flow = *self.at(index);
        if index == 0 || flow.state == State::Free {
            return;
        }
        let (up, down) = (flow.up_key(), flow.down_key());
        let mut at = self.up_head(&up);
        if at == index {
            self.set_up_head(&up, flow.up_next);
        } else {
            while at != 0 && self.at(at).up_next != index {
                at = self.at(at).up_next;
            }
            self.at_mut(at).up_next = flow.up_next;
        }
        let mut at = self.down_head(&down);
        if at == index {
            self.set_down_head(&down, flow.down_next);
        } else {
            while at != 0 && self.at(at).down_next != index {
                at = self.at(at).down_next;
            }
            self.at_mut(at).down_next = flow.down_next;
        }
        *self.at_mut(index) = Flow { up_next: self.free, ..Flow::default() };
        self.free = index;
        self.len -= 1;
    }

    /// Puts an entry into a session's ring as the newest, which it becomes.
    pub(crate) fn link(&mut self, newest: &mut u32, index: u32) {
        if *newest == 0 {
            let flow = self.at_mut(index);
            (flow.older, flow.newer) = (index, index);
        } else {
            let oldest = self.at(*newest).newer;
            let flow = self.at_mut(index);
            (flow.older, flow.newer) = (*newest, oldest);
            self.at_mut(*newest).newer = index;
            self.at_mut(oldest).older = index;
        }
        *newest = index;
    }

    /// Takes an entry out of a session's ring.
    pub(crate) fn unlink(&mut self, newest: &mut u32, index: u32) {
        let Flow { older, newer, .. } = *self.at(index);
        if older == index {
            *newest = 0;
            return;
        }
        self.at_mut(older).newer = newer;
        self.at_mut(newer).older = older;
        if *newest == index {
            *newest = older;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Protocol;

    /// Flows that come and go in a table so small that its chains are long.
    #[test]
    fn every_flow_is_found_by_both_keys_until_it_is_removed() {
        let mut table = Table::new(64, Keys::new([3, 4]));
        let mut live: Vec<(u32, Flow)> = Vec::new();
        let mut random = 1u64;
        let mut next = |bound: usize| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) as usize % bound.max(1)
        };
        for number in 0..20_000u32 {
            if next(2) == 0 || live.is_empty() {
                let flow = Flow {
                    remote: [0, u64::from(number % 5)],
                    slot: number % 3,
                    port: number as u16,
                    external_port: (number as u16).wrapping_mul(3),
                    protocol: Protocol::Tcp,
                    state: State::SynSent,
                    ..Flow::default()
                };
                let index = table.insert(flow);
                assert_eq!(index == 0, live.len() == 64, "only a full table has no room");
                if index != 0 {
                    live.push((index, flow));
                }
            } else {
                let (index, flow) = live.swap_remove(next(live.len()));
                table.remove(index);
                assert_eq!(table.find_up(&flow.up_key()), 0);
                assert_eq!(table.find_down(&flow.down_key()), 0);
            }
            assert_eq!(table.len() as usize, live.len());
            for (index, flow) in &live {
                assert_eq!(table.find_up(&flow.up_key()), *index);
                assert_eq!(table.find_down(&flow.down_key()), *index);
            }
        }
        assert_eq!(table.end(), 65);
    }

    #[test]
    fn a_ring_loses_nobody() {
        let mut table = Table::new(8, Keys::new([3, 4]));
        let mut newest = 0;
        let indexes: Vec<u32> = (0..5)
            .map(|port| {
                let state = State::SynSent;
                let index =
                    table.insert(Flow { port, external_port: port, state, ..Flow::default() });
                table.link(&mut newest, index);
                index
            })
            .collect();
        let ring = |table: &Table, newest: u32| {
            let mut ring = vec![newest];
            while table.at(ring[ring.len() - 1]).older != newest {
                ring.push(table.at(ring[ring.len() - 1]).older);
            }
            ring
        };
        assert_eq!(ring(&table, newest), [5, 4, 3, 2, 1]);
        for (gone, left) in [(5, vec![4, 3, 2, 1]), (2, vec![4, 3, 1]), (1, vec![4, 3])] {
            table.unlink(&mut newest, gone);
            assert_eq!(ring(&table, newest), left);
        }
        table.unlink(&mut newest, 3);
        table.unlink(&mut newest, 4);
        assert_eq!((newest, indexes), (0, vec![1, 2, 3, 4, 5]));
    }
}
