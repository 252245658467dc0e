//! One room resolves state over a large, growing conflict; people in other rooms keep talking.
//! Prints the latency of their messages without and with the conflict, in short slices of both that
//! alternate: a disk that stalls for a moment, or a neighbour who builds, decides nothing then.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parlour_actors::{Engine, RoomLimits};
use parlour_event::RoomVersion;
use ruma::OwnedRoomId;
use support::{Branch, create, member, message, options, state};

/// How long each slice is.
const SLICE: Duration = Duration::from_secs(2);

/// How many slices there are of each kind.
const SLICES: usize = 10;

/// Rooms in which people talk meanwhile, each at [`PAUSE`].
const ROOMS: usize = 50;

/// The pause between two messages of a room.
const PAUSE: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Two branches of one room: on one alice bans people, on the other she changes the power levels.
/// Each event makes the room resolve the whole conflict again.
struct Conflict<'a> {
    branch: Branch<'a>,
    create: String,
    power: String,
    alice: String,
    bans: String,
    levels: String,
    newest_levels: String,
    /// Events of each branch.
    count: u64,
    longest: Duration,
}

impl<'a> Conflict<'a> {
    async fn begin(engine: &'a Engine) -> Self {
        let version = RoomVersion::parse("10").expect("version 10");
        let room = create(engine, "10").await;
        let num = engine.store.room_num(room.as_str()).expect("store").expect("room");
        let head = engine.store.room_head(num).expect("store").expect("head");
        let root =
            engine.store.event(head.extremities[0]).expect("store").expect("event").meta.event_id;
        let at = |kind: &str, key: &str| {
            use parlour_event::state::ReadState as _;
            let key = engine.store.state_key_num(kind, key).expect("store").expect("key");
            let event = engine.nodes.get(head.state, key).expect("state").expect("event");
            engine.store.event(event).expect("store").expect("event").meta.event_id
        };
        let power = at("m.room.power_levels", "");
        Self {
            create: at("m.room.create", ""),
            alice: at("m.room.member", "@alice:parlour.test"),
            bans: root.clone(),
            levels: root,
            newest_levels: power.clone(),
            power,
            branch: Branch { engine, version, room },
            count: 0,
            longest: Duration::ZERO,
        }
    }

    /// Both branches grow by one event.
    async fn grow(&mut self) {
        self.count += 1;
        let Self { branch, create, power, alice, bans, levels, newest_levels, count, .. } = self;
        let victim = format!("victim{count}");
        let ban = member("alice", &victim, "ban");
        let ban = branch.build(ban, &[bans], &[create, power, alice], *count);
        let content =
            format!(r#"{{"users":{{"@alice:parlour.test":100,"@v{count}:parlour.test":1}}}}"#);
        let change = state("alice", "m.room.power_levels", "", &content);
        let level = branch.build(change, &[levels], &[create, newest_levels, alice], *count);
        for event in [&ban, &level] {
            let started = now();
            let rooms = &branch.engine.rooms;
            rooms.receive(&branch.room, event.clone()).await.expect("taken in");
            self.longest = self.longest.max(started.elapsed());
        }
        self.bans = ban.event_id().to_string();
        self.levels = level.event_id().to_string();
        self.newest_levels.clone_from(&self.levels);
    }
}

async fn talk(engine: &Engine, room: &OwnedRoomId, stop: &AtomicBool) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let started = now();
        engine.rooms.send(room, message("alice", "good evening")).await.expect("sent");
        latencies.push(started.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    latencies
}

/// What people have seen in one slice, sorted.
async fn slice(
    engine: &Engine,
    rooms: &[OwnedRoomId],
    conflict: Option<&mut Conflict<'_>>,
) -> Vec<Duration> {
    let stop = AtomicBool::new(false);
    let talking =
        futures_util::future::join_all(rooms.iter().map(|room| talk(engine, room, &stop)));
    let work = async {
        let until = now() + SLICE;
        if let Some(conflict) = conflict {
            while now() < until {
                conflict.grow().await;
            }
        }
        tokio::time::sleep(until.saturating_duration_since(now())).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (latencies, ()) = futures_util::future::join(talking, work).await;
    let mut latencies = latencies.concat();
    latencies.sort_unstable();
    latencies
}

/// Some per mille of these, which are sorted.
fn at(latencies: &[Duration], per_mille: usize) -> Duration {
    latencies[(latencies.len() - 1) * per_mille / 1000]
}

/// All of a kind together: prints them, and returns the 99th percentile of all, and the median of
/// the slices'.
fn report(name: &str, slices: &[Vec<Duration>]) -> [Duration; 2] {
    let mut all = slices.concat();
    all.sort_unstable();
    let mut each: Vec<_> = slices.iter().map(|slice| at(slice, 990)).collect();
    each.sort_unstable();
    let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
    let [p50, p95, p99] = [500, 950, 990].map(|part| at(&all, part));
    let median = at(&each, 500);
    println!(
        "{name:<20} {:>7} messages   p50 {:>7.3} ms   p95 {:>7.3} ms   p99 {:>7.3} ms   \
         median of {} slices' p99 {:>7.3} ms",
        all.len(),
        ms(p50),
        ms(p95),
        ms(p99),
        each.len(),
        ms(median),
    );
    [p99, median]
}

#[actix::main]
async fn main() {
    let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("folder");
    let engine =
        Engine::start(options(Some(dir.path()), RoomLimits::default())).await.expect("engine");
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(create(&engine, "12").await);
    }
    let mut conflict = Conflict::begin(&engine).await;
    let (mut quiet, mut stormy) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        quiet.push(slice(&engine, &rooms, None).await);
        stormy.push(slice(&engine, &rooms, Some(&mut conflict)).await);
    }
    let quiet = report("quiet", &quiet);
    let stormy = report("beside the conflict", &stormy);
    let Conflict { count, longest, .. } = conflict;
    println!("the conflict: {} events, each resolved anew, the longest in {longest:?}", count * 2);
    let [all, median] = [0, 1].map(|kind| stormy[kind].as_secs_f64() / quiet[kind].as_secs_f64());
    println!("p99 beside the conflict / quiet: {all:.2} of all, {median:.2} of the median slices");
    engine.stop().await;
}
