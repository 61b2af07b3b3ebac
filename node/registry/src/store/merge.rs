//! Several ordered sets as one sequence, without copying them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, btree_set},
    iter,
};

use super::index::{Position, Positions};

/// The positions of all sets, newest first, each once, from `until` back to `since`.
pub(super) fn newest_first<'s>(
    sets: Vec<&'s Positions>,
    until: Option<u64>,
    since: Option<u64>,
) -> Box<dyn Iterator<Item = Position> + 's> {
    let from = until.map_or(Position::FIRST, Position::newest_of);
    let mut runs: Vec<btree_set::Range<'s, Position>> =
        sets.into_iter().map(|set| set.range(from..)).collect();
    let is_recent =
        move |position: &Position| since.is_none_or(|since| position.created_at() >= since);
    if let [run] = runs.as_slice() {
        return Box::new(run.clone().copied().take_while(is_recent));
    }
    let mut heads: BinaryHeap<Reverse<(Position, usize)>> = runs
        .iter_mut()
        .enumerate()
        .filter_map(|(number, run)| Some(Reverse((*run.next()?, number))))
        .collect();
    let mut last = None;
    let all = iter::from_fn(move || {
        loop {
            let Reverse((position, number)) = heads.pop()?;
            if let Some(next) = runs.get_mut(number).and_then(Iterator::next) {
                heads.push(Reverse((*next, number)));
            }
            if last.replace(position) != Some(position) {
                return Some(position);
            }
        }
    });
    Box::new(all.take_while(is_recent))
}
