//! Many events of one room, and many accounts, with one request.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;

use parlour_actors::{Engine, LocalEvent, RoomError, RoomLimits, Rooms};
use parlour_storage::{
    faults::{Failing, FaultPlan},
    schema::User,
};
use support::{create, engine, engine_on_failing_disk, member, message, settle, state};

/// Depth and `prev_events` of an event.
fn place(engine: &Engine, id: &str) -> (u64, Vec<String>) {
    let num = engine.store.event_num(id).unwrap().unwrap();
    let stored = engine.store.event(num).unwrap().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&stored.json).unwrap();
    let prev = json["prev_events"].as_array().unwrap().iter().map(|id| id.as_str().unwrap());
    (stored.meta.depth, prev.map(str::to_owned).collect())
}

#[actix::test]
async fn each_builds_on_the_one_before_and_who_is_refused_is_left_out() {
    let engine = engine().await;
    let room = create(&engine, "12").await;
    let events = [
        member("bob", "bob", "join"),
        message("bob", "one"),
        message("carol", "not in the room"),
        state("bob", "m.room.topic", "", r#"{"topic":"not his to say"}"#),
        message("alice", "two"),
        member("bob", "bob", "join"),
        state("alice", "m.room.topic", "", r#"{"topic":"hers"}"#),
        state("alice", "m.room.topic", "", r#"{"topic":"hers"}"#),
    ];
    let taken = engine.rooms.send_many(&room, &events).await.unwrap();
    let ids: Vec<_> = taken.iter().map(|taken| taken.as_ref().map(ToString::to_string)).collect();
    for number in [2, 3] {
        assert!(matches!(ids[number], Err(RoomError::Forbidden(_))), "{:?}", ids[number]);
    }
    let id = |number: usize| ids[number].clone().unwrap();
    assert_eq!((id(5), id(7)), (id(0), id(6)), "what is there already makes no new event");
    for (before, after) in [(0, 1), (1, 4), (4, 6)] {
        let (depth, prev) = place(&engine, &id(after));
        assert_eq!((depth, prev), (place(&engine, &id(before)).0 + 1, vec![id(before)]));
    }
    assert_eq!(engine.rooms.send_many(&room, &[]).await.unwrap().len(), 0);
    let unknown = engine.rooms.send_many("!none:parlour.test".try_into().unwrap(), &events).await;
    assert!(matches!(unknown, Err(RoomError::UnknownRoom)), "{unknown:?}");
    engine.stop().await;
}

#[actix::test]
async fn several_requests_keep_their_order_and_others_come_between() {
    let engine = engine().await;
    let room = create(&engine, "11").await;
    let handful = |number: usize| -> Vec<LocalEvent> {
        let texts = (0..Rooms::AT_ONCE + 3).map(|at| format!("{number}-{at}"));
        texts.map(|text| message("alice", &text)).collect()
    };
    let handfuls: Vec<_> = (0..5).map(handful).collect();
    let sends = handfuls.iter().map(|events| engine.rooms.send_many(&room, events));
    let (taken, single) = futures_util::future::join(
        futures_util::future::join_all(sends),
        engine.rooms.send(&room, message("alice", "by itself")),
    )
    .await;
    single.unwrap();
    for handful in taken {
        let ids: Vec<_> = handful.unwrap().into_iter().map(|id| id.unwrap().to_string()).collect();
        assert_eq!(ids.len(), Rooms::AT_ONCE + 3);
        let depths: Vec<_> = ids.iter().map(|id| place(&engine, id).0).collect();
        assert!(depths.is_sorted(), "{depths:?}");
        // The first of them are one piece.
        assert_eq!(depths[Rooms::AT_ONCE - 1], depths[0] + Rooms::AT_ONCE as u64 - 1);
    }
    engine.stop().await;
}

#[actix::test]
async fn a_disk_that_refuses_leaves_nothing_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, faults) = engine_on_failing_disk(dir.path(), RoomLimits::default()).await;
    let room = create(&engine, "12").await;
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let head = || engine.store.room_head(num).unwrap().unwrap();
    // The write that fails is to be the room's.
    settle(&engine).await;
    let before = head();
    faults.set(FaultPlan { failing_writes: Failing::Next(1), ..FaultPlan::default() });
    let events: Vec<_> = (0..10).map(|number| message("alice", &number.to_string())).collect();
    let refused = engine.rooms.send_many(&room, &events).await;
    assert!(matches!(refused, Err(RoomError::Persist(_))), "{refused:?}");
    assert_eq!(head(), before);
    let taken = engine.rooms.send_many(&room, &events).await.unwrap();
    assert!(taken.iter().all(Result::is_ok), "{taken:?}");
    let last = taken.last().unwrap().as_ref().unwrap();
    let depth = engine.store.event_meta(before.extremities[0]).unwrap().unwrap().depth;
    assert_eq!(place(&engine, last.as_str()).0, depth + 10);
    engine.stop().await;
}

#[actix::test]
async fn accounts_are_made_once() {
    let engine = engine().await;
    let accounts = |name: &str| -> BTreeMap<String, User> {
        let account = User { display_name: Some(name.to_owned()), ..User::default() };
        (0..500).map(|n| (format!("@user{n}:parlour.test"), account.clone())).collect()
    };
    engine.users.register("@user7:parlour.test", User::default(), None).await.unwrap();
    let before = engine.store.applied();
    assert_eq!(engine.users.register_many(accounts("first")).await.unwrap(), 499);
    assert!(engine.store.applied().0 - before.0 < 50, "with few records");
    assert_eq!(engine.users.register_many(accounts("second")).await.unwrap(), 0);
    let name = |n| engine.users.account(&format!("@user{n}:parlour.test")).unwrap().unwrap();
    assert_eq!((name(7).display_name, name(8).display_name), (None, Some("first".to_owned())));
    engine.stop().await;
}
