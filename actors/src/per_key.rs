//! One of something for each key, for as long as somebody holds it: locks, semaphores.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Things by key. What nobody holds is gone.
#[derive(Debug)]
pub struct PerKey<K, T>(Mutex<HashMap<K, Weak<T>>>);

impl<K, T> Default for PerKey<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, T> PerKey<K, T> {
    /// The one of this key; a new one, if nobody holds it.
    pub fn get<Q>(&self, key: &Q, make: impl FnOnce() -> T) -> Arc<T>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = all.get(key).and_then(Weak::upgrade) {
            return held;
        }
        // There are no more of them than there are holders, which somebody else bounds.
        all.retain(|_, held| held.strong_count() > 0);
        let new = Arc::new(make());
        all.insert(key.to_owned(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_shared_and_nothing_else_is_kept() {
        let all = PerKey::<String, u32>::default();
        let one = all.get("one", || 1);
        assert!(Arc::ptr_eq(&one, &all.get("one", || 2)));
        for number in 0..100 {
            all.get(&number.to_string(), || number);
        }
        assert_eq!(all.0.lock().expect("lock").len(), 2);
        drop(one);
        assert_eq!(*all.get("one", || 3), 3);
    }
}
