//! When the next operation is due.
//!
//! *Closed loop*: each worker goes on as soon as it is answered, so a slow server is asked less.
//! *Open loop*: operations are due at a fixed rate, whatever the server does, and their latency is
//! measured from the moment in which they were due. A server that stalls for a second is then seen
//! with all operations that would have been made in that second, and not with one per worker (what
//! Gil Tene calls coordinated omission).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// How exactly the timer wakes: being late by less is its fault, and not the server's.
const TIMER: Duration = Duration::from_millis(1);

/// How much is to be done, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Operations per second of all workers together; `None`: closed loop.
    pub(crate) rate: Option<f64>,
    /// At the beginning, what does not count.
    pub(crate) warm_up: Duration,
    /// How long to measure at most, after the warm-up.
    pub(crate) duration: Option<Duration>,
    /// How many operations to measure at most.
    pub(crate) count: Option<u64>,
}

/// One operation that is to be made now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// When it should have begun.
    pub(crate) at: Instant,
    /// Whether it counts: the warm-up is over.
    pub(crate) counted: bool,
}

/// A plan that has begun.
#[derive(Debug)]
pub(crate) struct Schedule {
    plan: Plan,
    start: Instant,
    /// Measured operations that have been handed out.
    begun: AtomicU64,
    /// Operations that were due and never begun.
    missed: AtomicU64,
    /// Whether it ends before its time.
    stop: watch::Sender<bool>,
}

impl Schedule {
    /// Begins now.
    pub(crate) fn begin(plan: Plan) -> Arc<Self> {
        let (begun, missed) = (AtomicU64::new(0), AtomicU64::new(0));
        let (start, stop) = (Instant::now(), watch::Sender::new(false));
        Arc::new(Self { plan, start, begun, missed, stop })
    }

    /// Ends it before its time: no operation begins any more.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until then, or until it is stopped.
    pub(crate) async fn sleep_until(&self, at: Instant) {
        let mut stopped = self.stop.subscribe();
        tokio::select! {
            () = sleep_until(at) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }

    /// When the warm-up is over.
    pub(crate) fn measured_from(&self) -> Instant {
        self.start + self.plan.warm_up
    }

    /// When the last operation may begin, if time is what limits them.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.plan.duration.map(|duration| self.measured_from() + duration)
    }

    /// Operations that were due and never begun, because the server did not keep up.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// How much of it is done, from 0 to 1.
    pub(crate) fn progress(&self) -> f64 {
        let now = Instant::now();
        let by_time = self.end().map(|end| {
            let whole = (end - self.start).as_secs_f64().max(f64::EPSILON);
            (now - self.start).as_secs_f64() / whole
        });
        let by_count = self
            .plan
            .count
            .map(|count| self.begun.load(Ordering::Relaxed) as f64 / (count.max(1) as f64));
        by_time.into_iter().chain(by_count).fold(0.0, f64::max).min(1.0)
    }

    /// The pace of one of `of` workers. Their operations are spread evenly.
    pub(crate) fn pacer(self: &Arc<Self>, worker: usize, of: usize) -> Pacer {
        let step = self.plan.rate.map(|rate| Duration::from_secs_f64(of as f64 / rate));
        let first = step.map_or(Duration::ZERO, |step| step.mul_f64(worker as f64 / of as f64));
        Pacer { schedule: self.clone(), step, next: self.start + first }
    }

    /// Whether nothing may begin any more at this time.
    pub(crate) fn ended(&self, at: Instant) -> bool {
        *self.stop.borrow() || self.end().is_some_and(|end| at >= end)
    }

    /// Whether one more may be measured.
    fn admit(&self, counted: bool) -> bool {
        let Some(count) = self.plan.count.filter(|_| counted) else { return true };
        self.begun.fetch_add(1, Ordering::Relaxed) < count
    }
}

/// Tells one worker when to go on.
#[derive(Debug)]
pub(crate) struct Pacer {
    schedule: Arc<Schedule>,
    /// Between two operations of this worker, in an open loop.
    step: Option<Duration>,
    next: Instant,
}

impl Pacer {
    /// Waits until the next operation is due; `None` when all is done.
    pub(crate) async fn due(&mut self) -> Option<Due> {
        let at = match self.step {
            None => Instant::now(),
            Some(step) => self.wait(step).await?,
        };
        let counted = at >= self.schedule.measured_from();
        let admitted = !self.schedule.ended(at) && self.schedule.admit(counted);
        admitted.then_some(Due { at, counted })
    }

    async fn wait(&mut self, step: Duration) -> Option<Instant> {
        let (due, now) = (self.next, Instant::now());
        if let Some(end) = self.schedule.end() {
            if now >= end {
                let late = end.saturating_duration_since(due).as_secs_f64() / step.as_secs_f64();
                self.schedule.missed.fetch_add(late.ceil() as u64, Ordering::Relaxed);
                return None;
            }
            if due >= end {
                // The span that is measured ends with the schedule, and not with its last operation.
                self.schedule.sleep_until(end).await;
                return None;
            }
        }
        self.next += step;
        if due <= now {
            return Some(due);
        }
        self.schedule.sleep_until(due).await;
        Some(Instant::now().min(due + TIMER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rate: Option<f64>, count: u64) -> Plan {
        Plan { rate, warm_up: Duration::ZERO, duration: None, count: Some(count) }
    }

    #[tokio::test]
    async fn a_count_is_kept_by_all_workers_together() {
        let schedule = Schedule::begin(plan(None, 10));
        let (mut left, mut right) = (schedule.pacer(0, 2), schedule.pacer(1, 2));
        let mut made = 0;
        while left.due().await.is_some() {
            made += 1 + usize::from(right.due().await.is_some());
        }
        assert_eq!(made, 10);
        assert!((schedule.progress() - 1.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn what_is_due_does_not_wait_for_who_is_slow() {
        let schedule = Schedule::begin(plan(Some(1_000.0), 3));
        let mut pacer = schedule.pacer(0, 1);
        let first = pacer.due().await.expect("the first");
        // The server answers late: two more are due by then, and keep the times they were due at.
        sleep_until(first.at + Duration::from_millis(20)).await;
        let second = pacer.due().await.expect("the second");
        let third = pacer.due().await.expect("the third");
        assert_eq!(third.at - second.at, Duration::from_millis(1));
        assert!(second.at - first.at <= Duration::from_millis(1));
        assert!(pacer.due().await.is_none());
    }

    #[tokio::test]
    async fn what_was_never_begun_is_counted() {
        let duration = Some(Duration::from_millis(50));
        let schedule = Schedule::begin(Plan { duration, count: None, ..plan(Some(1_000.0), 0) });
        let mut pacer = schedule.pacer(0, 1);
        pacer.due().await.expect("the first");
        sleep_until(schedule.end().expect("an end")).await;
        assert!(pacer.due().await.is_none());
        assert_eq!(schedule.missed(), 49);
    }

    #[tokio::test]
    async fn who_waits_for_what_is_due_is_told_to_stop() {
        // One operation in an hour: only the first one is ever due.
        let schedule = Schedule::begin(plan(Some(1.0 / 3_600.0), 10));
        let mut pacer = schedule.pacer(0, 1);
        pacer.due().await.expect("the first");
        let waiting = tokio::spawn(async move { pacer.due().await });
        schedule.stop();
        assert!(waiting.await.expect("it ends").is_none());
    }

    #[tokio::test]
    async fn the_warm_up_does_not_count() {
        let warm_up = Duration::from_secs(3_600);
        let schedule = Schedule::begin(Plan { warm_up, ..plan(None, 0) });
        let due = schedule.pacer(0, 1).due().await.expect("it may begin");
        assert!(!due.counted);
    }
}
