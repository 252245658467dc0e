//! A room is born with all of its first events, its alias and its entry in the directory, or not
//! at all: also if the power goes in the middle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use parlour_actors::{Engine, NewRoom, RoomLimits, directory::AliasError};
use parlour_event::RoomNum;
use parlour_storage::{
    Direction,
    schema::{MadeRoom, keys},
};
use ruma::OwnedRoomId;
use support::{member, options, public_room, state, user};

const ALIAS: &str = "#born:parlour.test";

/// What the server signs with: there is no start without it.
const KEY_FILE: &str = "signing.key";

async fn start(dir: &Path) -> Engine {
    Engine::start(options(Some(dir), RoomLimits::default())).await.unwrap()
}

/// A published room with an alias and an invitation.
fn new_room(engine: &Engine) -> NewRoom {
    let mut new = public_room("12", "alice");
    new.events.push(state("alice", "m.room.name", "", r#"{"name":"A"}"#));
    new.events.push(member("alice", "bob", "invite"));
    new.alias = Some(engine.directory.claim(ALIAS).unwrap());
    new.published = true;
    new.made_for = Some(keys::notice_room("somebody"));
    new
}

/// The one segment that a young log has.
fn log_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.metadata().unwrap().len() > 0).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// The room that is known by what it was made for.
fn made(engine: &Engine) -> Option<String> {
    let made = engine.store.typed::<MadeRoom>(&keys::notice_room("somebody")).unwrap();
    made.map(|made| made.room_id)
}

/// Whether the room is there; if it is, all of it must be.
fn is_there(engine: &Engine, room_id: &OwnedRoomId) -> bool {
    let store = &engine.store;
    let Some(room) = store.room_num(room_id.as_str()).unwrap() else {
        assert_eq!(engine.directory.alias(ALIAS).unwrap(), None);
        assert_eq!(engine.directory.published().unwrap(), []);
        assert_eq!(made(engine), None);
        for name in ["alice", "bob"] {
            assert_eq!(store.memberships(user(name).as_str()).unwrap(), []);
        }
        return false;
    };
    let head = store.room_head(room).unwrap().unwrap();
    assert_eq!((head.joined, head.invited), (1, 1));
    assert_eq!(engine.directory.alias(ALIAS).unwrap().unwrap().room, room);
    assert_eq!(engine.directory.aliases_of(room).unwrap(), [ALIAS]);
    assert_eq!(engine.directory.published().unwrap(), [room]);
    assert_eq!(made(engine).as_deref(), Some(room_id.as_str()));
    let membership = |name: &str| {
        let found = store.membership(user(name).as_str(), room).unwrap().unwrap();
        (found.membership, found.pos == head.pos)
    };
    assert_eq!(membership("alice"), ("join".to_owned(), true));
    assert_eq!(membership("bob"), ("invite".to_owned(), true));
    assert_eq!(timeline(engine, room), 6);
    true
}

fn timeline(engine: &Engine, room: RoomNum) -> usize {
    use std::ops::Bound::Unbounded;
    engine.store.timeline(room, (Unbounded, Unbounded), Direction::Forward, 100).unwrap().len()
}

#[actix::test]
async fn a_power_cut_leaves_all_of_a_new_room_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    engine.stop().await;
    let before = fs::metadata(log_file(dir.path())).unwrap().len();
    let engine = start(dir.path()).await;
    let (room_id, _) = engine.rooms.create(new_room(&engine)).await.unwrap();
    assert!(is_there(&engine, &room_id));
    engine.stop().await;
    drop(engine);
    let whole = fs::read(log_file(dir.path())).unwrap();
    let mut survived = 0;
    for part in 0..=20_u64 {
        let cut = tempfile::tempdir().unwrap();
        let length = before + (whole.len() as u64 - before) * part / 20;
        let kept = whole.get(..usize::try_from(length).unwrap()).unwrap();
        fs::create_dir(cut.path().join("log")).unwrap();
        fs::copy(dir.path().join(KEY_FILE), cut.path().join(KEY_FILE)).unwrap();
        let name = log_file(dir.path()).file_name().unwrap().to_owned();
        fs::write(cut.path().join("log").join(name), kept).unwrap();
        let engine = start(cut.path()).await;
        match is_there(&engine, &room_id) {
            true => survived += 1,
            // What is left of it is in nobody's way.
            false => {
                let (next, _) = engine.rooms.create(new_room(&engine)).await.unwrap();
                assert!(is_there(&engine, &next), "after {part} of 20 parts");
            }
        }
        engine.stop().await;
    }
    assert_eq!(survived, 1, "only the whole room is one");
}

#[actix::test]
async fn the_alias_of_a_room_that_is_refused_is_free_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let mut refused = new_room(&engine);
    assert!(matches!(engine.directory.claim(ALIAS), Err(AliasError::Taken)));
    refused.events.push(member("alice", "alice", "invite"));
    engine.rooms.create(refused).await.unwrap_err();
    assert_eq!(engine.directory.published().unwrap(), []);
    let (room_id, _) = engine.rooms.create(new_room(&engine)).await.unwrap();
    assert!(is_there(&engine, &room_id));
    assert!(matches!(engine.directory.claim(ALIAS), Err(AliasError::Taken)));
    engine.stop().await;
}

#[actix::test]
async fn aliases_move_with_their_creators() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let (directory, room) = (&engine.directory, RoomNum);
    for (alias, creator) in [("#a:parlour.test", "alice"), ("#b:parlour.test", "bob")] {
        let claim = directory.claim(alias).unwrap();
        directory.add(claim, room(1), user(creator).as_str()).await.unwrap();
    }
    directory.move_alias("#b:parlour.test", room(1), room(2)).await.unwrap();
    // It is not in the first room any more.
    directory.move_alias("#b:parlour.test", room(1), room(3)).await.unwrap();
    directory.move_alias("#c:parlour.test", room(1), room(3)).await.unwrap();
    assert_eq!(directory.aliases_of(room(1)).unwrap(), ["#a:parlour.test"]);
    assert_eq!(directory.aliases_of(room(2)).unwrap(), ["#b:parlour.test"]);
    assert_eq!(directory.aliases_of(room(3)).unwrap(), [""; 0]);
    let entry = directory.alias("#b:parlour.test").unwrap().unwrap();
    assert_eq!((entry.room, &*entry.creator), (room(2), user("bob").as_str()));
    engine.stop().await;
}
