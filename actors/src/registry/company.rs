//! Whether whoever asks is the only one who does.
//!
//! A lone request may be worked on where it comes from. Many together must not: each of them would
//! wait for a flush of its own, where the persister has one for all. That requests are in flight at
//! the same time says too little, since a thread that works in place has not read yet what others
//! want of it; so it also matters who has asked last, and how long ago.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ruma::UserId;

use crate::room::messages::Queue;

/// Whoever asks this long after everybody else has nobody beside it: less often than this, flushes
/// of their own cost nobody anything.
const LONG_AGO: Duration = Duration::from_millis(1);

/// Who has asked last, and when. What threads note at the same time may mix: it is a guess.
#[derive(Debug, Default)]
pub(super) struct Company {
    asker: AtomicU64,
    /// In microseconds, on the monotonic clock.
    asked: AtomicU64,
}

impl Company {
    /// Notes who asks, if that is known and a local user, and at what time. Says whether nobody
    /// else does; `queue` is the server's, in which this request has its place.
    pub(super) fn is_absent(&self, asker: Option<&UserId>, now: Duration, queue: &Queue) -> bool {
        let asker = asker
            .map_or(0, |user| BuildHasherDefault::<DefaultHasher>::default().hash_one(user).max(1));
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let last = self.asker.swap(asker, Ordering::Relaxed);
        let since = now.saturating_sub(self.asked.swap(now, Ordering::Relaxed));
        let is_the_same = asker != 0 && asker == last;
        queue.taken() == 1 && (is_the_same || u128::from(since) >= LONG_AGO.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn who_is_alone() {
        let (company, queue) = (Company::default(), Queue::new(4));
        let _own = queue.enter();
        let at = Duration::from_micros;
        let (alice, bob) = (Some(user_id!("@alice:x")), Some(user_id!("@bob:x")));
        for (asker, now, is_alone, why) in [
            (alice, 10_000, true, "the first"),
            (alice, 10_050, true, "the same one, at once"),
            (bob, 10_100, false, "somebody else, at once"),
            (alice, 10_150, false, "and in turn"),
            (alice, 10_200, true, "bob asks no more"),
            (bob, 11_200, true, "somebody else, later"),
            (None, 11_300, false, "nobody known, at once"),
            (None, 11_400, false, "which may be two"),
            (None, 12_400, true, "nobody known, later"),
        ] {
            assert_eq!(company.is_absent(asker, at(now), &queue), is_alone, "{why}");
        }
        let _other = queue.enter();
        assert!(!company.is_absent(bob, at(99_000), &queue), "another one is in flight");
    }
}
