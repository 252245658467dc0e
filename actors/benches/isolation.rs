//! One room resolves state over a large, growing conflict; people in other rooms keep talking.
//! Prints the latency of their messages without and with the conflict.

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

/// How long the conflict goes on.
const RUN: Duration = Duration::from_secs(10);

/// Rooms in which people talk meanwhile, each at [`PAUSE`].
const ROOMS: usize = 50;

/// The pause between two messages of a room.
const PAUSE: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Two branches of one room: on one alice bans people, on the other she changes the power levels.
/// Each event makes the room resolve the whole conflict again. Returns how many it took in.
async fn conflict(engine: &Engine, until: Instant) -> (usize, Duration) {
    let version = RoomVersion::parse("10").expect("version 10");
    let room = create(engine, "10").await;
    let branch = Branch { engine, version, room: room.clone() };
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
    let (create, power) = (at("m.room.create", ""), at("m.room.power_levels", ""));
    let alice = at("m.room.member", "@alice:parlour.test");
    let (mut bans, mut levels) = (root.clone(), root);
    let mut newest_levels = power.clone();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while now() < until {
        count += 1;
        let victim = format!("victim{count}");
        let ban = branch.build(
            member("alice", &victim, "ban"),
            &[&bans],
            &[&create, &power, &alice],
            count,
        );
        let content =
            format!(r#"{{"users":{{"@alice:parlour.test":100,"@v{count}:parlour.test":1}}}}"#);
        let change = state("alice", "m.room.power_levels", "", &content);
        let level = branch.build(change, &[&levels], &[&create, &newest_levels, &alice], count);
        for event in [ban.clone(), level.clone()] {
            let started = now();
            engine.rooms.receive(&room, event).await.expect("taken in");
            longest = longest.max(started.elapsed());
        }
        bans = ban.event_id().to_string();
        levels = level.event_id().to_string();
        newest_levels.clone_from(&levels);
    }
    (count as usize * 2, longest)
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

fn report(name: &str, mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000];
    let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
    println!(
        "{name:<24} {:>7} messages   p50 {:>7.3} ms   p99 {:>7.3} ms   p99.9 {:>7.3} ms",
        latencies.len(),
        ms(at(500)),
        ms(at(990)),
        ms(at(999)),
    );
    at(990)
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
    let mut p99 = Vec::new();
    for with_conflict in [false, true] {
        let stop = AtomicBool::new(false);
        let talking =
            futures_util::future::join_all(rooms.iter().map(|room| talk(&engine, room, &stop)));
        let work = async {
            let until = now() + RUN;
            let done = match with_conflict {
                true => conflict(&engine, until).await,
                false => {
                    tokio::time::sleep(RUN).await;
                    (0, Duration::ZERO)
                }
            };
            stop.store(true, Ordering::Relaxed);
            done
        };
        let (latencies, (events, longest)) = futures_util::future::join(talking, work).await;
        let name = if with_conflict { "beside the conflict" } else { "quiet" };
        p99.push(report(name, latencies.concat()));
        if with_conflict {
            println!(
                "the conflict: {events} events, each resolved anew, the longest in {longest:?}"
            );
        }
    }
    println!("p99 beside the conflict / quiet: {:.2}", p99[1].as_secs_f64() / p99[0].as_secs_f64());
    engine.stop().await;
}
