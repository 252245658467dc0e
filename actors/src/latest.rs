//! The newest change of each of many things, in memory and bounded.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// The number of the newest change per thing, in both directions. The oldest are forgotten when
/// there are too many; for questions that reach back before that it says that it does not know.
#[derive(Debug)]
pub(crate) struct Latest<T> {
    by_thing: HashMap<T, u64>,
    /// More than one thing may change with one number.
    by_number: BTreeSet<(u64, T)>,
    capacity: usize,
    /// Changes at or before this number may have been forgotten.
    complete_after: u64,
}

impl<T: Clone + Ord + Hash> Latest<T> {
    /// Starts empty after `start`; remembers `capacity` things.
    pub(crate) fn new(start: u64, capacity: usize) -> Self {
        Self {
            by_thing: HashMap::new(),
            by_number: BTreeSet::new(),
            capacity,
            complete_after: start,
        }
    }

    pub(crate) fn set(&mut self, thing: T, number: u64) {
        if let Some(old) = self.by_thing.insert(thing.clone(), number) {
            self.by_number.remove(&(old, thing.clone()));
        }
        self.by_number.insert((number, thing));
        if self.by_thing.len() > self.capacity
            && let Some((number, thing)) = self.by_number.pop_first()
        {
            self.by_thing.remove(&thing);
            self.complete_after = self.complete_after.max(number);
        }
    }

    /// What has changed after `since`, the newest first; `None` if that is not known any more.
    pub(crate) fn since(&self, since: u64) -> Option<Vec<T>> {
        if since < self.complete_after {
            return None;
        }
        let newest_first = self.by_number.iter().rev();
        let changed = newest_first.take_while(|(number, _)| *number > since);
        Some(changed.map(|(_, thing)| thing.clone()).collect())
    }

    /// Whether a thing has changed after `since`; `true` if that is not known any more.
    pub(crate) fn changed<Q>(&self, thing: &Q, since: u64) -> bool
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self.by_thing.get(thing) {
            Some(number) => *number > since,
            None => since < self.complete_after,
        }
    }

    /// Whether a change of this thing is remembered.
    pub(crate) fn knows(&self, thing: &T) -> bool {
        self.by_thing.contains_key(thing)
    }

    /// All things of which a change is remembered.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.by_thing.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_when_full_and_admits_it() {
        let mut latest = Latest::new(0, 100);
        for number in 1..=101 {
            latest.set(format!("thing {number}"), number);
        }
        assert_eq!(latest.since(0), None);
        assert_eq!(latest.since(1).map(|things| things.len()), Some(100));
        assert!(!latest.knows(&"thing 1".to_owned()));
        assert!(latest.changed("thing 1", 0), "it is not known any more");
        assert!(!latest.changed("thing 1", 1));
        assert_eq!(latest.all().count(), 100);
    }

    #[test]
    fn a_thing_counts_with_its_newest_change_alone() {
        let mut latest = Latest::new(10, 100);
        for (thing, number) in [("a", 11), ("b", 12), ("a", 13)] {
            latest.set(thing, number);
        }
        assert_eq!(latest.since(10), Some(vec!["a", "b"]));
        assert_eq!(latest.since(12), Some(vec!["a"]));
        assert_eq!(latest.since(13), Some(vec![]));
        assert_eq!(latest.since(9), None);
    }
}
