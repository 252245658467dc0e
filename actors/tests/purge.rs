//! What is left of a room that was purged: nothing, in whatever way it came in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use parlour_actors::{
    Engine, LocalEvent, Transaction, Verdict, delayed::NewDelayed, room_orders::DeletionOrder,
};
use parlour_event::{RoomVersion, content::Membership, state::ReadState as _};
use parlour_storage::{
    Direction,
    schema::{DeletionStatus, OutOfBandEntry, User, keys},
};
use ruma::RoomId;
use support::{Branch, create, engine, member, message, state, user};

/// Where a room leaves something.
const KEYSPACES: [u8; 14] = [
    keys::EVENT,
    keys::EVENT_ID,
    keys::TIMELINE,
    keys::GRAPH,
    keys::OFF_TIMELINE,
    keys::NODE,
    keys::ROOM_ID,
    keys::ROOM,
    keys::MEMBERSHIP,
    keys::TRANSACTION,
    keys::EVENT_TIME,
    keys::DELAYED,
    keys::OUT_OF_BAND,
    keys::WAITING_REDACTION,
];

fn all_keys(engine: &Engine) -> BTreeSet<Vec<u8>> {
    let scan = |keyspace: u8| {
        engine.store.scan_prefix(&[keyspace], Direction::Forward, usize::MAX).unwrap()
    };
    KEYSPACES.into_iter().flat_map(scan).map(|(key, _)| key.to_vec()).collect()
}

fn said_in(transaction: u8) -> LocalEvent {
    let transaction = Transaction {
        hash: [transaction; 16],
        device: "PHONE".to_owned(),
        txn_id: transaction.to_string(),
    };
    LocalEvent { transaction: Some(transaction), ..message("alice", "said") }
}

async fn delay(engine: &Engine, room: &RoomId, transaction: u8) {
    let new = NewDelayed {
        user: user("alice"),
        device: "PHONE".to_owned(),
        room: room.to_owned(),
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: r#"{"body":"later"}"#.into(),
        delay: Duration::from_secs(3_600),
        transaction: Some([transaction; 16]),
    };
    engine.delayed.schedule(new).await.unwrap();
}

/// Lets a room have events of every kind.
async fn fill(engine: &Engine, room: &RoomId, transaction: u8) {
    let bob = engine.rooms.send(room, member("bob", "bob", "join")).await.unwrap();
    let bob = bob.event_id.as_str();
    engine.rooms.send(room, said_in(transaction)).await.unwrap();
    let id = |kind: &str, key: &str| {
        let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
        let head = engine.store.room_head(num).unwrap().unwrap();
        let key = engine.store.state_key_num(kind, key).unwrap().unwrap();
        let event = engine.nodes.get(head.state, key).unwrap().unwrap();
        engine.store.event(event).unwrap().unwrap().meta.event_id
    };
    let (create, power) = (id("m.room.create", ""), id("m.room.power_levels", ""));
    let alice = id("m.room.member", user("alice").as_str());
    let version = RoomVersion::parse("10").unwrap();
    let branch = Branch { engine, version, room: room.to_owned() };
    let receive = async |event, auth: &[&str], ts| {
        let pdu = branch.build(event, &[bob], auth, ts);
        engine.rooms.receive(room, pdu).await.unwrap()
    };
    let by_bob = [create.as_str(), &power, bob];
    let topic = state("bob", "m.room.topic", "", r#"{"topic":"mine"}"#);
    assert_eq!(receive(topic, &by_bob, 2).await, Verdict::Rejected);
    let ban = member("alice", "bob", "ban");
    assert_eq!(receive(ban, &[&create, &power, &alice, bob], 3).await, Verdict::Accepted);
    assert_eq!(receive(message("bob", "late"), &by_bob, 4).await, Verdict::SoftFailed);
    let unknown = LocalEvent {
        event_type: "m.room.redaction".to_owned(),
        redacts: Some("$unknown".try_into().unwrap()),
        ..message("alice", "")
    };
    assert_eq!(receive(unknown, &[&create, &power, &alice], 5).await, Verdict::Accepted);
    delay(engine, room, transaction + 1).await;
    // Somebody was invited from elsewhere, when nobody here was in the room yet.
    let entry = OutOfBandEntry {
        room_id: room.to_string(),
        version: "10".to_owned(),
        event_id: "$invite".to_owned(),
        member: String::new(),
        told: Vec::new(),
        servers: Vec::new(),
    };
    let carol = user("carol");
    engine.out_of_band.note(&carol, room, Membership::Invite, entry).await.unwrap();
}

#[actix::test]
async fn nothing_of_a_purged_room_is_left() {
    let engine = engine().await;
    engine.users.register(user("alice").as_str(), User::default(), None).await.unwrap();
    let kept = create(&engine, "10").await;
    fill(&engine, &kept, 1).await;
    let before = all_keys(&engine);
    let room = create(&engine, "10").await;
    fill(&engine, &room, 11).await;
    assert!(all_keys(&engine).len() > before.len() + 20);
    let order = DeletionOrder {
        room_id: room,
        replacement: None,
        blocked_by: None,
        purge: true,
        force_purge: true,
    };
    let id = engine.room_orders.delete(order).await.unwrap();
    let deletion = engine.room_orders.finished(&id).await.unwrap().unwrap();
    assert_eq!(deletion.status, DeletionStatus::Complete);
    let left: Vec<_> =
        all_keys(&engine).difference(&before).map(|key| keys::readable(key)).collect();
    // That an event has been delayed is remembered by its transaction alone, as with those that
    // have been sent.
    assert_eq!(left, [keys::readable(&keys::transaction(&[12; 16]))]);
    assert_eq!(before.difference(&all_keys(&engine)).count(), 0);
    engine.stop().await;
}
