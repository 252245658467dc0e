//! What rooms leave for other servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use parlour_actors::Engine;
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::schema::{OutboxEntry, ServerStay, outbox::RoomStay};
use ruma::{OwnedRoomId, RoomId};
use support::{create, engine, message, remote_event, remote_member, state};

fn num(engine: &Engine, room: &RoomId) -> RoomNum {
    engine.store.room_num(room.as_str()).unwrap().unwrap()
}

fn outbox(engine: &Engine) -> Vec<(StreamPos, OutboxEntry)> {
    engine.store.outbox(StreamPos(0), 100).unwrap()
}

/// The one stay of a server in a room, if there is one.
fn stay(engine: &Engine, room: &RoomId, server: &str) -> Option<ServerStay> {
    let mut stays = engine.store.stays_of(num(engine, room), server).unwrap();
    assert!(stays.len() < 2, "{stays:?}");
    stays.pop()
}

fn rooms_of(engine: &Engine, server: &str) -> Vec<RoomStay> {
    engine.store.rooms_of_server(server, (RoomNum(0), None), 100).unwrap()
}

/// A room with a user of `far.org`.
async fn shared(engine: &Engine) -> OwnedRoomId {
    let room = create(engine, "12").await;
    remote_member(engine, &room, "@bob:far.org", "join").await;
    room
}

fn out(target: &str, membership: &str) -> parlour_actors::LocalEvent {
    state("alice", "m.room.member", target, &format!(r#"{{"membership":"{membership}"}}"#))
}

#[actix::test]
async fn rooms_without_other_servers_leave_nothing() {
    let engine = engine().await;
    let room = create(&engine, "12").await;
    engine.rooms.send(&room, message("alice", "hello")).await.unwrap();
    engine.rooms.send(&room, out("@bob:far.org", "invite")).await.unwrap();
    assert!(outbox(&engine).is_empty());
    assert!(stay(&engine, &room, "parlour.test").is_none());
    engine.stop().await;
}

#[actix::test]
async fn what_is_made_here_is_left_and_what_is_received_is_not() {
    let engine = engine().await;
    let room = shared(&engine).await;
    assert!(outbox(&engine).is_empty());
    let since = stay(&engine, &room, "far.org").unwrap();
    let newest = engine.store.room_head(num(&engine, &room)).unwrap().unwrap().pos;
    assert_eq!((since.since, since.until), (newest, None));
    assert_eq!(rooms_of(&engine, "far.org"), [(num(&engine, &room), None)]);
    let sent = engine.rooms.send(&room, message("alice", "hello")).await.unwrap();
    let theirs = parlour_actors::LocalEvent {
        sender: "@bob:far.org".try_into().unwrap(),
        ..message("bob", "hello yourself")
    };
    remote_event(&engine, &room, theirs).await;
    let waiting = outbox(&engine);
    assert_eq!(waiting.iter().map(|(pos, _)| *pos).collect::<Vec<_>>(), [sent.pos]);
    assert_eq!(engine.store.newest_outgoing(num(&engine, &room)).unwrap(), sent.pos);
    engine.stop().await;
}

#[actix::test]
async fn a_server_that_is_put_out_hears_of_it() {
    let engine = engine().await;
    let room = shared(&engine).await;
    remote_member(&engine, &room, "@carol:far.org", "join").await;
    let first = engine.rooms.send(&room, out("@bob:far.org", "leave")).await.unwrap();
    assert!(stay(&engine, &room, "far.org").unwrap().until.is_none(), "carol is still there");
    let last = engine.rooms.send(&room, out("@carol:far.org", "ban")).await.unwrap();
    let left: Vec<_> = outbox(&engine).into_iter().map(|(pos, entry)| (pos, entry.left)).collect();
    assert_eq!(left, [(first.pos, vec![]), (last.pos, vec!["far.org".to_owned()])]);
    let stay = stay(&engine, &room, "far.org").unwrap();
    assert!(stay.covers(last.pos) && !stay.covers(StreamPos(last.pos.0 + 1)));
    assert_eq!(rooms_of(&engine, "far.org"), [(num(&engine, &room), Some(last.pos))]);
    engine.rooms.send(&room, message("alice", "among ourselves")).await.unwrap();
    assert_eq!(outbox(&engine).len(), 2);
    engine.stop().await;
}

#[actix::test]
async fn who_was_invited_and_is_not_any_more_hears_of_it() {
    let engine = engine().await;
    let room = create(&engine, "12").await;
    engine.rooms.send(&room, out("@bob:far.org", "invite")).await.unwrap();
    engine.rooms.send(&room, message("alice", "where are they?")).await.unwrap();
    let over = engine.rooms.send(&room, out("@bob:far.org", "leave")).await.unwrap();
    let left: Vec<_> = outbox(&engine).into_iter().map(|(pos, entry)| (pos, entry.left)).collect();
    assert_eq!(left, [(over.pos, vec!["far.org".to_owned()])]);
    let stay = stay(&engine, &room, "far.org").unwrap();
    assert!(stay.covers(over.pos) && !stay.covers(StreamPos(over.pos.0 - 1)));
    // Who rejects an invite knows of it.
    engine.rooms.send(&room, out("@bob:near.org", "invite")).await.unwrap();
    remote_member(&engine, &room, "@bob:near.org", "leave").await;
    assert_eq!(outbox(&engine).len(), 1);
    engine.stop().await;
}

#[actix::test]
async fn a_server_that_leaves_by_itself_is_forgotten() {
    let engine = engine().await;
    let room = shared(&engine).await;
    remote_member(&engine, &room, "@bob:far.org", "leave").await;
    assert!(stay(&engine, &room, "far.org").is_none());
    assert!(rooms_of(&engine, "far.org").is_empty());
    remote_member(&engine, &room, "@bob:far.org", "join").await;
    assert!(stay(&engine, &room, "far.org").is_some());
    engine.stop().await;
}
