//! What goes wrong inside: a room that panics, a disk that refuses. Other rooms never notice, and
//! nothing is acknowledged that is not there.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parlour_actors::{
    Engine, RoomError, RoomLimits,
    env::{Clock, Env, SystemClock, SystemEntropy},
};
use parlour_storage::faults::{Failing, FaultPlan};
use support::{create, engine_on_failing_disk, member, message, options, settle};

/// A clock that panics when a test tells it to: the next event that asks for the time is lost.
#[derive(Debug, Default)]
struct PanickyClock {
    inner: SystemClock,
    armed: AtomicBool,
}

impl Clock for PanickyClock {
    fn now_ms(&self) -> u64 {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "the clock is broken on purpose");
        self.inner.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }
}

#[actix::test]
async fn a_panic_costs_one_request_and_no_other() {
    let clock = Arc::new(PanickyClock::default());
    let mut with_clock = options(None, RoomLimits::default());
    with_clock.env = Env::new(clock.clone(), Arc::new(SystemEntropy));
    let engine = Engine::start(with_clock).await.unwrap();
    let (room, other) = (create(&engine, "12").await, create(&engine, "12").await);
    let acknowledged = engine.rooms.send(&room, message("alice", "before")).await.unwrap();

    clock.armed.store(true, Ordering::SeqCst);
    let sends =
        (0..20).map(|number| engine.rooms.send(&room, message("alice", &format!("{number}"))));
    let results = futures_util::future::join_all(sends).await;
    let panicked =
        results.iter().filter(|result| matches!(result, Err(RoomError::Panicked))).count();
    let sent = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!((panicked, sent), (1, 19), "{results:?}");

    engine.rooms.send(&other, message("alice", "nothing happened here")).await.unwrap();
    assert!(engine.store.event_num(acknowledged.event_id.as_str()).unwrap().is_some());
    engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
    engine.stop().await;
}

#[actix::test]
async fn a_full_disk_refuses_loudly_and_the_room_goes_on_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, faults) = engine_on_failing_disk(dir.path(), RoomLimits::default()).await;
    let room = create(&engine, "12").await;
    settle(&engine).await;
    let before = engine.rooms.send(&room, message("alice", "before")).await.unwrap();

    faults.set(FaultPlan { failing_writes: Failing::Always, ..FaultPlan::default() });
    let sends =
        (0..10).map(|number| engine.rooms.send(&room, message("alice", &format!("{number}"))));
    for result in futures_util::future::join_all(sends).await {
        assert!(matches!(result, Err(RoomError::Persist(_))), "{result:?}");
    }
    assert_eq!(engine.changes.current(), before.pos, "nothing was announced");

    faults.set(FaultPlan::default());
    let after = engine.rooms.send(&room, message("alice", "after")).await.unwrap();
    assert_eq!(after.pos.0, before.pos.0 + 1);
    let num = engine.store.event_num(after.event_id.as_str()).unwrap().unwrap();
    let event = engine.store.event(num).unwrap().unwrap();
    let json = String::from_utf8_lossy(&event.json).into_owned();
    assert!(json.contains(before.event_id.as_str()), "it follows the last durable event: {json}");
    engine.stop().await;
}
