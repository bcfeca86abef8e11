//! A map for keys that mostly arrive in ascending order and mostly leave in it too.
//!
//! Half the memory of a B-tree, whose nodes stay half full when keys only ever come at the end.

use std::collections::VecDeque;

/// Entries of a full chunk.
const CHUNK: usize = 128;

/// A sorted map in chunks of sorted entries; no chunk is empty.
pub(super) struct Ascending<K, V> {
    chunks: VecDeque<Vec<(K, V)>>,
    len: usize,
}

impl<K: Copy + Ord, V> Ascending<K, V> {
    pub(super) fn new() -> Self {
        Self { chunks: VecDeque::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<&(K, V)> {
        self.chunks.front()?.first()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks.iter().flatten()
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        let (chunk, position) = self.position(key).ok()?;
        Some(&self.chunks[chunk][position].1)
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (chunk, position) = self.position(key).ok()?;
        Some(&mut self.chunks[chunk][position].1)
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.position(key).is_ok()
    }

    /// Adds an entry; the value of a key that is there already is replaced.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let (chunk, position) = match self.position(key) {
            Ok((chunk, position)) => {
                self.chunks[chunk][position].1 = value;
                return;
            }
            Err(place) => place,
        };
        self.len += 1;
        let Some(entries) = self.chunks.get_mut(chunk) else {
            self.chunks.push_back(vec![(key, value)]);
            return;
        };
        if entries.len() < CHUNK {
            entries.insert(position, (key, value));
        } else if position == entries.len() {
            self.chunks.insert(chunk + 1, vec![(key, value)]);
        } else {
            let upper = entries.split_off(CHUNK / 2);
            self.chunks.insert(chunk + 1, upper);
            let half = if position > CHUNK / 2 { chunk + 1 } else { chunk };
            let position = if half == chunk { position } else { position - CHUNK / 2 };
            self.chunks[half].insert(position, (key, value));
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let (chunk, position) = self.position(key).ok()?;
        let (_, value) = self.chunks[chunk].remove(position);
        self.len -= 1;
        let left = self.chunks[chunk].len();
        if left == 0 {
            self.chunks.remove(chunk);
        } else if left.is_power_of_two() && left < CHUNK {
            self.join(chunk);
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
        Some(value)
    }

    /// Joins a chunk that got small with the next one if both fit into half a chunk, so that there
    /// are never many more chunks than full ones would be; gives unused memory back.
    fn join(&mut self, chunk: usize) {
        let room = CHUNK / 2 - self.chunks[chunk].len().min(CHUNK / 2);
        if self.chunks.get(chunk + 1).is_some_and(|next| next.len() <= room)
            && let Some(next) = self.chunks.remove(chunk + 1)
        {
            self.chunks[chunk].extend(next);
        } else if chunk > 0
            && self.chunks[chunk - 1].len() <= room
            && let Some(next) = self.chunks.remove(chunk)
        {
            self.chunks[chunk - 1].extend(next);
        } else {
            self.chunks[chunk].shrink_to_fit();
        }
    }

    /// Where a key is, or where it would go.
    fn position(&self, key: K) -> Result<(usize, usize), (usize, usize)> {
        let after = self.chunks.partition_point(|chunk| chunk[0].0 <= key);
        let chunk = after.saturating_sub(1);
        let Some(entries) = self.chunks.get(chunk) else { return Err((0, 0)) };
        match entries.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(position) => Ok((chunk, position)),
            Err(position) => Err((chunk, position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_b_tree_does(
            ascending in 0_u32..1000,
            changes in proptest::collection::vec((any::<bool>(), 0_u32..1200), 0..2000),
        ) {
            let (mut map, mut model) = (Ascending::new(), BTreeMap::new());
            for key in 0..ascending {
                map.insert(key, key);
                model.insert(key, key);
            }
            for (n, (add, key)) in (0..).zip(changes) {
                if add {
                    map.insert(key, n);
                    model.insert(key, n);
                } else {
                    prop_assert_eq!(map.remove(key), model.remove(&key));
                }
                prop_assert_eq!(map.get(key), model.get(&key));
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.first().map(|(key, _)| key), model.keys().next());
            }
            prop_assert!(map.iter().map(|(key, value)| (key, value)).eq(model.iter()));
            prop_assert!(map.chunks.iter().all(|chunk| !chunk.is_empty()));
        }
    }

    #[test]
    fn survivors_far_apart_do_not_keep_chunks_apart() {
        let mut map = Ascending::new();
        for key in 0..100_000 {
            map.insert(key, ());
        }
        assert!(map.chunks.len() < 800);
        for key in (0..100_000).filter(|key| key % 1000 != 0) {
            map.remove(key);
        }
        assert_eq!(map.len(), 100);
        assert!(map.chunks.len() < 20, "{}", map.chunks.len());
    }
}
