//! What the guard counted.

use std::borrow::Borrow;

use aya::maps::{MapData, MapError, PerCpuArray};
use weir_common::{
    DropReason,
    guard::{Tally, VERDICTS, verdict_index},
    packet::{Class, Verdict},
};

use weir_accounts::GuardCount;

/// Frames and bytes by verdict, over all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardCounts {
    tallies: [Tally; VERDICTS],
}

impl GuardCounts {
    pub(super) fn read<T: Borrow<MapData>>(
        map: &PerCpuArray<T, [u64; 2]>,
    ) -> Result<Self, MapError> {
        let mut tallies = [Tally::default(); VERDICTS];
        for (index, tally) in (0..).zip(&mut tallies) {
            for [datagrams, bytes] in map.get(&index, 0)?.iter() {
                tally.datagrams += datagrams;
                tally.bytes += bytes;
            }
        }
        Ok(Self { tallies })
    }

    /// What passed as this.
    #[must_use]
    pub fn passed(&self, class: Class) -> Tally {
        self.of(Verdict::Pass(class))
    }

    /// What was dropped for this reason; zero for reasons that are not the guard's.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> Tally {
        self.of(Verdict::Drop(reason))
    }

    /// What had this verdict.
    #[must_use]
    pub fn of(&self, verdict: Verdict) -> Tally {
        self.tallies.get(verdict_index(verdict) as usize).copied().unwrap_or_default()
    }

    /// What passed, by message type, for reports.
    #[must_use]
    pub fn messages(&self) -> Vec<GuardCount> {
        let count = |&class: &Class| {
            let Tally { datagrams, bytes } = self.passed(class);
            GuardCount { message: class.as_str().to_owned(), datagrams, bytes }
        };
        Class::ALL.iter().map(count).collect()
    }
}
