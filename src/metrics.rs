//! Prometheus metrics: one registry per server, nothing global.

use std::{fmt, sync::Arc, time::Duration};

use parlour_actors::{Rooms, federation_queue::Overview, metrics::Stage};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use ruma::OwnedRoomId;

use crate::memory::Taken;

/// Latencies from 100 microseconds (a cached read) to half a minute (a long-poll).
const LATENCY: &[f64] =
    &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];

/// What single stages take: from a few microseconds to a disk that hangs.
const STAGE: &[f64] = &[
    0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01,
    0.02, 0.05, 0.1, 0.5, 1.0, 10.0,
];

/// How many rooms are named by the queue depth metric.
const BUSIEST_ROOMS: usize = 10;

/// Who takes how much memory, in bytes.
#[derive(Clone)]
struct Memory {
    taken: IntGaugeVec,
    shares: IntGaugeVec,
    process: IntGauge,
}

/// What goes to other servers.
#[derive(Clone)]
struct Federation {
    transactions: IntCounterVec,
    events_refused: IntCounter,
    edus_dropped: IntCounter,
    to_device_dropped: IntCounterVec,
    waiting: IntGauge,
    failing: IntGauge,
    oldest: IntGauge,
}

/// All metrics of one server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    refused: IntCounterVec,
    room_queues: IntGaugeVec,
    federation: Federation,
    memory: Memory,
    /// One for each [`Stage`], in their order.
    stages: Arc<[Histogram]>,
    /// From the beginning of a group of commits until it is durable and in the index, in seconds.
    pub commit_seconds: Histogram,
    /// One flush of the event log (`fdatasync`), in seconds.
    pub flush_seconds: Histogram,
    /// One state resolution, in seconds.
    pub state_resolution_seconds: Histogram,
    /// Setting a room up from storage, in seconds.
    pub room_wake_seconds: Histogram,
    /// Messages that waited for devices and were dropped.
    messages_dropped: IntCounter,
    /// Syncs that were woken.
    pub sync_wakeups: IntCounter,
    /// Syncs that were told of messages from what all receivers share.
    pub shared_deliveries: IntCounter,
    /// Syncs that wait now.
    pub parked_syncs: IntGauge,
    /// Requests that wait without what serves their connections.
    pub requests_aside: IntGauge,
    /// Rooms whose actors are awake.
    pub active_rooms: IntGauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A registry of its own with all of Parlour's metrics in it.
    ///
    /// # Errors
    /// A name is malformed or taken: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = register(
            &registry,
            HistogramVec::new(
                latency("http_request_seconds", "HTTP requests by path template"),
                &["path", "method", "status"],
            )?,
        )?;
        let refused = register(
            &registry,
            IntCounterVec::new(
                Opts::new("parlour_refused_requests_total", "Requests refused, by reason"),
                &["reason"],
            )?,
        )?;
        let depth = "Requests that wait for the busiest rooms";
        let room_queues = register(
            &registry,
            IntGaugeVec::new(Opts::new("parlour_room_queue_depth", depth), &["room"])?,
        )?;
        let histogram =
            |name, help| register(&registry, Histogram::with_opts(latency(name, help))?);
        Ok(Self {
            commit_seconds: histogram("commit_seconds", "One group of commits, until readable")?,
            flush_seconds: histogram("flush_seconds", "One flush of the event log")?,
            state_resolution_seconds: histogram("state_resolution_seconds", "State resolutions")?,
            room_wake_seconds: histogram("room_wake_seconds", "Setting rooms up from storage")?,
            messages_dropped: register(
                &registry,
                IntCounter::new(
                    "parlour_to_device_inbox_dropped_total",
                    "Messages that were dropped since very many wait for their device",
                )?,
            )?,
            sync_wakeups: register(
                &registry,
                IntCounter::new("parlour_sync_wakeups_total", "Syncs that were woken")?,
            )?,
            shared_deliveries: register(
                &registry,
                IntCounter::new(
                    "parlour_sync_shared_total",
                    "Syncs that were told of messages from what all receivers share",
                )?,
            )?,
            parked_syncs: register(
                &registry,
                IntGauge::new("parlour_parked_syncs", "Syncs that wait now")?,
            )?,
            requests_aside: register(
                &registry,
                IntGauge::new(
                    "parlour_requests_aside",
                    "Requests whose connections keep nothing else while they wait",
                )?,
            )?,
            active_rooms: register(
                &registry,
                IntGauge::new("parlour_active_rooms", "Rooms whose actors are awake")?,
            )?,
            federation: Federation::new(&registry)?,
            memory: Memory::new(&registry)?,
            stages: stages(&registry)?,
            registry,
            requests,
            refused,
            room_queues,
        })
    }

    /// Counts one answered request. `template` is the path with its variables unfilled.
    pub fn request(&self, template: &str, method: &str, status: u16, took: Duration) {
        let class = match status {
            0..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[template, method, class]).observe(took.as_secs_f64());
    }

    /// Counts one refused request; `reason` is one of a few fixed words.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Adds a histogram of seconds; the name gets the prefix `parlour_`.
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        register(&self.registry, Histogram::with_opts(latency(name, help))?)
    }

    /// Adds a counter; the name gets the prefix `parlour_`.
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        register(&self.registry, IntCounter::new(format!("parlour_{name}"), help)?)
    }

    /// Adds a metric that was made elsewhere, with the prefix `parlour_`.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add<C: Collector + Clone + 'static>(&self, made: C) -> Result<C, prometheus::Error> {
        register(&self.registry, made)
    }

    /// Adds a gauge; the name gets the prefix `parlour_`.
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        register(&self.registry, IntGauge::new(format!("parlour_{name}"), help)?)
    }

    /// Takes down how rooms are at this moment. Done for each scrape, so that rooms that were busy
    /// once leave no label behind.
    pub fn look_at_rooms(&self, rooms: &Rooms) {
        self.active_rooms.set(i64::try_from(rooms.awake()).unwrap_or(i64::MAX));
        self.show_busiest(&rooms.busiest(BUSIEST_ROOMS));
    }

    /// Takes down how the queues for other servers are at this moment.
    pub fn look_at_queues(&self, overview: &Overview) {
        let Overview { waiting, failing, oldest_wait } = *overview;
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.federation.waiting.set(number(waiting));
        self.federation.failing.set(number(failing));
        self.federation.oldest.set(i64::try_from(oldest_wait.as_secs()).unwrap_or(i64::MAX));
    }

    /// Takes down what the parts of the memory budget take, and the whole process.
    pub fn look_at_memory(&self, taken: &[Taken], process: Option<u64>) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for part in taken {
            self.memory.taken.with_label_values(&[part.user]).set(bytes(part.bytes));
            self.memory.shares.with_label_values(&[part.user]).set(bytes(part.share));
        }
        self.memory.process.set(process.map_or(0, bytes));
    }

    fn show_busiest(&self, busiest: &[(OwnedRoomId, usize)]) {
        self.room_queues.reset();
        for (room, depth) in busiest {
            let depth = i64::try_from(*depth).unwrap_or(i64::MAX);
            self.room_queues.with_label_values(&[room.as_str()]).set(depth);
        }
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// Two metrics contradict each other.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Memory {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let parts =
            |name, help| register(registry, IntGaugeVec::new(Opts::new(name, help), &["user"])?);
        Ok(Self {
            taken: parts("parlour_memory_bytes", "Memory that is taken, by part of the budget")?,
            shares: parts("parlour_memory_share_bytes", "Memory that each part may take")?,
            process: register(
                registry,
                IntGauge::new("parlour_process_resident_bytes", "Memory of the whole process")?,
            )?,
        })
    }
}

impl Federation {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let outcomes = "Transactions to other servers, by what came of them";
        let outcomes = Opts::new("parlour_federation_transactions_total", outcomes);
        let dropped = "Messages for devices of other servers' users that were dropped, by why";
        let dropped = Opts::new("parlour_to_device_dropped_total", dropped);
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        Ok(Self {
            transactions: register(registry, IntCounterVec::new(outcomes, &["outcome"])?)?,
            events_refused: counter(
                "parlour_federation_events_refused_total",
                "Events that other servers did not want",
            )?,
            edus_dropped: counter(
                "parlour_federation_edus_dropped_total",
                "What servers that are away or slow were not told of typing, receipts, presence",
            )?,
            to_device_dropped: register(registry, IntCounterVec::new(dropped, &["reason"])?)?,
            waiting: gauge(
                "parlour_federation_waiting_destinations",
                "Servers for which events wait",
            )?,
            failing: gauge(
                "parlour_federation_failing_destinations",
                "Servers that could not be reached the last time",
            )?,
            oldest: gauge(
                "parlour_federation_oldest_waiting_seconds",
                "How long the oldest event for another server has waited",
            )?,
        })
    }
}

/// What the actors measure. Wake-ups are counted where syncs wake.
impl parlour_actors::metrics::Metrics for Metrics {
    fn stage(&self, stage: Stage, took: Duration) {
        if let Some(histogram) = self.stages.get(stage as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }

    fn committed(&self, _changes: usize, flush: Duration, total: Duration) {
        self.flush_seconds.observe(flush.as_secs_f64());
        self.commit_seconds.observe(total.as_secs_f64());
    }

    fn room_refused(&self, _room_id: &str, _queued: usize) {
        self.refused("room_busy");
    }

    fn room_woken(&self, took: Duration) {
        self.room_wake_seconds.observe(took.as_secs_f64());
    }

    fn room_panicked(&self) {
        self.refused("room_panicked");
    }

    fn transaction(&self, outcome: &'static str) {
        self.federation.transactions.with_label_values(&[outcome]).inc();
    }

    fn events_refused(&self, events: usize) {
        self.federation.events_refused.inc_by(events as u64);
    }

    fn edus_dropped(&self, edus: usize) {
        self.federation.edus_dropped.inc_by(edus as u64);
    }

    fn posted_dropped(&self, reason: &'static str, edus: usize) {
        self.federation.to_device_dropped.with_label_values(&[reason]).inc_by(edus as u64);
    }

    fn messages_dropped(&self, messages: usize) {
        self.messages_dropped.inc_by(messages as u64);
    }

    fn resolved(&self, took: Duration) {
        self.state_resolution_seconds.observe(took.as_secs_f64());
    }
}

fn stages(registry: &Registry) -> Result<Arc<[Histogram]>, prometheus::Error> {
    let help = "What events go through, stage by stage";
    let options = HistogramOpts::new("parlour_stage_seconds", help).buckets(STAGE.to_vec());
    let all = register(registry, HistogramVec::new(options, &["stage"])?)?;
    Ok(Stage::ALL.iter().map(|stage| all.with_label_values(&[stage.name()])).collect())
}

fn latency(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(format!("parlour_{name}"), help).buckets(LATENCY.to_vec())
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().expect("render")).expect("UTF-8")
    }

    #[test]
    fn requests_are_counted_by_template_and_class() {
        let metrics = Metrics::new().expect("metrics");
        metrics.request("/rooms/{room_id}", "PUT", 200, Duration::from_millis(2));
        metrics.request("/rooms/{room_id}", "PUT", 404, Duration::from_millis(2));
        metrics.refused("rate_limit");
        let text = text(&metrics);
        let count = r#"parlour_http_request_seconds_count{method="PUT",path="/rooms/{room_id}",status="4xx"} 1"#;
        assert!(text.contains(count), "{text}");
        assert!(
            text.contains(r#"parlour_refused_requests_total{reason="rate_limit"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn rooms_that_are_not_busy_any_more_are_not_shown() {
        let metrics = Metrics::new().expect("metrics");
        let room = |name: &str| OwnedRoomId::try_from(name).expect("a room id");
        metrics.show_busiest(&[(room("!a:x"), 7), (room("!b:x"), 3)]);
        assert!(text(&metrics).contains(r#"parlour_room_queue_depth{room="!a:x"} 7"#));
        metrics.show_busiest(&[(room("!b:x"), 4)]);
        let text = text(&metrics);
        assert!(text.contains(r#"parlour_room_queue_depth{room="!b:x"} 4"#), "{text}");
        assert!(!text.contains("!a:x"), "{text}");
    }

    #[test]
    fn servers_do_not_share_metrics() {
        let (one, other) = (Metrics::new().expect("one"), Metrics::new().expect("other"));
        one.sync_wakeups.inc();
        assert_eq!((one.sync_wakeups.get(), other.sync_wakeups.get()), (1, 0));
    }
}
