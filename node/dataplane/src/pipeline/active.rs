//! The peers whose timers run, and when each of them has something to do. Both are apart from the
//! peers, so that a look at an idle one touches nothing of its memory.

/// Stands for "no timer runs".
const ASLEEP: u64 = u64::MAX;

/// The peers whose timers run, by their indexes.
pub(super) struct ActivePeers {
    indexes: Vec<u32>,
    /// By the peer's index: the time in nanoseconds before which it need not be served.
    due: Vec<u64>,
    /// The position in `indexes` of the peer that is looked at next.
    position: usize,
}

impl ActivePeers {
    /// Has room for peers with indexes below `peers`.
    pub(super) fn new(peers: usize) -> Self {
        Self { indexes: Vec::with_capacity(peers), due: vec![ASLEEP; peers], position: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.indexes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Has the timers of the peer at `index` run from now on. Call it whenever a packet may have
    /// changed them: the peer is served when its turn comes, whatever was due before.
    #[inline]
    pub(super) fn wake(&mut self, index: usize) {
        let Some(due) = self.due.get_mut(index) else { return };
        if *due == ASLEEP {
            self.indexes.push(index as u32);
        }
        *due = 0;
    }

    /// Forgets the peer at `index`.
    pub(super) fn remove(&mut self, index: usize) {
        let Some(due) = self.due.get_mut(index) else { return };
        if std::mem::replace(due, ASLEEP) != ASLEEP {
            self.indexes.retain(|other| *other as usize != index);
        }
    }

    /// Looks at the next `count` peers, and stops at one that is to be served at `now`. Returns its
    /// index, and how many were not looked at. Say what becomes of it by [`ActivePeers::served`].
    pub(super) fn next_due(&mut self, count: usize, now: u64) -> Option<(usize, usize)> {
        for left in (0..count).rev() {
            if self.position >= self.indexes.len() {
                self.position = 0;
            }
            let index = *self.indexes.get(self.position)? as usize;
            if self.due.get(index).is_some_and(|due| *due <= now) {
                return Some((index, left));
            }
            self.position += 1;
        }
        None
    }

    /// The peer that [`ActivePeers::next_due`] returned is to be served again at `due`; never, unless
    /// it is woken, if that is `None`.
    pub(super) fn served(&mut self, index: usize, due: Option<u64>) {
        let Some(entry) = self.due.get_mut(index) else { return };
        // A time that stands for sleep never comes.
        *entry = due.map_or(ASLEEP, |due| due.min(ASLEEP - 1));
        if due.is_some() {
            self.position += 1;
        } else if self.position < self.indexes.len() {
            self.indexes.swap_remove(self.position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves all that are due among all peers, and says which they were.
    fn serve(peers: &mut ActivePeers, now: u64, due: impl Fn(usize) -> Option<u64>) -> Vec<usize> {
        let (mut served, mut count) = (Vec::new(), peers.len());
        while let Some((index, left)) = peers.next_due(count, now) {
            served.push(index);
            peers.served(index, due(index));
            count = left;
        }
        served
    }

    #[test]
    fn a_peer_is_served_once_it_is_due_and_at_once_when_it_was_woken() {
        let mut peers = ActivePeers::new(4);
        [0, 1, 3].into_iter().for_each(|index| peers.wake(index));
        assert_eq!(serve(&mut peers, 10, |index| Some(20 + index as u64)), [0, 1, 3]);
        assert_eq!(serve(&mut peers, 19, |_| None), [0; 0]);
        peers.wake(3);
        assert_eq!(serve(&mut peers, 20, |_| Some(30)), [0, 3]);
        assert_eq!(serve(&mut peers, 21, |_| Some(30)), [1]);
        assert_eq!(peers.len(), 3);
    }

    #[test]
    fn a_peer_that_sleeps_or_is_removed_is_looked_at_no_more_until_it_wakes() {
        let mut peers = ActivePeers::new(4);
        (0..4).for_each(|index| peers.wake(index));
        peers.remove(2);
        peers.remove(2);
        assert_eq!(serve(&mut peers, 1, |index| (index == 3).then_some(5)), [0, 3, 1]);
        assert_eq!(peers.len(), 1);
        assert_eq!(serve(&mut peers, 9, |_| None), [3]);
        assert!(peers.is_empty());
        peers.wake(2);
        peers.wake(9);
        assert_eq!(serve(&mut peers, 9, |_| Some(u64::MAX)), [2]);
        assert_eq!((peers.len(), serve(&mut peers, u64::MAX - 2, |_| None)), (1, Vec::new()));
    }

    #[test]
    fn each_peer_is_looked_at_once_in_a_round_of_four_parts() {
        let mut peers = ActivePeers::new(10);
        (0..10).for_each(|index| peers.wake(index));
        let mut seen = Vec::new();
        for _ in 0..4 {
            let mut count = peers.len().div_ceil(4);
            while let Some((index, left)) = peers.next_due(count, 1) {
                seen.push(index);
                peers.served(index, Some(2));
                count = left;
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }
}
