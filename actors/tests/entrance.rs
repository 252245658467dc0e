//! Rooms of other servers are entered whole or not at all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parlour_actors::{
    Engine, Entrance, LocalEvent, RoomError, RoomLimits, Verdict, metrics::Metrics,
};
use parlour_event::{Pdu, RoomVersion, json};
use ruma::{EventId, OwnedRoomId, RoomId};
use support::{object, options, peers::Peer};

async fn peers() -> (Peer, Peer) {
    (Peer::start("far.test", None).await, Peer::start("near.test", None).await)
}

async fn stop(peers: &[&Peer]) {
    for peer in peers {
        peer.engine.stop().await;
    }
}

fn memberships(peer: &Peer, user: &str) -> Vec<String> {
    let found = peer.engine.store.memberships(peer.user(user).as_str()).unwrap();
    found.into_iter().map(|(_, entry)| entry.membership).collect()
}

#[actix::test]
async fn a_room_of_every_version_can_be_entered_and_talked_in() {
    for version in RoomVersion::all() {
        let (far, near) = peers().await;
        let room = far.create(version.id().as_str(), "alice").await;
        far.send(&room, far.member("carol", &far.user("carol"), "join")).await;
        far.say(&room, "alice", "before").await;
        let sent = near.join(&far, &room, "bob").await;
        assert_eq!(near.current(&room), far.current(&room), "version {}", version.id());
        assert_eq!(near.timeline(&room), std::slice::from_ref(&sent.event_id));
        assert_eq!(near.graph(&room), std::slice::from_ref(&sent.event_id));
        assert_eq!(near.extremities(&room), far.extremities(&room));
        let head = near.head(&room);
        assert_eq!((head.joined, head.invited, head.pos), (3, 0, sent.pos));
        assert_eq!(memberships(&near, "bob"), ["join"]);
        let servers = near.engine.store.servers_in_room(near.num(&room), 10).unwrap();
        assert_eq!(servers, [("far.test".to_owned(), 2), ("near.test".to_owned(), 1)]);
        // Both go on.
        let here = near.say(&room, "bob", "hello").await;
        assert_eq!(far.receive(&room, &here).await, Verdict::Accepted);
        let there =
            far.send(&room, far.state("alice", "m.room.topic", "", r#"{"topic":"a"}"#)).await;
        assert_eq!(near.receive(&room, &there).await, Verdict::Accepted);
        assert_eq!(near.current(&room), far.current(&room));
        assert_eq!(near.extremities(&room).len(), 1);
        stop(&[&far, &near]).await;
    }
}

#[actix::test]
async fn what_does_not_fit_together_is_refused_and_leaves_nothing() {
    let (far, near) = peers().await;
    let room = far.create("11", "alice").await;
    let good = near.ask_to_join(&far, &room, "bob").await;
    let is_create = |pdu: &Arc<Pdu>| pdu.event_type() == "m.room.create";
    let without_create = good.state.iter().filter(|pdu| !is_create(pdu)).cloned().collect();
    near.settle().await;
    let before = near.engine.store.applied();
    let bad = [
        Entrance { state: without_create, ..good.clone() },
        Entrance { state: Vec::new(), ..good.clone() },
        Entrance { version: RoomVersion::parse("10").unwrap(), ..good.clone() },
        Entrance { join: good.state[0].clone(), ..good.clone() },
    ];
    for entrance in bad {
        let refused = near.engine.rooms.enter(entrance).await;
        assert!(matches!(refused, Err(RoomError::BadEntrance(_))), "{refused:?}");
    }
    // The state does not let the user in.
    let rules = |pdu: &Arc<Pdu>| pdu.event_type() == "m.room.join_rules";
    let closed = good.state.iter().filter(|pdu| !rules(pdu)).cloned().collect();
    let refused = near.engine.rooms.enter(Entrance { state: closed, ..good.clone() }).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    assert_eq!(near.engine.store.applied(), before);
    assert_eq!(near.engine.rooms.awake(), 0);
    let sent = near.engine.rooms.send(&room, near.message("bob", "hello?")).await;
    assert!(matches!(sent, Err(RoomError::UnknownRoom)), "{sent:?}");
    // What comes of the room before anybody is in it meets nothing.
    let create = good.state.iter().find(|pdu| is_create(pdu)).unwrap();
    let received = near.engine.rooms.receive(&room, create.clone()).await;
    assert!(matches!(received, Err(RoomError::UnknownRoom)), "{received:?}");
    near.engine.rooms.enter(good).await.unwrap();
    assert_eq!(near.current(&room), far.current(&room));
    stop(&[&far, &near]).await;
}

#[actix::test]
async fn what_of_a_state_is_not_allowed_is_left_out() {
    let (far, near) = peers().await;
    let room = far.create("10", "alice").await;
    let mut good = near.ask_to_join(&far, &room, "bob").await;
    let alien = Peer::start("alien.test", None).await;
    let other = alien.create("10", "alice").await;
    let events = far.timeline(&room);
    // Mallory never was in the room; and an event of another room.
    let forged = near.build(
        &far,
        &room,
        near.state("mallory", "m.room.name", "", r#"{"name":"mine"}"#),
        &[&events[3]],
        &[&events[0], &events[2]],
    );
    good.state.push(forged.clone());
    good.state.push(alien.pdu(&alien.timeline(&other)[2]));
    near.engine.rooms.enter(good).await.unwrap();
    assert_eq!(near.current(&room), far.current(&room));
    assert!(near.meta(forged.event_id()).flags.rejected);
    stop(&[&far, &near, &alien]).await;
}

#[actix::test]
async fn a_room_with_a_number_and_nothing_else_can_be_entered() {
    let (far, near) = peers().await;
    let room = far.create("12", "alice").await;
    let (num, ops) = near.engine.rooms.number(&room).unwrap();
    let announcement = parlour_actors::commit::Announcement::Nothing;
    let change = parlour_actors::commit::Ops { ops, announcement };
    near.engine.persister.commit(Box::new(change)).await.unwrap();
    assert_eq!(near.engine.rooms.number(&room).unwrap(), (num, Vec::new()));
    let sent = near.engine.rooms.send(&room, near.message("bob", "hello?")).await;
    assert!(matches!(sent, Err(RoomError::UnknownRoom)), "{sent:?}");
    near.join(&far, &room, "bob").await;
    assert_eq!(near.num(&room), num);
    stop(&[&far, &near]).await;
}

#[actix::test]
async fn two_who_enter_at_once_are_both_in() {
    let (far, near) = peers().await;
    let room = far.create("12", "alice").await;
    let bob = near.ask_to_join(&far, &room, "bob").await;
    let dora = near.ask_to_join(&far, &room, "dora").await;
    let rooms = &near.engine.rooms;
    let (bob, dora) =
        futures_util::future::join(rooms.enter(bob.clone()), rooms.enter(dora.clone())).await;
    let (bob, dora) = (bob.unwrap(), dora.unwrap());
    assert_eq!(near.current(&room), far.current(&room));
    assert_eq!(near.timeline(&room), [bob.event_id, dora.event_id.clone()]);
    assert_eq!(near.extremities(&room).into_iter().collect::<Vec<_>>(), [dora.event_id]);
    stop(&[&far, &near]).await;
}

#[actix::test]
async fn who_comes_back_finds_the_room_as_it_is_now() {
    for version in ["6", "10", "12"] {
        let (far, near) = peers().await;
        let room = far.create(version, "alice").await;
        near.join(&far, &room, "bob").await;
        let left = near.send(&room, near.member("bob", &near.user("bob"), "leave")).await;
        assert_eq!(far.receive(&room, &left).await, Verdict::Accepted);
        assert_eq!(near.head(&room).joined, 1);
        // What happens now is not told to a server without users in the room.
        for topic in ["one", "two"] {
            let content = format!(r#"{{"topic":"{topic}"}}"#);
            far.send(&room, far.state("alice", "m.room.topic", "", &content)).await;
        }
        far.send(&room, far.member("alice", &near.user("dora"), "ban")).await;
        let sent = near.join(&far, &room, "bob").await;
        assert_eq!(near.current(&room), far.current(&room), "version {version}");
        assert_eq!(memberships(&near, "bob"), ["join"]);
        assert_eq!(memberships(&near, "dora"), ["ban"]);
        assert_eq!(near.extremities(&room), [sent.event_id.clone()].into());
        let again = near.engine.rooms.enter(near_again(&near, &far, &room, &sent.event_id)).await;
        assert_eq!(again.unwrap().event_id, sent.event_id, "it is known");
        let back = near.say(&room, "bob", "back").await;
        assert_eq!(far.receive(&room, &back).await, Verdict::Accepted);
        let next = far.say(&room, "alice", "welcome").await;
        assert_eq!(near.receive(&room, &next).await, Verdict::Accepted);
        assert_eq!(near.current(&room), far.current(&room), "version {version}");
        stop(&[&far, &near]).await;
    }
}

#[actix::test]
async fn who_comes_back_leaves_behind_what_others_never_heard_of() {
    for version in ["6", "10", "12"] {
        let (far, near) = peers().await;
        let room = far.create(version, "alice").await;
        near.join(&far, &room, "bob").await;
        // Of two rules that were made at the same time, resolution takes that of who has less power:
        // put together with this, the join would come to nothing.
        near.send(&room, near.state("bob", "m.room.join_rules", "", r#"{"join_rule":"invite"}"#))
            .await;
        near.send(&room, near.member("bob", &near.user("bob"), "leave")).await;
        far.send(
            &room,
            far.state("alice", "m.room.join_rules", "", r#"{"join_rule":"public","a":1}"#),
        )
        .await;
        let sent = near.join(&far, &room, "bob").await;
        assert_eq!(near.current(&room), far.current(&room), "version {version}");
        assert_eq!(near.extremities(&room), [sent.event_id].into());
        assert_eq!(memberships(&near, "bob"), ["join"]);
        let back = near.say(&room, "bob", "back").await;
        assert_eq!(far.receive(&room, &back).await, Verdict::Accepted);
        stop(&[&far, &near]).await;
    }
}

fn near_again(near: &Peer, far: &Peer, room: &RoomId, join: &EventId) -> Entrance {
    let join = near.pdu(&join.to_owned());
    let state = far.events_of(far.meta(join.event_id()).state_before);
    let version = RoomVersion::parse(&far.head(room).version).unwrap();
    let auth_chain = far.auth_chain(&state);
    Entrance { room_id: room.to_owned(), version, join, state, auth_chain }
}

/// Counts groups of commits that one flush makes durable.
#[derive(Debug, Default)]
struct Commits {
    groups: AtomicUsize,
}

impl Metrics for Commits {
    fn committed(&self, _: usize, _: Duration, _: Duration) {
        self.groups.fetch_add(1, Ordering::SeqCst);
    }
}

/// An event that nobody has signed: rooms don't look at signatures.
fn unsigned(event: &LocalEvent, id: &str, prev: &str, auth: &[&str], room: &RoomId) -> Arc<Pdu> {
    let version = RoomVersion::parse("10").unwrap();
    let list = |ids: &[&str]| {
        json::Value::Array(ids.iter().map(|id| json::Value::String((*id).to_owned())).collect())
    };
    let mut event_json = object(r#"{"depth":7,"hashes":{"sha256":""},"signatures":{}}"#);
    let mut put = |key: &str, value| event_json.insert(key.to_owned(), value);
    put("type", event.event_type.clone().into());
    put("state_key", event.state_key.clone().unwrap().into());
    put("sender", event.sender.to_string().into());
    put("room_id", room.to_string().into());
    put("origin_server_ts", json::Value::Integer(5));
    put("content", json::Value::Object(event.content.clone()));
    put("prev_events", list(&[prev]));
    put("auth_events", list(auth));
    let id = EventId::parse(id).unwrap();
    Arc::new(Pdu::from_trusted(version, id, event_json).unwrap())
}

/// What a server says of a room with so many members.
async fn large_room(far: &Peer, near: &Peer, members: usize) -> (OwnedRoomId, Entrance) {
    let room = far.create("10", "alice").await;
    let mut entrance = near.ask_to_join(far, &room, "bob").await;
    let events = far.timeline(&room);
    let auth = [events[0].as_str(), events[2].as_str(), events[3].as_str()];
    for number in 0..members {
        let server = format!("s{}.test", number % 100);
        let user = format!("@user{number}:{server}");
        let event = LocalEvent {
            sender: user.as_str().try_into().unwrap(),
            ..support::state("x", "m.room.member", &user, r#"{"membership":"join"}"#)
        };
        let id = format!("$member{number:037}");
        entrance.state.push(unsigned(&event, &id, events[3].as_str(), &auth, &room));
    }
    (room, entrance)
}

#[actix::test]
async fn a_room_of_five_thousand_is_one_commit() {
    let far = Peer::start("far.test", None).await;
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(Commits::default());
    let mut options = options(Some(dir.path()), RoomLimits::default());
    options.server_name = "near.test".try_into().unwrap();
    options.metrics = commits.clone();
    let name = options.server_name.clone();
    let near = Peer { engine: Engine::start(options).await.unwrap(), name };
    let (room, entrance) = large_room(&far, &near, 5_000).await;
    let other = near.create("12", "dora").await;
    near.settle().await;
    let before = commits.groups.load(Ordering::SeqCst);
    let sent = near.engine.rooms.enter(entrance).await.unwrap();
    assert_eq!(commits.groups.load(Ordering::SeqCst), before + 1, "one flush");
    let head = near.head(&room);
    assert_eq!((head.joined, head.pos), (5_002, sent.pos));
    assert_eq!(near.current(&room).len(), 5_005);
    let servers = near.engine.store.servers_in_room(near.num(&room), 1_000).unwrap();
    assert_eq!(servers.len(), 102);
    assert_eq!(servers.iter().map(|(_, joined)| joined).sum::<u64>(), 5_002);
    near.say(&room, "bob", "hello, all of you").await;
    near.say(&other, "dora", "quiet here").await;
    stop(&[&far, &near]).await;
}

/// What the server signs with: there is no start without it.
const KEY_FILE: &str = "signing.key";

/// The one segment that a young log has.
fn log_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.metadata().unwrap().len() > 0).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[actix::test]
async fn a_power_cut_leaves_all_of_an_entrance_or_nothing() {
    let far = Peer::start("far.test", None).await;
    let dir = tempfile::tempdir().unwrap();
    let near = Peer::start("near.test", Some(dir.path())).await;
    stop(&[&near]).await;
    let before = fs::metadata(log_file(dir.path())).unwrap().len();
    let near = Peer::start("near.test", Some(dir.path())).await;
    // So many that the outliers make more than one commit.
    let (room, entrance) = large_room(&far, &near, 3_000).await;
    near.engine.rooms.enter(entrance.clone()).await.unwrap();
    stop(&[&near]).await;
    let whole = fs::read(log_file(dir.path())).unwrap();
    let mut survived = 0;
    for part in 0..=8_u64 {
        let cut = tempfile::tempdir().unwrap();
        let length = before + (whole.len() as u64 - before) * part / 8;
        let kept = whole.get(..usize::try_from(length).unwrap()).unwrap();
        fs::create_dir(cut.path().join("log")).unwrap();
        fs::copy(dir.path().join(KEY_FILE), cut.path().join(KEY_FILE)).unwrap();
        let name = log_file(dir.path()).file_name().unwrap().to_owned();
        fs::write(cut.path().join("log").join(name), kept).unwrap();
        let near = Peer::start("near.test", Some(cut.path())).await;
        if near.engine.store.room_num(room.as_str()).unwrap().is_some() {
            survived += 1;
        } else {
            assert_eq!(memberships(&near, "bob"), [""; 0]);
            // What is left of it is in nobody's way: not in that of another room, nor of this one.
            let other = near.create("12", "dora").await;
            near.engine.rooms.enter(entrance.clone()).await.unwrap();
            assert_ne!(near.num(&other), near.num(&room));
            assert_eq!(near.head(&other).joined, 1);
        }
        assert_eq!(near.head(&room).joined, 3_002, "after {part} of 8 parts");
        assert_eq!(memberships(&near, "bob"), ["join"]);
        assert_eq!(near.timeline(&room).len(), 1);
        stop(&[&near]).await;
    }
    assert_eq!(survived, 1, "only the whole entrance is one");
    stop(&[&far]).await;
}
