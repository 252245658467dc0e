//! When a server that could not be reached is tried again.
//!
//! The pauses double from a second on, up to [`SHORT`] or a thirtieth of the time for which the
//! server has been away, whichever is longer, and never beyond the configured limit. So after an
//! outage of ten minutes the server is found again within half a minute, after one of two hours
//! within five minutes; and at once when it contacts this server.

use std::time::Duration;

use parlour_storage::schema::DestinationEntry;

/// The pause after the first failure, in milliseconds.
const FIRST: u64 = 1_000;

/// What pauses grow to in any case, in milliseconds.
const SHORT: u64 = 20_000;

/// Above [`SHORT`] a pause is this part of the time for which the server has been away.
const PART: u64 = 30;

/// A server that contacts this one but cannot be reached is not tried again sooner, in
/// milliseconds.
const IF_THERE: u64 = 15_000;

/// How attempts to reach a server have gone. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// How many attempts in a row have failed.
    pub(super) failures: u32,
    /// When the first of them was made.
    pub(super) since: u64,
    /// When the last of them was made.
    pub(super) last: u64,
    /// When the next one is due.
    pub(super) retry_at: u64,
}

impl Health {
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// An attempt has failed. The pause is at least as long as the other server `wants`; `jitter`
    /// moves it by up to a fifth.
    pub(super) fn failed(
        &mut self,
        now: u64,
        wants: Option<Duration>,
        jitter: u8,
        longest: Duration,
    ) {
        if !self.is_failing() {
            self.since = now;
        }
        let longest = millis(longest);
        let doubled = FIRST.saturating_mul(1 << self.failures.min(20));
        let pause = doubled.min(SHORT.max(now.saturating_sub(self.since) / PART)).min(longest);
        let pause = pause.max(wants.map_or(0, millis).min(longest));
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        self.retry_at = now.saturating_add(pause * 4 / 5 + pause * 2 / 5 * u64::from(jitter) / 255);
    }

    /// The server has contacted this one: the next attempt need not wait.
    pub(super) fn is_back(&mut self, now: u64) {
        let soonest = match self.failures {
            0 | 1 => now,
            // One that was made because of this has failed, too, or it came back in between.
            _ => self.last.saturating_add(IF_THERE).max(now),
        };
        self.retry_at = self.retry_at.min(soonest);
    }

    /// What is kept of it over a restart, beside what is known of the server.
    pub(super) fn entry(&self, known: DestinationEntry) -> DestinationEntry {
        let Self { failures, since: failing_since, last: last_attempt, retry_at } = *self;
        DestinationEntry { failures, failing_since, last_attempt, retry_at, ..known }
    }

    /// What was kept. If the clock has been set back the pause is not longer than the limit.
    pub(super) fn of(entry: &DestinationEntry, now: u64, longest: Duration) -> Self {
        Self {
            failures: entry.failures,
            since: entry.failing_since,
            last: entry.last_attempt,
            retry_at: entry.retry_at.min(now.saturating_add(millis(longest))),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const MIDDLE: u8 = 127;

    /// The pauses of a server that is away for so long, with the jitter in the middle.
    fn pauses(away: u64, jitter: u8) -> Vec<(u64, u64)> {
        let (mut health, mut now, mut pauses) = (Health::default(), 0, Vec::new());
        while now < away {
            health.failed(now, None, jitter, Duration::from_secs(3_600));
            pauses.push((now, health.retry_at - now));
            now = health.retry_at;
        }
        pauses
    }

    #[test]
    fn pauses_double_and_then_follow_the_outage() {
        let all = pauses(100 * HOUR, MIDDLE);
        let seconds: Vec<_> = all.iter().take(7).map(|(_, pause)| (pause + 500) / 1_000).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 20, 20]);
        for (away, pause) in &all {
            let bound = 20_000.max(away / 30).min(HOUR);
            assert!(*pause <= bound, "{pause} after {away}");
        }
        assert!(all.last().is_some_and(|(_, pause)| *pause > HOUR * 99 / 100));
        assert!(all.len() < 300, "{} attempts in a hundred hours", all.len());
    }

    #[test]
    fn a_short_outage_ends_within_half_a_minute() {
        for jitter in [0, u8::MAX] {
            assert!(pauses(10 * 60_000, jitter).iter().all(|(_, pause)| *pause <= 24_000));
        }
    }

    #[test]
    fn the_other_server_has_a_say() {
        let mut health = Health::default();
        health.failed(0, Some(Duration::from_secs(60)), MIDDLE, Duration::from_secs(3_600));
        assert!((59_000..=61_000).contains(&health.retry_at), "{}", health.retry_at);
        health.failed(0, Some(Duration::from_secs(86_400)), MIDDLE, Duration::from_secs(3_600));
        assert!(health.retry_at <= HOUR, "{}", health.retry_at);
    }

    #[test]
    fn who_comes_back_is_tried_at_once_but_not_for_ever() {
        let mut health = Health::default();
        health.failed(0, None, MIDDLE, Duration::from_secs(3_600));
        health.is_back(10);
        assert_eq!(health.retry_at, 10);
        for _ in 0..20 {
            health.failed(1_000_000, None, MIDDLE, Duration::from_secs(3_600));
        }
        health.is_back(1_001_000);
        assert_eq!(health.retry_at, 1_015_000);
        health.is_back(2_000_000);
        assert_eq!(health.retry_at, 1_015_000);
    }

    #[test]
    fn it_is_the_same_after_a_restart() {
        let mut health = Health::default();
        health.failed(5_000, None, MIDDLE, Duration::from_secs(3_600));
        let entry = health.entry(DestinationEntry::default());
        assert_eq!(Health::of(&entry, 5_000, Duration::from_secs(3_600)), health);
        let set_back = Health::of(&entry, 0, Duration::from_secs(1));
        assert_eq!(set_back.retry_at, 1_000);
    }
}
