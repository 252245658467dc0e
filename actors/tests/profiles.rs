//! A new name or avatar reaches the rooms of its user, and only those, whatever happens meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use parlour_actors::{
    Engine, RoomLimits,
    users::{ProfileChange, ProfileError},
};
use parlour_storage::schema::{User, keys};
use ruma::RoomId;
use serde_json::{Value, json};
use support::{create, engine, member, options, user};

async fn register(engine: &Engine, who: &str) {
    engine.users.register(user(who).as_str(), User::default(), None).await.unwrap();
}

async fn rename(engine: &Engine, who: &str, name: &str) {
    let change = ProfileChange::DisplayName(Some(name.to_owned()));
    engine.users.set_profile(user(who).as_str(), change).await.unwrap();
}

/// The content of a user's member event, and its event id.
fn said(engine: &Engine, room: &RoomId, who: &str) -> (Value, String) {
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let entry = engine.store.membership(user(who).as_str(), num).unwrap().unwrap();
    let event = engine.store.event(entry.event).unwrap().unwrap();
    let json: Value = serde_json::from_slice(&event.json).unwrap();
    (json["content"].clone(), event.meta.event_id)
}

fn is_on_its_way(engine: &Engine, who: &str) -> bool {
    engine.store.get(&keys::profile_spread(user(who).as_str())).unwrap().is_some()
}

/// Waits until the profile has come into all rooms. Nobody is told when that is, so it is looked.
async fn all_told(engine: &Engine, who: &str) {
    let wait = async {
        while is_on_its_way(engine, who) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

#[actix::test]
async fn a_new_name_comes_into_joined_rooms_only() {
    let engine = engine().await;
    register(&engine, "alice").await;
    let (joined, left) = (create(&engine, "12").await, create(&engine, "10").await);
    engine.rooms.send(&left, member("alice", "alice", "leave")).await.unwrap();
    let before = said(&engine, &left, "alice");

    rename(&engine, "alice", "Alice").await;
    all_told(&engine, "alice").await;
    let (content, event) = said(&engine, &joined, "alice");
    assert_eq!(content, json!({ "membership": "join", "displayname": "Alice" }));
    assert_eq!(said(&engine, &left, "alice"), before);

    // The same again is no change, and makes no event.
    rename(&engine, "alice", "Alice").await;
    assert!(!is_on_its_way(&engine, "alice"));
    assert_eq!(said(&engine, &joined, "alice").1, event);

    let avatar = ProfileChange::AvatarUrl(Some("mxc://parlour.test/cat".to_owned()));
    engine.users.set_profile(user("alice").as_str(), avatar).await.unwrap();
    engine
        .users
        .set_profile(user("alice").as_str(), ProfileChange::DisplayName(None))
        .await
        .unwrap();
    all_told(&engine, "alice").await;
    let expected = json!({ "membership": "join", "avatar_url": "mxc://parlour.test/cat" });
    assert_eq!(said(&engine, &joined, "alice").0, expected);
    engine.stop().await;
}

#[actix::test]
async fn many_rooms_and_many_changes_end_with_the_last_one() {
    let engine = engine().await;
    register(&engine, "alice").await;
    let mut rooms = Vec::new();
    for _ in 0..40 {
        rooms.push(create(&engine, "11").await);
    }
    for number in 0..20 {
        rename(&engine, "alice", &format!("Alice {number}")).await;
    }
    all_told(&engine, "alice").await;
    for room in &rooms {
        assert_eq!(said(&engine, room, "alice").0["displayname"], "Alice 19");
    }
    engine.stop().await;
}

#[actix::test]
async fn what_could_not_be_told_is_told_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = |limits| Engine::start(options(Some(dir.path()), limits));
    let first = start(RoomLimits::default()).await.unwrap();
    register(&first, "alice").await;
    let room = create(&first, "12").await;
    first.stop().await;
    drop(first);

    // A server whose rooms are too busy for everything.
    let busy = start(RoomLimits { queue_per_room: 0, ..RoomLimits::default() }).await.unwrap();
    rename(&busy, "alice", "Alice").await;
    assert!(is_on_its_way(&busy, "alice"));
    busy.stop().await;
    drop(busy);

    let again = start(RoomLimits::default()).await.unwrap();
    all_told(&again, "alice").await;
    assert_eq!(said(&again, &room, "alice").0["displayname"], "Alice");
    again.stop().await;
}

#[actix::test]
async fn a_profile_is_bounded_and_needs_an_account() {
    let engine = engine().await;
    let set = async |name: &str, value: Option<String>| {
        let change = ProfileChange::Field(name.to_owned(), value);
        engine.users.set_profile(user("alice").as_str(), change).await
    };
    let nobody = set("a.b", Some("1".to_owned())).await;
    assert!(matches!(nobody, Err(ProfileError::UnknownUser)), "{nobody:?}");
    register(&engine, "alice").await;
    let half = Value::String("x".repeat(40_000)).to_string();
    set("a.first", Some(half.clone())).await.unwrap();
    let too_much = set("a.second", Some(half.clone())).await;
    assert!(matches!(too_much, Err(ProfileError::TooLarge)), "{too_much:?}");
    set("a.first", None).await.unwrap();
    set("a.second", Some(half)).await.unwrap();
    // Fields of which rooms know nothing do not concern them.
    assert!(!is_on_its_way(&engine, "alice"));
    engine.stop().await;
}
