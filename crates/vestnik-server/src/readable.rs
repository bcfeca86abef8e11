//! Connections that have something to read, in the order in which they get their turn.

use std::collections::{HashSet, VecDeque};

use vestnik_hub::SubscriberKey;

/// Connections that may have something to read: each at most once, whoever waits longest first.
///
/// One that has gone meanwhile stays until its turn, at which nothing is found to read.
pub(crate) struct Readable<K = SubscriberKey> {
    waiting: VecDeque<K>,
    known: HashSet<K>,
}

/// How much is read before others get their turn.
pub(crate) struct Slice {
    connections: usize,
    has_begun: bool,
}

impl<K: Copy + Eq + std::hash::Hash> Readable<K> {
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::new(), known: HashSet::new() }
    }

    /// Lets a connection wait for its turn, unless it does already.
    pub(crate) fn push(&mut self, key: K) {
        if self.known.insert(key) {
            self.waiting.push_back(key);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Everybody who waits now may be read from; whoever comes back meanwhile, because it has more,
    /// waits for the next slice.
    pub(crate) fn slice(&self) -> Slice {
        Slice { connections: self.waiting.len(), has_begun: false }
    }

    /// The next one of a slice; `None`: the slice is over. The first one is there however late it is,
    /// so that every turn brings the others forward.
    pub(crate) fn next(&mut self, slice: &mut Slice, is_late: impl FnOnce() -> bool) -> Option<K> {
        slice.connections = slice.connections.checked_sub(1)?;
        if std::mem::replace(&mut slice.has_begun, true) && is_late() {
            return None;
        }
        let key = self.waiting.pop_front()?;
        self.known.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads from at most `turns` connections; those in `floods` have more each time.
    fn read(readable: &mut Readable<u32>, turns: usize, floods: &[u32]) -> Vec<u32> {
        let mut slice = readable.slice();
        let mut read = Vec::new();
        while let Some(key) = readable.next(&mut slice, || read.len() >= turns) {
            read.push(key);
            if floods.contains(&key) {
                readable.push(key);
            }
        }
        read
    }

    #[test]
    fn who_floods_has_one_turn_like_everybody_and_no_turn_is_longer_than_its_slice() {
        let mut readable = Readable::new();
        (1..=5).for_each(|key| readable.push(key));
        // 1 and 2 always have more, and an event tells of them again and again.
        assert_eq!(read(&mut readable, 2, &[1, 2]), [1, 2]);
        readable.push(1);
        readable.push(2);
        assert_eq!(read(&mut readable, 2, &[1, 2]), [3, 4], "who waited comes first");
        readable.push(9);
        assert_eq!(read(&mut readable, 2, &[1, 2]), [5, 1]);
        assert_eq!(read(&mut readable, 2, &[1, 2]), [2, 9]);
        assert_eq!(read(&mut readable, 9, &[1, 2]), [1, 2], "a second turn is for the next slice");
        assert_eq!(readable.waiting.len(), 2);
        assert_eq!(read(&mut readable, 9, &[]), [1, 2]);
        assert!(readable.is_empty() && readable.known.is_empty());
        assert_eq!(read(&mut readable, 9, &[]), Vec::<u32>::new());
    }

    #[test]
    fn a_connection_waits_once_however_often_it_is_told_of() {
        let mut readable = Readable::new();
        for _ in 0..1000 {
            readable.push(7);
            readable.push(8);
        }
        assert_eq!(readable.waiting.len(), 2);
        assert_eq!(read(&mut readable, 9, &[]), [7, 8]);
        readable.push(7);
        assert_eq!(read(&mut readable, 9, &[]), [7]);
    }
}
