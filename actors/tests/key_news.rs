//! What other servers are told of users' devices, with servers that are made up and a clock that
//! is moved by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use parlour_actors::{
    env::ManualClock,
    users::{NewDevice, NewKeys, TokenKind},
};
use parlour_event::StreamPos;
use parlour_storage::schema::User;
use serde_json::{Value, json};
use support::{member, user};
use world::{START, Server, World, server, start};

/// Publishes keys of a device, new ones each time.
async fn publish(server: &Server, name: &str, device: &str, version: u64) {
    let (users, id) = (&server.engine.users, user(name));
    if users.account(id.as_str()).unwrap().is_none() {
        users.register(id.as_str(), User::default(), None).await.unwrap();
    }
    let new = NewDevice {
        device_id: Some(device.to_owned()),
        display_name: None,
        ip: Ipv4Addr::LOCALHOST.into(),
        user_agent: None,
        kind: TokenKind { refreshable: false, expires_in_ms: None },
    };
    if users.device(id.as_str(), device).unwrap().is_none() {
        users.login(id.as_str(), new).await.unwrap();
    }
    let keys = json!({ "version": version }).to_string();
    let new = NewKeys { device_keys: Some(keys.into()), ..NewKeys::default() };
    users.upload_keys(id.as_str(), device, new).await.unwrap();
}

/// What a server has heard: user, device, id, the one before.
fn heard(world: &World, server: &str) -> Vec<(String, String, u64, Option<u64>)> {
    let edus = world.edus(server).into_iter();
    let updates = edus.filter(|edu| edu["edu_type"] == "m.device_list_update");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let read = |edu: Value| {
        let content = &edu["content"];
        let (id, prev) = (content["id"].as_u64().unwrap(), content["prev"].as_u64());
        (text(&content["user"]), text(&content["device"]), id, prev)
    };
    updates.map(read).collect()
}

fn update(name: &str, device: &str, id: u64) -> (String, String, u64, Option<u64>) {
    let prev = Some(id - 1).filter(|id| *id > 0);
    (user(name).to_string(), device.to_owned(), id, prev)
}

async fn until_heard(server: &Server, to: &str, count: usize) {
    server.pass_until(Duration::from_secs(30), |world| heard(world, to).len() >= count).await;
}

async fn until_forgotten(server: &Server) {
    for _ in 0..2_000 {
        if server.engine.store.key_news(StreamPos(0), 1).unwrap().is_empty() {
            return;
        }
        server.pass(Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("something is left");
}

// Checklist 5.14, 12.6
#[actix::test]
async fn changes_are_told_once_to_whoever_shares_a_room() {
    let server = server().await;
    let room = server.room_with(&["far.org", "near.org", "denied.org"]).await;
    let other = server.room_with(&["far.org"]).await;
    publish(&server, "alice", "A", 1).await;
    publish(&server, "alice", "B", 1).await;
    publish(&server, "alice", "A", 1).await;
    publish(&server, "nobody", "N", 1).await;
    server.engine.users.name_device(user("alice").as_str(), "B", "b".to_owned()).await.unwrap();
    server.engine.users.logout_all(user("alice").as_str()).await.unwrap();
    let expected = [("A", 1), ("B", 2), ("B", 3), ("A", 4), ("B", 5)];
    let expected = expected.map(|(device, id)| update("alice", device, id));
    for far in ["far.org", "near.org"] {
        until_heard(&server, far, 5).await;
        assert_eq!(heard(&server.world, far), expected);
    }
    until_forgotten(&server).await;
    // Who comes where more servers are is told of to those alone that do not know it.
    publish(&server, "bob", "X", 1).await;
    publish(&server, "bob", "X", 2).await;
    let join = |name: &str| member(name, name, "join");
    server.engine.rooms.send(&other, join("bob")).await.unwrap();
    until_heard(&server, "far.org", 6).await;
    server.engine.rooms.send(&room, join("bob")).await.unwrap();
    until_heard(&server, "near.org", 6).await;
    for far in ["far.org", "near.org"] {
        assert_eq!(heard(&server.world, far)[5..], [update("bob", "X", 2)]);
    }
    publish(&server, "bob", "X", 3).await;
    until_heard(&server, "far.org", 7).await;
    assert_eq!(heard(&server.world, "far.org")[6], update("bob", "X", 3));
    assert!(server.world.tried("denied.org").is_empty());
    until_forgotten(&server).await;
    server.stop().await;
}

// Checklist 12.6
#[actix::test]
async fn a_dead_server_hears_of_it_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(Some(dir.path()), Arc::default(), Arc::new(ManualClock::at(START))).await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    publish(&server, "alice", "A", 0).await;
    until_heard(&server, "far.org", 1).await;
    server.world.fail("far.org");
    server.say(&room, "are you there?").await;
    server.pass_until(Duration::from_secs(60), |world| world.tried("far.org").len() > 10).await;
    for version in 1..=30 {
        publish(&server, "alice", "A", version).await;
    }
    for name in ["bob", "carol"] {
        let join = member(name, name, "join");
        server.engine.rooms.send(&room, join).await.unwrap();
        publish(&server, name, "X", 1).await;
    }
    until_heard(&server, "near.org", 33).await;
    // Nobody else has to wait for it.
    until_forgotten(&server).await;
    let (world, clock) = server.stop().await;
    let server = start(Some(dir.path()), world, clock).await;
    publish(&server, "carol", "X", 2).await;
    server.world.heal("far.org");
    until_heard(&server, "far.org", 5).await;
    // Alice's newest update alone: who knows none before asks for the list.
    let mut all = heard(&server.world, "far.org")[1..].to_vec();
    all.sort();
    let expected = [("alice", "A", 31), ("bob", "X", 1), ("carol", "X", 1), ("carol", "X", 2)];
    assert_eq!(all, expected.map(|(name, device, id)| update(name, device, id)));
    publish(&server, "alice", "A", 99).await;
    until_heard(&server, "far.org", 6).await;
    assert_eq!(heard(&server.world, "far.org")[5], update("alice", "A", 32));
    until_forgotten(&server).await;
    server.stop().await;
}

// Checklist 12.6
#[actix::test]
async fn what_is_not_told_at_a_stop_is_told_after_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(Some(dir.path()), Arc::default(), Arc::new(ManualClock::at(START))).await;
    server.room_with(&["far.org"]).await;
    server.world.fail("far.org");
    publish(&server, "alice", "A", 1).await;
    server.until(|world| !world.tried("far.org").is_empty()).await;
    let (world, clock) = server.stop().await;
    let server = start(Some(dir.path()), world, clock).await;
    server.world.heal("far.org");
    until_heard(&server, "far.org", 1).await;
    // This one is on its way while the server ends.
    let closed = server.world.gate.lock().await;
    publish(&server, "alice", "A", 2).await;
    server.until(|world| world.under_way("far.org")).await;
    server.queues.stop().await;
    drop(closed);
    server.engine.stop().await;
    let server = start(Some(dir.path()), Arc::default(), server.clock.clone()).await;
    until_heard(&server, "far.org", 1).await;
    assert_eq!(heard(&server.world, "far.org"), [update("alice", "A", 2)]);
    server.stop().await;
}
