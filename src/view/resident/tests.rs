//! What a server gets of a room's history, by what its users were when it was made.

use std::collections::HashSet;

use actix::System;
use parlour_actors::{Engine, LocalEvent, env::Env};
use parlour_event::{Pdu, StreamPos, json};
use parlour_storage::Direction;
use ruma::{OwnedEventId, OwnedRoomId, server_name};

use super::{
    super::{
        View,
        ancestors::Gap,
        tests::{engine, event, new_room},
    },
    Resident,
};

async fn send(engine: &Engine, room: &OwnedRoomId, event: LocalEvent) -> OwnedEventId {
    engine.rooms.send(room, event).await.unwrap().event_id
}

async fn say(engine: &Engine, room: &OwnedRoomId) -> OwnedEventId {
    let body = r#"{"body":"secret","msgtype":"m.text"}"#;
    send(engine, room, event("alice", "m.room.message", None, body)).await
}

/// A change of a membership by its owner, or by Alice.
async fn member(engine: &Engine, room: &OwnedRoomId, user: &str, by: Option<&str>, is: &str) {
    let id = |user: &str| format!("@{user}:far.test");
    let content = format!(r#"{{"membership":"{is}"}}"#);
    let mut change = event("alice", "m.room.member", Some(&id(user)), &content);
    if let Some(sender) = by {
        change.sender = id(sender).try_into().unwrap();
    }
    send(engine, room, change).await;
}

/// Whether an event came whole; in any case it is the event, with the same id.
fn is_whole(resident: &mut Resident, id: &OwnedEventId) -> bool {
    let num = resident.view.store.event_num(id.as_str()).unwrap().unwrap();
    let stored = resident.view.store.event(num).unwrap().unwrap();
    let sent = resident.pdu(&stored).unwrap();
    let object = json::parse_object(resident.room.version, sent.get().as_bytes()).unwrap();
    let pdu = Pdu::from_wire(resident.room.version, object).unwrap();
    assert_eq!(pdu.event_id(), id);
    let whole = pdu.content().contains_key("body");
    assert!(!whole || sent.get().as_bytes() == &stored.json[..], "other bytes than are stored");
    whole
}

async fn story(engine: &Engine, view: &View, visibility: &str) -> (OwnedRoomId, Vec<OwnedEventId>) {
    let room = new_room(engine).await;
    let content = format!(r#"{{"history_visibility":"{visibility}"}}"#);
    send(engine, &room, event("alice", "m.room.history_visibility", Some(""), &content)).await;
    let mut said = vec![say(engine, &room).await];
    let steps = [
        ("bob", None, "invite"),
        ("bob", Some("bob"), "join"),
        ("bob", Some("bob"), "leave"),
        ("bob", None, "ban"),
        ("carol", Some("carol"), "join"),
    ];
    for (user, by, is) in steps {
        member(engine, &room, user, by, is).await;
        said.push(say(engine, &room).await);
    }
    assert!(view.room(&room).unwrap().is_some());
    (room, said)
}

// Checklist 6.6
#[test]
fn a_server_gets_what_one_of_its_users_may_see_and_the_rest_redacted() {
    let system = System::new();
    let engine = system.block_on(engine());
    let view = View::of(&engine, Env::system().clock);
    // Before anything; while bob is invited, joined, gone, banned; when carol has joined.
    let cases = [
        ("world_readable", [true, true, true, true, true, true]),
        ("shared", [true, true, true, true, true, true]),
        ("invited", [false, true, true, false, false, true]),
        ("joined", [false, false, true, false, false, true]),
    ];
    for (visibility, expected) in cases {
        let (room, said) = system.block_on(story(&engine, &view, visibility));
        let view_of_room = || view.room(&room).unwrap().unwrap();
        let mut far = view.resident(view_of_room(), server_name!("far.test")).unwrap();
        let whole: Vec<_> = said.iter().map(|id| is_whole(&mut far, id)).collect();
        assert_eq!(whole, expected, "{visibility}");
        let mut near = view.resident(view_of_room(), server_name!("parlour.test")).unwrap();
        assert!(said.iter().all(|id| is_whole(&mut near, id)), "{visibility}");
        let visible = said.iter().zip(expected).filter(|(_, whole)| *whole);
        hops(&mut far, &visible.map(|(id, _)| id).collect(), &said);
        walks(&mut far, &said);
    }
    system.block_on(engine.stop());
}

fn ids(resident: &Resident, pdus: &[Box<serde_json::value::RawValue>]) -> Vec<OwnedEventId> {
    let version = resident.room.version;
    let parse = |pdu: &str| json::parse_object(version, pdu.as_bytes()).unwrap();
    let pdus = pdus.iter().map(|pdu| Pdu::from_wire(version, parse(pdu.get())).unwrap());
    pdus.map(|pdu| pdu.event_id().clone()).collect()
}

/// From time to time, all that may be seen is found, and nothing else.
fn hops(far: &mut Resident, visible: &HashSet<&OwnedEventId>, said: &[OwnedEventId]) {
    let mut found = HashSet::new();
    let mut at = 0;
    while let Some((event, time)) = far.nearest(at, Direction::Forward).unwrap() {
        found.insert(event.meta.event_id);
        at = time + 1;
    }
    for id in said {
        assert!(visible.contains(id) || !found.contains(id.as_str()), "{id}");
    }
}

/// The room has one branch, so that going back means going through it all.
fn walks(far: &mut Resident, said: &[OwnedEventId]) {
    let last = said.last().unwrap().clone();
    let all = far.backwards(std::slice::from_ref(&last), 1_000).unwrap();
    let all = ids(far, &all);
    assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len());
    assert_eq!(all[0], last);
    assert!(said.iter().all(|id| all.contains(id)));
    let some = far.backwards(std::slice::from_ref(&last), 4).unwrap();
    assert_eq!(ids(far, &some), all[..4]);
    let (second, earliest) = ([said[1].clone()], [said[0].clone()]);
    let gap = Gap { earliest: &earliest, latest: &second, min_depth: 0, limit: 20 };
    let between = far.missing(&gap).unwrap();
    assert_eq!(between.len(), 1, "the invite");
    let gap = Gap { earliest: &[], latest: std::slice::from_ref(&last), min_depth: 0, limit: 3 };
    let mut nearest = all[1..4].to_vec();
    nearest.reverse();
    let found = far.missing(&gap).unwrap();
    assert_eq!(ids(far, &found), nearest);
    let depth = far.room.head.extremities[0];
    let depth = far.view.store.event_meta(depth).unwrap().unwrap().depth;
    let gap = Gap { min_depth: depth - 2, limit: 20, ..gap };
    assert_eq!(far.missing(&gap).unwrap().len(), 2);
    let unknown = ["$none".try_into().unwrap()];
    assert!(far.backwards(&unknown, 10).unwrap().is_empty());
    let gap = Gap { latest: &unknown, ..gap };
    assert!(far.missing(&gap).unwrap().is_empty());
    assert!(far.room.head.pos > StreamPos(0));
}
