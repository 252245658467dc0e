//! What is measured while a scenario runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::{
    error::Failure,
    process::{Processes, Usage, own},
    record::{Moment, Rate},
    schedule::Due,
};

/// Three digits are kept of each latency.
const DIGITS: u8 = 3;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty one.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!("three digits are allowed"))
}

/// The latencies of one kind of operation, in microseconds.
#[derive(Debug)]
pub(crate) struct Series {
    name: &'static str,
    inner: Mutex<Latencies>,
}

#[derive(Debug)]
struct Latencies {
    /// Since the last look.
    recent: Histogram<u64>,
    /// All that counts.
    total: Histogram<u64>,
}

impl Series {
    /// An operation is done now.
    pub(crate) fn done(&self, due: Due) {
        self.record(due.at.elapsed(), due.counted);
    }

    /// An operation took this long.
    pub(crate) fn record(&self, took: Duration, counted: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut inner = lock(&self.inner);
        // The bounds grow with what comes, so it always finds its place.
        let _ = inner.recent.record(micros);
        if counted {
            let _ = inner.total.record(micros);
        }
    }

    /// All that counts.
    pub(crate) fn total(&self) -> Histogram<u64> {
        lock(&self.inner).total.clone()
    }

    /// What kind of operation it is.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// All that is measured of a run.
#[derive(Debug)]
pub(crate) struct Meter {
    series: Mutex<Vec<Arc<Series>>>,
    /// Failures, by what they are called.
    errors: Mutex<BTreeMap<String, u64>>,
    server: Option<Processes>,
}

impl Meter {
    pub(crate) fn new(server: Option<Processes>) -> Self {
        Self { series: Mutex::default(), errors: Mutex::default(), server }
    }

    /// The series of this name. The first that is asked for is the one that the scenario is about.
    pub(crate) fn series(&self, name: &'static str) -> Arc<Series> {
        let mut all = lock(&self.series);
        if let Some(known) = all.iter().find(|series| series.name == name) {
            return known.clone();
        }
        let inner = Latencies { recent: histogram(), total: histogram() };
        let series = Arc::new(Series { name, inner: Mutex::new(inner) });
        all.push(series.clone());
        series
    }

    /// All series, the most important one first.
    pub(crate) fn all(&self) -> Vec<Arc<Series>> {
        lock(&self.series).clone()
    }

    /// Something failed.
    pub(crate) fn failed(&self, failure: &Failure) {
        *lock(&self.errors).entry(failure.label().into_owned()).or_default() += 1;
    }

    /// What failed, by what it is called.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }

    /// The server's processes, if they can be seen.
    pub(crate) fn processes(&self) -> Option<&Processes> {
        self.server.as_ref()
    }

    /// What the server uses, if it can be seen.
    pub(crate) fn server(&self) -> Option<Usage> {
        self.server.as_ref().map(Processes::usage)
    }

    /// What has happened since the last call, which was `elapsed` ago; `at` is the time since the
    /// run began.
    pub(crate) fn look(&self, at: Duration, elapsed: Duration, warming_up: bool) -> Moment {
        let rates = self.all().into_iter().map(|series| {
            let mut inner = lock(&series.inner);
            let rate = Rate::of(&inner.recent, elapsed);
            inner.recent.reset();
            (series.name.to_owned(), rate)
        });
        Moment {
            at: at.as_secs_f64(),
            warming_up,
            series: rates.collect(),
            errors: self.errors().values().sum(),
            server: self.server(),
            generator: own(),
        }
    }
}

/// CPU and time at a moment, to subtract.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    pub(crate) server: Option<Usage>,
    pub(crate) generator: Usage,
}

impl Mark {
    pub(crate) fn now(meter: &Meter) -> Self {
        Self { at: Instant::now(), server: meter.server(), generator: own() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_kept_and_what_is_recent_is_told_once() {
        let meter = Meter::new(None);
        let series = meter.series("send");
        series.record(Duration::from_millis(500), false);
        for millis in 1..=100 {
            series.record(Duration::from_millis(millis), true);
        }
        meter.failed(&Failure::Timeout(Duration::ZERO));
        assert_eq!(series.total().len(), 100);
        let slowest = series.total().max();
        assert!((99_000..101_000).contains(&slowest), "{slowest}");
        let moment = meter.look(Duration::from_secs(1), Duration::from_secs(2), false);
        let rate = &moment.series["send"];
        assert_eq!((rate.count, moment.errors), (101, 1));
        assert!((rate.per_second - 50.5).abs() < 1e-9);
        assert!((rate.p50 - 51.0).abs() < 1.0 && rate.max >= 500.0, "{rate:?}");
        let quiet = meter.look(Duration::from_secs(2), Duration::from_secs(1), false);
        assert_eq!(quiet.series["send"].count, 0);
    }
}
