//! Durable events per second through the engine, without HTTP: one sender, 16 senders in one room,
//! 100 rooms. Prints events/s, latency percentiles and CPU time per event.
//!
//! Not a criterion benchmark: the figure of interest is a rate under concurrency, with the flushes
//! in it.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use parlour_actors::{Engine, RoomLimits};
use ruma::OwnedRoomId;
use support::{create, message, options};

/// How long each scenario runs.
const RUN: Duration = Duration::from_secs(3);

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// CPU time of this process so far, from the kernel's clock ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let after_name = stat.rsplit_once(')').expect("name in brackets").1;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks: u64 =
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

async fn sender(engine: &Engine, room: &OwnedRoomId, until: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while now() < until {
        let started = now();
        engine
            .rooms
            .send(room, message("alice", "a message of the usual length, more or less"))
            .await
            .expect("sent");
        latencies.push(started.elapsed());
    }
    latencies
}

async fn scenario(name: &str, dir: Option<&Path>, rooms: usize, senders: usize) {
    let engine = Engine::start(options(dir, RoomLimits::default())).await.expect("engine");
    let mut ids = Vec::new();
    for _ in 0..rooms {
        ids.push(create(&engine, "12").await);
    }
    let (started, cpu_before) = (now(), cpu());
    let until = started + RUN;
    let sends = (0..senders).map(|number| sender(&engine, &ids[number % rooms], until));
    let mut latencies = futures_util::future::join_all(sends).await.concat();
    let (elapsed, used) = (started.elapsed(), cpu() - cpu_before);
    latencies.sort_unstable();
    let count = latencies.len();
    let percentile = |part: usize| latencies[(count - 1) * part / 100].as_secs_f64() * 1e3;
    println!(
        "{name:<28} {:>8.0} events/s   p50 {:>7.3} ms   p99 {:>7.3} ms   {:>6.1} us CPU/event",
        count as f64 / elapsed.as_secs_f64(),
        percentile(50),
        percentile(99),
        used.as_secs_f64() * 1e6 / count as f64,
    );
    engine.stop().await;
}

#[actix::main]
async fn main() {
    for (place, on_disk) in [("memory", false), ("disk", true)] {
        for (name, rooms, senders) in [
            ("one sender", 1, 1),
            ("16 senders, one room", 1, 16),
            ("100 rooms, a sender each", 100, 100),
        ] {
            let dir =
                tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("folder");
            let path = on_disk.then(|| dir.path());
            scenario(&format!("{place}: {name}"), path, rooms, senders).await;
        }
    }
}
