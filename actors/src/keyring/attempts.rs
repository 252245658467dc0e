//! When a server may be asked for its keys again.

use std::num::NonZero;

use lru::LruCache;
use ruma::{OwnedServerName, ServerName};

/// Whoever has just answered is not asked again so soon, whatever keys others speak of.
const AFTER_ANSWER: u64 = 60_000;

/// The wait after a first failure, in milliseconds; it doubles with each further one.
const AFTER_FAILURE: u64 = 5_000;

/// The longest wait, in milliseconds.
pub(super) const LONGEST: u64 = 3_600_000;

/// The longest wait where somebody says that they are that server, and there.
pub(super) const LONGEST_IF_THERE: u64 = 60_000;

/// Whoever has not answered for this long, in milliseconds, is not expected to do so soon.
const HOPELESS: u64 = 300_000;

/// What came of asking servers. Those that were not asked for longest are forgotten.
#[derive(Debug)]
pub(super) struct Attempts(LruCache<OwnedServerName, Attempt>);

#[derive(Debug, Clone, Copy)]
struct Attempt {
    at: u64,
    /// 0 if there was an answer.
    failures: u32,
    /// When the first of these failures was.
    since: u64,
}

impl Attempt {
    fn wait(self) -> u64 {
        match self.failures {
            0 => AFTER_ANSWER,
            failures => AFTER_FAILURE << (failures - 1).min(20),
        }
    }
}

impl Attempts {
    pub(super) fn new(remembered: NonZero<usize>) -> Self {
        Self(LruCache::new(remembered))
    }

    /// Whether a server may be asked now. If so it counts as failed until an answer is noted, so
    /// that whoever gives up waiting leaves a trace, too.
    pub(super) fn begin(&mut self, server: &ServerName, now: u64, longest: u64) -> bool {
        let last = self.0.get(server).copied();
        if last.is_some_and(|last| now < last.at.saturating_add(last.wait().min(longest))) {
            return false;
        }
        let failing = last.filter(|last| last.failures > 0);
        let failures = failing.map_or(0, |last| last.failures).saturating_add(1);
        let since = failing.map_or(now, |last| last.since);
        self.0.put(server.to_owned(), Attempt { at: now, failures, since });
        true
    }

    /// A server has answered.
    pub(super) fn answered(&mut self, server: &ServerName, now: u64) {
        self.0.put(server.to_owned(), Attempt { at: now, failures: 0, since: now });
    }

    /// Whether a server has not answered when it was last asked, but has not failed for long.
    pub(super) fn has_just_failed(&self, server: &ServerName, now: u64) -> bool {
        let attempt = self.0.peek(server).filter(|attempt| attempt.failures > 0);
        attempt.is_some_and(|attempt| now < attempt.since.saturating_add(HOPELESS))
    }

    /// A server has shown that it is there: whatever failed before says nothing any more.
    pub(super) fn forget_failures(&mut self, server: &ServerName) {
        if self.0.peek(server).is_some_and(|attempt| attempt.failures > 0) {
            self.0.pop(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let far = <&ServerName>::try_from("far.org").expect("a name");
        let waits = |longest: u64| {
            let mut attempts = Attempts::new(NonZero::new(10).expect("ten"));
            let mut tried = (0..14_400_000).step_by(5_000);
            let mut tried: Vec<u64> =
                tried.by_ref().filter(|now| attempts.begin(far, *now, longest)).collect();
            tried.truncate(13);
            tried.windows(2).map(|pair| (pair[1] - pair[0]) / 5_000).collect::<Vec<_>>()
        };
        assert_eq!(waits(LONGEST), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 720, 720]);
        assert_eq!(waits(LONGEST_IF_THERE), [1, 2, 4, 8, 12, 12, 12, 12, 12, 12, 12, 12]);
    }

    #[test]
    fn who_fails_for_minutes_is_not_waited_for() {
        let far = <&ServerName>::try_from("far.org").expect("a name");
        let mut attempts = Attempts::new(NonZero::new(10).expect("ten"));
        assert!(!attempts.has_just_failed(far, 0));
        // However often it is asked meanwhile.
        for start in [1_000, 900_000] {
            assert!(attempts.begin(far, start, LONGEST));
            assert!(attempts.has_just_failed(far, start));
            assert!(attempts.begin(far, start + 200_000, LONGEST));
            assert!(attempts.has_just_failed(far, start + HOPELESS - 1));
            assert!(!attempts.has_just_failed(far, start + HOPELESS));
            attempts.answered(far, start + HOPELESS);
            assert!(!attempts.has_just_failed(far, start + HOPELESS));
        }
    }

    #[test]
    fn an_answer_ends_the_failures() {
        let far = <&ServerName>::try_from("far.org").expect("a name");
        let mut attempts = Attempts::new(NonZero::new(10).expect("ten"));
        assert!(attempts.begin(far, 0, LONGEST));
        attempts.answered(far, 10);
        assert!(!attempts.begin(far, 9 + AFTER_ANSWER, LONGEST));
        assert!(attempts.begin(far, 10 + AFTER_ANSWER, LONGEST));
        assert!(!attempts.begin(far, 10 + AFTER_ANSWER, LONGEST));
        attempts.forget_failures(far);
        assert!(attempts.begin(far, 10 + AFTER_ANSWER, LONGEST));
    }
}
