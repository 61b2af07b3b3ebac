//! Lists of chunks that grow side by side: what each `writev` or `sendmsg` gathers (`struct iovec`).

use crate::arena::Chunk;

/// The index that ends a list.
const END: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    chunk: Chunk,
    next: u32,
}

/// The chunks of one write: the first and the last node of a linked list in an [`IovArena`].
#[derive(Clone, Copy, Debug)]
pub struct IovList {
    first: u32,
    last: u32,
    /// The number of chunks.
    pub len: u32,
}

/// All lists of an iteration.
#[derive(Debug, Default)]
pub struct IovArena {
    nodes: Vec<Node>,
}

impl IovArena {
    /// Removes all lists.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Creates a list of one chunk.
    #[must_use]
    #[inline]
    pub fn list(&mut self, chunk: Chunk) -> IovList {
        let index = self.nodes.len() as u32;
        self.nodes.push(Node { chunk, next: END });
        IovList { first: index, last: index, len: 1 }
    }

    /// Appends a chunk to a list. Adjacent chunks become one.
    #[inline]
    pub fn append(&mut self, list: &mut IovList, chunk: Chunk) {
        let index = self.nodes.len() as u32;
        if let Some(last) = self.nodes.get_mut(list.last as usize) {
            if last.chunk.end() == chunk.start {
                last.chunk.len += chunk.len;
                return;
            }
            last.next = index;
        }
        self.nodes.push(Node { chunk, next: END });
        list.last = index;
        list.len += 1;
    }

    /// The chunks of a list, in order.
    #[inline]
    pub fn chunks(&self, list: IovList) -> impl Iterator<Item = Chunk> + '_ {
        let mut index = list.first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(index as usize)?;
            index = node.next;
            Some(node.chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(start: u32, len: u32) -> Chunk {
        Chunk { start, len }
    }

    #[test]
    fn lists_grow_side_by_side_and_adjacent_chunks_become_one() {
        let mut iovs = IovArena::default();
        let mut one = iovs.list(chunk(0, 10));
        let mut two = iovs.list(chunk(10, 10));
        iovs.append(&mut one, chunk(20, 5));
        iovs.append(&mut one, chunk(25, 5));
        iovs.append(&mut two, chunk(20, 1));
        assert_eq!(iovs.chunks(one).collect::<Vec<_>>(), [chunk(0, 10), chunk(20, 10)]);
        assert_eq!(iovs.chunks(two).collect::<Vec<_>>(), [chunk(10, 11)]);
        assert_eq!((one.len, two.len), (2, 1));
    }
}
