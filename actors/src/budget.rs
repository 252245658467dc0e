//! Shares of a server's memory budget: whoever takes memory takes it from a share, so that what is
//! taken is known and bounded. The table of shares is in docs/architecture.md.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A share. Clones are the same.
#[derive(Debug, Clone)]
pub struct Share(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    used: AtomicU64,
}

/// A part that is taken from a share, and given back when this is dropped.
#[derive(Debug)]
pub struct Part {
    share: Share,
    bytes: u64,
}

impl Share {
    /// Of so many bytes, of which none are taken yet.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner { limit, used: AtomicU64::new(0) }))
    }

    /// How many bytes there are to be taken.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// How many bytes are taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether more is taken than there is: whoever uses [`Share::count`] makes room then.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.used() > self.limit()
    }

    /// Takes so many bytes. `None` if there are not so many left: then the work that needs them is
    /// refused. What is alone gets as much as it wants, or a small budget would refuse it for ever.
    #[must_use]
    pub fn take(&self, bytes: u64) -> Option<Part> {
        let mut part = self.count(0);
        part.grow(bytes).then_some(part)
    }

    /// Notes that so many bytes are taken by what cannot be refused.
    #[must_use]
    pub fn count(&self, bytes: u64) -> Part {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Part { share: self.clone(), bytes }
    }
}

impl Part {
    /// Takes more; `false` if there is not so much left, and nothing more is taken then.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let Inner { limit, used } = &*self.share.0;
        let own = self.bytes;
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let after = used.saturating_add(bytes);
            (after <= *limit || used == own).then_some(after)
        });
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// How many bytes it is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes that it is so many bytes now.
    pub fn set(&mut self, bytes: u64) {
        let used = &self.share.0.used;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.share.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let share = Share::new(10);
        let mut first = share.take(4).expect("there are 10");
        let second = share.take(6).expect("there are 6");
        assert!(share.take(1).is_none());
        assert!(!first.grow(1));
        assert_eq!(share.used(), 10, "what was refused has taken nothing");
        drop(second);
        assert!(first.grow(6));
        first.set(2);
        assert_eq!(share.used(), 2);
        drop(first);
        assert_eq!(share.used(), 0);
    }

    #[test]
    fn what_is_alone_is_never_refused() {
        let share = Share::new(10);
        let mut alone = share.take(8).expect("there are 10");
        assert!(alone.grow(100));
        assert!(share.is_over());
        assert!(share.take(1).is_none());
    }

    #[test]
    fn what_cannot_be_refused_is_counted() {
        let share = Share::new(10);
        let part = share.count(11);
        assert!(share.is_over());
        drop(part);
        assert!(!share.is_over());
    }
}
