//! Two kinds of time, in slices that alternate, so that what is measured in one can be compared with
//! the other.
//!
//! A machine has its own moods: a disk that stalls for half a second, a neighbour who builds. With one
//! half of each kind, a single stall decides which half is the worse one. In slices both kinds get
//! their share of whatever lasts; and the median of the slices' percentiles is the same whatever
//! happens in a few of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::{
    meter::{Series, histogram},
    report::table::number,
    schedule::Due,
};

/// This share of each slice, its beginning, counts for neither kind: what is left over of the slice
/// before it ends there.
const CHANGE: u32 = 5;

/// The percentiles that are compared.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// The odd ones of a row of slices are stormy, the even ones are quiet.
#[derive(Debug)]
pub(crate) struct Slices {
    begin: Instant,
    length: Duration,
    /// All quiet ones together, and all stormy ones.
    kinds: [Arc<Series>; 2],
    each: Mutex<Vec<Histogram<u64>>>,
}

impl Slices {
    /// So many of each kind, from `begin` on.
    pub(crate) fn new(
        begin: Instant,
        whole: Duration,
        of_each: u32,
        [quiet, stormy]: [Arc<Series>; 2],
    ) -> Self {
        let count = of_each * 2;
        let each = Mutex::new((0..count).map(|_| histogram()).collect());
        Self { begin, length: whole / count, kinds: [quiet, stormy], each }
    }

    /// The slice of a moment, and how much of it is over.
    fn at(&self, moment: Instant) -> Option<(usize, Duration)> {
        let since = moment.checked_duration_since(self.begin)?;
        let number = since.as_nanos().checked_div(self.length.as_nanos())?;
        let number = u32::try_from(number).ok()?;
        Some((number as usize, since - self.length * number))
    }

    /// When a storm may go on: at once, or when the next stormy slice begins.
    pub(crate) fn next_storm(&self, now: Instant) -> Instant {
        match self.at(now) {
            None => self.begin + self.length,
            Some((number, _)) if number % 2 == 1 => now,
            Some((_, over)) => now + (self.length - over),
        }
    }

    /// An operation is done that was due in one of them.
    pub(crate) fn done(&self, due: Due) {
        let Some((number, over)) = self.at(due.at) else { return };
        if over < self.length / CHANGE {
            return;
        }
        let took = due.at.elapsed();
        self.kinds[number % 2].record(took, due.counted);
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slice) = each.get_mut(number).filter(|_| due.counted) {
            // The bounds grow with what comes.
            let _ = slice.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    /// What the storm does to `what`, in words.
    pub(crate) fn compare(&self, what: &str) -> Vec<String> {
        let [quiet, stormy] = self.kinds.each_ref().map(|series| series.total());
        if quiet.is_empty() || stormy.is_empty() {
            return Vec::new();
        }
        let all = PERCENTILES.map(|(name, part)| {
            let [quiet, stormy] = [&quiet, &stormy].map(|all| all.value_at_quantile(part) as f64);
            pair(name, quiet, stormy)
        });
        let mut said = vec![format!("{what}, quiet / in the storm: {}", all.join(", "))];
        let each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let [quiet, stormy] = [0, 1].map(|kind| {
            let slices = each.iter().skip(kind).step_by(2).filter(|slice| !slice.is_empty());
            median(slices.map(|slice| slice.value_at_quantile(0.99)).collect())
        });
        if let Some((quiet, stormy)) = quiet.zip(stormy) {
            let median = pair("p99", quiet, stormy);
            said.push(format!(
                "the median of {} slices of {:.1} s each, quiet / in the storm: {median}",
                each.len() / 2,
                self.length.as_secs_f64()
            ));
        }
        said
    }
}

/// Two latencies in microseconds.
fn pair(name: &str, quiet: f64, stormy: f64) -> String {
    let [before, during] = [quiet, stormy].map(|micros| number(micros / 1e3));
    let times = number(stormy / quiet.max(f64::EPSILON));
    format!("{name} {before} / {during} ms, {times} times as much")
}

fn median(mut values: Vec<u64>) -> Option<f64> {
    values.sort_unstable();
    let middle = values.len() / 2;
    let upper = *values.get(middle)? as f64;
    Some(match values.len() % 2 {
        0 => (upper + values[middle - 1] as f64) / 2.0,
        _ => upper,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Meter;

    const SECOND: Duration = Duration::from_secs(1);

    fn slices(meter: &Meter) -> Slices {
        let kinds = ["quiet", "stormy"].map(|name| meter.series(name));
        Slices::new(Instant::now(), SECOND * 20, 10, kinds)
    }

    #[tokio::test(start_paused = true)]
    async fn one_stall_decides_nothing() {
        let meter = Meter::new(None);
        let slices = slices(&meter);
        for tick in 0..200_u64 {
            let due = Due { at: Instant::now(), counted: true };
            // The second quiet slice is stalled.
            let took = if (20..30).contains(&tick) { 90 } else { 10 + tick / 10 % 2 * 10 };
            tokio::time::advance(Duration::from_millis(took)).await;
            slices.done(due);
            tokio::time::advance(Duration::from_millis(100 - took)).await;
        }
        let said = slices.compare("sends");
        assert!(said[0].contains("p50 10.0 / 20.0 ms, 2.00 times as much"), "{said:?}");
        assert!(said[0].contains("p99 90") && said[1].contains("p99 10.0 / 20.0 ms"), "{said:?}");
        // A fifth of each slice is left out.
        assert_eq!(meter.series("quiet").total().len(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn storms_come_and_go() {
        let slices = slices(&Meter::new(None));
        let begin = slices.begin;
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(slices.next_storm(at(0)), at(1_000));
        assert_eq!(slices.next_storm(at(1_500)), at(1_500));
        assert_eq!(slices.next_storm(at(2_250)), at(3_000));
        assert!(slices.compare("sends").is_empty());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3, 1, 2]), Some(2.0));
        assert_eq!(median(vec![4, 1, 2, 3]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
