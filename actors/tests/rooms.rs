//! Rooms, through the engine's public interface.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::HashSet, ops::Bound, sync::Arc, time::Duration};

use parlour_actors::{Engine, RoomError, RoomLimits, Transaction, Verdict, budget::Share};
use parlour_event::{Pdu, RoomVersion, StreamPos, state::ReadState};
use parlour_storage::{Direction, faults::FaultPlan};
use ruma::RoomId;
use support::{
    Branch, create, engine, engine_on_failing_disk, member, message, object, options, public_room,
    state, user,
};

fn timeline(engine: &Engine, room: &RoomId) -> Vec<String> {
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let entries = engine.store.timeline(num, all, Direction::Forward, usize::MAX).unwrap();
    let nums: Vec<_> = entries.iter().map(|(_, entry)| entry.event).collect();
    let events = engine.store.events(&nums).unwrap();
    events.into_iter().map(|event| event.unwrap().meta.event_id).collect()
}

fn state_event(engine: &Engine, room: &RoomId, kind: &str, key: &str) -> Option<String> {
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let head = engine.store.room_head(num).unwrap().unwrap();
    let key = engine.store.state_key_num(kind, key).unwrap()?;
    let event = engine.nodes.get(head.state, key).unwrap()?;
    Some(engine.store.event(event).unwrap().unwrap().meta.event_id)
}

fn counts(engine: &Engine, room: &RoomId) -> (u64, u64) {
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let head = engine.store.room_head(num).unwrap().unwrap();
    (head.joined, head.invited)
}

#[actix::test]
async fn every_room_version_can_be_talked_in() {
    let engine = engine().await;
    for version in RoomVersion::all() {
        let room = create(&engine, version.id().as_str()).await;
        engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
        let sent = engine.rooms.send(&room, message("bob", "hello")).await.unwrap();
        let events = timeline(&engine, &room);
        assert_eq!(events.len(), 6, "version {}", version.id());
        assert_eq!(events.last(), Some(&sent.event_id.to_string()));
        assert_eq!(counts(&engine, &room), (2, 0));
    }
    engine.stop().await;
}

#[actix::test]
async fn a_refused_event_leaves_no_trace() {
    let engine = engine().await;
    let room = create(&engine, "12").await;
    let before = timeline(&engine, &room);
    let refused = engine.rooms.send(&room, message("mallory", "hi")).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    assert_eq!(timeline(&engine, &room), before);
    engine.rooms.send(&room, message("alice", "still here")).await.unwrap();
    engine.stop().await;
}

#[actix::test]
async fn a_room_is_born_whole_or_not_at_all() {
    let engine = engine().await;
    let mut new = public_room("12", "alice");
    new.events.push(message("mallory", "I am not in here"));
    let refused = engine.rooms.create(new).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    assert_eq!(engine.store.applied(), engine.changes.current());
    assert_eq!(engine.store.memberships(user("alice").as_str()).unwrap().len(), 0);
    assert_eq!(engine.rooms.awake(), 0);
    // What the refused room would have called its state is there for others.
    create(&engine, "12").await;
    engine.stop().await;
}

#[actix::test]
async fn rooms_created_in_the_same_millisecond_are_different_rooms() {
    let engine = engine().await;
    for version in ["1", "11", "12"] {
        let births = (0..20).map(|_| create(&engine, version));
        let rooms: HashSet<_> = futures_util::future::join_all(births).await.into_iter().collect();
        assert_eq!(rooms.len(), 20, "version {version}");
    }
    engine.stop().await;
}

#[actix::test]
async fn a_transaction_is_done_once() {
    let engine = engine().await;
    let room = create(&engine, "12").await;
    let transaction = Transaction { hash: [7; 16], device: "D".into(), txn_id: "t1".into() };
    let mut event = message("alice", "once");
    event.transaction = Some(transaction);
    let together =
        futures_util::future::join_all((0..5).map(|_| engine.rooms.send(&room, event.clone())));
    let ids: HashSet<_> = together.await.into_iter().map(|sent| sent.unwrap().event_id).collect();
    assert_eq!(ids.len(), 1);
    let later = engine.rooms.send(&room, event).await.unwrap();
    assert!(ids.contains(&later.event_id));
    assert_eq!(timeline(&engine, &room).len(), 5);
    engine.stop().await;
}

#[actix::test]
async fn same_state_again_is_the_same_event() {
    let engine = engine().await;
    let room = create(&engine, "12").await;
    let topic = || state("alice", "m.room.topic", "", r#"{"topic":"tea"}"#);
    let first = engine.rooms.send(&room, topic()).await.unwrap();
    let second = engine.rooms.send(&room, topic()).await.unwrap();
    assert_eq!(first.event_id, second.event_id);
    engine.stop().await;
}

#[actix::test]
async fn many_senders_are_put_in_one_order() {
    let engine = engine().await;
    let room = create(&engine, "12").await;
    let sends =
        (0..200).map(|number| engine.rooms.send(&room, message("alice", &format!("{number}"))));
    let sent: Vec<_> =
        futures_util::future::join_all(sends).await.into_iter().map(|sent| sent.unwrap()).collect();
    let mut by_pos = sent.clone();
    by_pos.sort_by_key(|sent| sent.pos);
    let expected: Vec<_> = by_pos.iter().map(|sent| sent.event_id.to_string()).collect();
    assert_eq!(timeline(&engine, &room)[4..], expected[..]);
    let positions: HashSet<_> = sent.iter().map(|sent| sent.pos).collect();
    assert_eq!(positions.len(), 200);
    engine.stop().await;
}

#[actix::test]
async fn who_asks_too_much_of_one_room_is_refused() {
    let limits = RoomLimits { queue_per_room: 8, ..RoomLimits::default() };
    let dir = tempfile::tempdir().unwrap();
    let (engine, faults) = engine_on_failing_disk(dir.path(), limits).await;
    // After a slow flush nobody flushes for itself.
    faults.set(FaultPlan { flush_delay: Duration::from_millis(5), ..FaultPlan::default() });
    let room = create(&engine, "12").await;
    let other = create(&engine, "12").await;
    let held = faults.hold_flushes();
    let sends =
        (0..50).map(|number| engine.rooms.send(&room, message("alice", &format!("{number}"))));
    let mut all = Box::pin(futures_util::future::join_all(sends));
    // One poll queues what is admitted; the other room does not notice.
    assert!(futures_util::poll!(&mut all).is_pending());
    assert_eq!(engine.rooms.busiest(10), [(room.clone(), 8)]);
    let mut quiet = Box::pin(engine.rooms.send(&other, message("alice", "quiet here")));
    assert!(futures_util::poll!(&mut quiet).is_pending());
    drop(held);
    quiet.await.unwrap();
    let results = all.await;
    let sent = results.iter().filter(|result| result.is_ok()).count();
    let refused = results.iter().filter(|result| matches!(result, Err(RoomError::Busy))).count();
    assert_eq!((sent, refused), (8, 42));
    assert_eq!(engine.rooms.busiest(10), [], "nobody waits any more");
    assert_eq!(timeline(&engine, &room).len(), 4 + 8);
    engine.stop().await;
}

#[actix::test]
async fn idle_rooms_sleep_and_come_back() {
    let limits = RoomLimits { idle: Duration::from_millis(20), ..RoomLimits::default() };
    let engine = Engine::start(options(None, limits)).await.unwrap();
    let room = create(&engine, "12").await;
    engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
    while engine.rooms.awake() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sent = engine.rooms.send(&room, message("bob", "good morning")).await.unwrap();
    assert_eq!(timeline(&engine, &room).last(), Some(&sent.event_id.to_string()));
    assert_eq!(counts(&engine, &room), (2, 0));
    engine.stop().await;
}

#[actix::test]
async fn awake_rooms_that_take_too_much_memory_go_to_sleep_early() {
    let memory = Share::new(200 << 10);
    let limits = RoomLimits {
        memory: memory.clone(),
        idle: Duration::from_secs(3600),
        tick: Duration::from_millis(5),
        ..RoomLimits::default()
    };
    let engine = Engine::start(options(None, limits)).await.unwrap();
    for _ in 0..10 {
        create(&engine, "12").await;
    }
    while memory.is_over() || engine.rooms.awake() == 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(engine.rooms.awake() > 0, "there is room for some");
    engine.stop().await;
    drop(engine);
    while memory.used() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Engine::start(options(Some(dir.path()), RoomLimits::default()));
    let engine = start().await.unwrap();
    let room = create(&engine, "12").await;
    let topic = engine.rooms.send(&room, state("alice", "m.room.topic", "", r#"{"topic":"x"}"#));
    let topic = topic.await.unwrap();
    let before = timeline(&engine, &room);
    let key = engine.keys.signing().public_key().to_base64();
    engine.stop().await;
    drop(engine);

    let engine = start().await.unwrap();
    assert_eq!(timeline(&engine, &room), before);
    assert_eq!(engine.keys.signing().public_key().to_base64(), key);
    assert_eq!(state_event(&engine, &room, "m.room.topic", ""), Some(topic.event_id.to_string()));
    engine.rooms.send(&room, message("alice", "back")).await.unwrap();
    assert_eq!(timeline(&engine, &room).len(), before.len() + 1);
    engine.stop().await;
}

#[actix::test]
async fn a_redaction_replaces_what_it_redacts() {
    let engine = engine().await;
    for version in ["1", "3", "10", "11", "12"] {
        let room = create(&engine, version).await;
        engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
        let secret = engine.rooms.send(&room, message("bob", "secret")).await.unwrap();
        let mut redaction = message("alice", "");
        redaction.event_type = "m.room.redaction".to_owned();
        redaction.content = object("{}");
        redaction.redacts = Some(secret.event_id.clone());
        let redaction = engine.rooms.send(&room, redaction).await.unwrap();
        let num = engine.store.event_num(secret.event_id.as_str()).unwrap().unwrap();
        let stored = engine.store.event(num).unwrap().unwrap();
        let because = engine.store.event_num(redaction.event_id.as_str()).unwrap();
        assert_eq!(stored.meta.redacted_because, because, "version {version}");
        assert!(!String::from_utf8_lossy(&stored.json).contains("secret"), "version {version}");
    }
    engine.stop().await;
}

#[actix::test]
async fn branches_of_history_come_together_again() {
    for version in ["1", "2", "6", "10", "12"] {
        let engine = engine().await;
        let room = create(&engine, version).await;
        engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
        let events = timeline(&engine, &room);
        let (create, alice, power, rules, bob) =
            (&*events[0], &*events[1], &*events[2], &*events[3], &*events[4]);
        let branch = Branch {
            engine: &engine,
            version: RoomVersion::parse(version).unwrap(),
            room: room.clone(),
        };
        let auth: Vec<_> = match version {
            "12" => vec![power, alice],
            _ => vec![create, power, alice],
        };
        // One branch sets the topic, the other one bans bob, who speaks on the first.
        let topic = branch.build(
            state("alice", "m.room.topic", "", r#"{"topic":"one"}"#),
            &[bob],
            &auth,
            2,
        );
        assert_eq!(engine.rooms.receive(&room, topic.clone()).await.unwrap(), Verdict::Accepted);
        let mut ban_auth = auth.clone();
        ban_auth.push(bob);
        let ban = branch.build(member("alice", "bob", "ban"), &[bob], &ban_auth, 3);
        assert_eq!(engine.rooms.receive(&room, ban.clone()).await.unwrap(), Verdict::Accepted);
        let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
        let head = engine.store.room_head(num).unwrap().unwrap();
        assert_eq!(head.extremities.len(), 2, "version {version}");
        assert_eq!(counts(&engine, &room), (1, 0), "version {version}");

        // Bob's message on his own branch: allowed there, but not now.
        let mut bob_auth = auth[..auth.len() - 1].to_vec();
        bob_auth.push(bob);
        let late = branch.build(message("bob", "late"), &[topic.event_id().as_str()], &bob_auth, 4);
        assert_eq!(engine.rooms.receive(&room, late.clone()).await.unwrap(), Verdict::SoftFailed);
        assert_eq!(engine.rooms.receive(&room, late).await.unwrap(), Verdict::Known);

        // The next local event joins the branches.
        let merged = engine.rooms.send(&room, message("alice", "merged")).await.unwrap();
        let head = engine.store.room_head(num).unwrap().unwrap();
        assert_eq!(head.extremities.len(), 1);
        assert_eq!(
            state_event(&engine, &room, "m.room.topic", ""),
            Some(topic.event_id().to_string())
        );
        assert_eq!(
            state_event(&engine, &room, "m.room.member", user("bob").as_str()),
            Some(ban.event_id().to_string())
        );
        let seen = timeline(&engine, &room);
        assert_eq!(seen.last(), Some(&merged.event_id.to_string()));
        assert_eq!(seen.len(), 5 + 3, "the soft-failed message is not in the timeline");
        let _ = rules;
        engine.stop().await;
    }
}

#[actix::test]
async fn an_event_that_builds_on_the_unknown_is_sent_back() {
    let engine = engine().await;
    let room = create(&engine, "10").await;
    let events = timeline(&engine, &room);
    let other_engine = support::engine().await;
    let other_room = create(&other_engine, "10").await;
    let unknown = timeline(&other_engine, &other_room);
    let branch =
        Branch { engine: &engine, version: RoomVersion::parse("10").unwrap(), room: room.clone() };
    let known = branch.build(message("alice", "x"), &[&events[3]], &[&events[0], &events[1]], 1);
    let mut json = known.json().clone();
    json.insert("prev_events".to_owned(), vec![unknown[3].clone().into()].into());
    let pdu = Arc::new(Pdu::from_wire(branch.version, json).unwrap());
    let result = engine.rooms.receive(&room, pdu).await;
    assert!(matches!(&result, Err(RoomError::Missing(ids)) if ids.len() == 1), "{result:?}");
    engine.rooms.send(&room, message("alice", "still fine")).await.unwrap();
    engine.stop().await;
    other_engine.stop().await;
}

#[actix::test]
async fn positions_have_no_gaps() {
    let engine = engine().await;
    let rooms = [create(&engine, "12").await, create(&engine, "11").await];
    let sends =
        (0..100).map(|n| engine.rooms.send(&rooms[n % 2], message("alice", &n.to_string())));
    futures_util::future::join_all(sends).await.into_iter().for_each(|sent| drop(sent.unwrap()));
    let records: Vec<_> = engine.store.records(StreamPos(0)).unwrap().collect();
    let positions: Vec<_> = records.into_iter().map(|record| record.unwrap().pos.0).collect();
    let last = *positions.last().unwrap();
    assert_eq!(positions, (1..=last).collect::<Vec<_>>());
    engine.stop().await;
}
