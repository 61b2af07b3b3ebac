//! Which packets the fragments on the way belong to. Nothing is reassembled: the first fragment has
//! the ports and makes an entry, and the later ones follow it.

use crate::{
    flow::{Ticks, Words, seconds},
    hash::Keys,
    parse::Fragment,
};

/// How long the fragments of a packet may take.
const TIMEOUT: Ticks = seconds(15);
/// How many packets may be on the way in fragments. A power of two.
const ENTRIES: usize = 2048;
/// How many of them may share a hash.
const WAYS: usize = 4;
/// How many a session may have on the way.
const SESSION_ENTRIES: u16 = 128;
/// How many gaps a packet may have whose fragments come out of order.
const GAPS: usize = 3;

/// What the fragments of a packet have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FragmentKey {
    pub(crate) remote: Words,
    pub(crate) id: u32,
    /// The slot of a packet from the consumer or to a prefix, the index of the external address of
    /// any other.
    pub(crate) local: u32,
    /// 0 for IPv6, where it is no part of the key (RFC 8200, section 4.5).
    pub(crate) protocol: u8,
    pub(crate) v6: bool,
    pub(crate) is_down: bool,
    pub(crate) is_prefix: bool,
}

/// What a later fragment needs of the first one's flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) slot: u32,
    pub(crate) external: u8,
    /// The identification that the packet has on the other side.
    pub(crate) id: u32,
    /// Of the policy that allowed it.
    pub(crate) generation: u32,
}

/// A packet whose fragments are on the way.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: FragmentKey,
    followed: Followed,
    /// When it ends. 0 for a free entry.
    expires: Ticks,
    /// Where what has come so far ends, in units of 8 bytes.
    end: u16,
    has_last: bool,
    /// What is missing before `end`: from, to.
    gaps: [(u16, u16); GAPS],
}

impl Entry {
    /// Whether the fragment is none of what has come already, and is noted.
    fn note(&mut self, fragment: &Fragment) -> bool {
        let from = fragment.place.offset;
        let units = fragment.len.div_ceil(8) as u16;
        // All but the last have a multiple of 8 bytes (RFC 791, section 3.2; RFC 8200, 4.5).
        // None goes beyond the largest packet.
        let Some(to) = from.checked_add(units).filter(|_| {
            units != 0
                && from + units <= 1 << 13
                && (!fragment.place.more || fragment.len.is_multiple_of(8))
        }) else {
            return false;
        };
        if from >= self.end {
            if self.has_last {
                return false;
            }
            if from > self.end {
                let Some(gap) = self.gaps.iter_mut().find(|(from, to)| from == to) else {
                    return false;
                };
                *gap = (self.end, from);
            }
            self.end = to;
            self.has_last = !fragment.place.more;
            return true;
        }
        if !fragment.place.more {
            return false;
        }
        let Some(at) = self.gaps.iter().position(|gap| gap.0 <= from && to <= gap.1) else {
            return false;
        };
        let spare = self.gaps.iter().position(|(from, to)| from == to);
        let Some(gap) = self.gaps.get_mut(at) else { return false };
        let (before, behind) = ((gap.0, from), (to, gap.1));
        if before.0 == before.1 {
            *gap = behind;
        } else if behind.0 == behind.1 {
            *gap = before;
        } else {
            let Some(spare) = spare else { return false };
            *gap = before;
            if let Some(gap) = self.gaps.get_mut(spare) {
                *gap = behind;
            }
        }
        true
    }

    fn is_complete(&self) -> bool {
        self.has_last && self.gaps.iter().all(|(from, to)| from == to)
    }
}

/// The packets whose fragments are on the way.
#[derive(Debug)]
pub(crate) struct Fragments {
    entries: Box<[Entry]>,
    keys: Keys,
    hand: usize,
}

/// An entry ended: its session has one less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended(pub(crate) u32);

impl Fragments {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { entries: vec![Entry::default(); ENTRIES].into_boxed_slice(), keys, hand: 0 }
    }

    fn set(&mut self, key: &FragmentKey) -> &mut [Entry] {
        let kind = u64::from(key.protocol) << 8
            | u64::from(key.v6) << 2
            | u64::from(key.is_down) << 1
            | u64::from(key.is_prefix);
        let place = u64::from(key.id) << 32 | u64::from(key.local);
        let hash = self.keys.pair(key.remote[0] ^ kind.rotate_left(40), key.remote[1]);
        let hash = self.keys.pair(hash, place) as usize;
        let first = hash & (ENTRIES - 1) & !(WAYS - 1);
        self.entries.get_mut(first..first + WAYS).unwrap_or_default()
    }

    /// Notes the first fragment of a packet. `count` is the number of fragmented packets that its
    /// session has on the way. Returns the entry that made room for it, or an error if there is none.
    pub(crate) fn begin(
        &mut self,
        key: FragmentKey,
        followed: Followed,
        first: &Fragment,
        count: u16,
        now: Ticks,
    ) -> Result<Option<Ended>, ()> {
        let set = self.set(&key);
        let same = set.iter().position(|entry| entry.expires > now && entry.key == key);
        if same.is_none() && count >= SESSION_ENTRIES {
            return Err(());
        }
        // The same again, a free one, or the oldest.
        let oldest = || {
            let ages = set.iter().enumerate().min_by_key(|(_, entry)| entry.expires);
            ages.map(|(at, _)| at)
        };
        let Some(entry) = same.or_else(oldest).and_then(|at| set.get_mut(at)) else {
            return Err(());
        };
        let ended = (entry.expires != 0).then_some(Ended(entry.followed.slot));
        let mut new = Entry { key, followed, expires: now + TIMEOUT, ..Entry::default() };
        if !new.note(first) {
            return Err(());
        }
        *entry = new;
        Ok(ended)
    }

    /// The packet that a later fragment belongs to. Also what ended with it, if it was the last one
    /// that was missing.
    pub(crate) fn follow(
        &mut self,
        key: &FragmentKey,
        fragment: &Fragment,
        now: Ticks,
    ) -> Option<(Followed, Option<Ended>)> {
        let set = self.set(key);
        let entry = set.iter_mut().find(|entry| entry.expires > now && entry.key == *key)?;
        if !entry.note(fragment) {
            return None;
        }
        let followed = entry.followed;
        let mut ended = None;
        if entry.is_complete() {
            *entry = Entry::default();
            ended = Some(Ended(followed.slot));
        }
        Some((followed, ended))
    }

    /// Frees some entries that have expired.
    pub(crate) fn sweep(&mut self, now: Ticks, mut ended: impl FnMut(Ended)) {
        for _ in 0..ENTRIES / 8 {
            self.hand = (self.hand + 1) % ENTRIES;
            if let Some(entry) = self.entries.get_mut(self.hand)
                && entry.expires != 0
                && entry.expires <= now
            {
                ended(Ended(entry.followed.slot));
                *entry = Entry::default();
            }
        }
    }

    /// Frees all entries that are `over`.
    pub(crate) fn end(&mut self, over: impl Fn(&Followed) -> bool, mut ended: impl FnMut(Ended)) {
        for entry in &mut self.entries {
            if entry.expires != 0 && over(&entry.followed) {
                ended(Ended(entry.followed.slot));
                *entry = Entry::default();
            }
        }
    }
}
