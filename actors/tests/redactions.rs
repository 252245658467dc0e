//! Redactions that come before what they redact.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{ops::Bound, sync::Arc};

use parlour_actors::{Backfilled, LocalEvent, Verdict};
use parlour_event::{Pdu, content::RelationKind};
use parlour_storage::{
    Direction,
    schema::{RelationGroup, ThreadEntry, relations},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use support::{object, peers::Peer};

/// A room of alice's on `far`, in which bob is from `near`, mallory from `other`; and the event that
/// all forks begin behind.
struct Scene {
    far: Peer,
    near: Peer,
    other: Peer,
    room: OwnedRoomId,
    fork: OwnedEventId,
}

impl Scene {
    async fn set(version: &str) -> Self {
        let far = Peer::start("far.test", None).await;
        let near = Peer::start("near.test", None).await;
        let other = Peer::start("other.test", None).await;
        let room = far.create(version, "alice").await;
        near.join(&far, &room, "bob").await;
        let mallory = other.ask_to_join(&far, &room, "mallory").await;
        assert_eq!(near.receive(&room, &mallory.join).await, Verdict::Accepted);
        let fork = mallory.join.event_id().clone();
        Self { far, near, other, room, fork }
    }

    /// An event of one of the servers' users behind an event.
    fn event(&self, peer: &Peer, user: &str, event: LocalEvent, prev: &OwnedEventId) -> Arc<Pdu> {
        let state = self.far.current(&self.room);
        let find = |kind: &str, key: &str| state.get(&(kind.to_owned(), key.to_owned()));
        let sender: OwnedUserId = peer.user(user);
        let create = find("m.room.create", "").filter(|_| self.room.server_name().is_some());
        let auth =
            [create, find("m.room.power_levels", ""), find("m.room.member", sender.as_str())];
        let auth: Vec<_> = auth.into_iter().flatten().collect();
        peer.build(&self.far, &self.room, event, &[prev], &auth)
    }

    fn redaction(&self, peer: &Peer, user: &str, target: &Pdu) -> Arc<Pdu> {
        let redaction = LocalEvent {
            event_type: "m.room.redaction".to_owned(),
            content: object("{}"),
            redacts: Some(target.event_id().clone()),
            ..peer.message(user, "")
        };
        self.event(peer, user, redaction, &self.fork)
    }

    /// Whether an event is redacted on `near`, and whether a redaction is kept from users there.
    fn found(&self, target: &Pdu, redaction: &Pdu) -> (bool, bool) {
        let meta = self.near.meta(target.event_id());
        let is_empty = self.near.pdu(target.event_id()).content().is_empty();
        assert_eq!(meta.redacted_because.is_some(), is_empty);
        (is_empty, self.near.meta(redaction.event_id()).flags.withheld)
    }

    async fn stop(self) {
        for peer in [self.far, self.near, self.other] {
            peer.engine.stop().await;
        }
    }
}

// Checklist 13.9
#[actix::test]
async fn a_redaction_waits_for_what_it_redacts() {
    for version in ["3", "10", "11", "12"] {
        let scene = Scene::set(version).await;
        let Scene { far, near, other, room, fork } = &scene;
        // Who may redact everything, who may redact what is of the same server, and who may not.
        let cases = [
            (far, "alice", (other, "mallory"), true),
            (other, "mallory", (other, "mallory"), true),
            (other, "mallory", (far, "alice"), false),
        ];
        for (by, user, (of, sender), applies) in cases {
            let text = format!("of {sender} to {user}");
            let target = scene.event(of, sender, of.message(sender, &text), fork);
            let redaction = scene.redaction(by, user, &target);
            assert_eq!(near.receive(room, &redaction).await, Verdict::Accepted, "{version}");
            assert!(near.meta(redaction.event_id()).flags.withheld, "{version}");
            // Once in flight, once stored.
            let rooms = &near.engine.rooms;
            let late = scene.event(of, sender, of.message(sender, &format!("{text} again")), fork);
            let second = scene.redaction(by, user, &late);
            let (first, last) = futures_util::future::join(
                rooms.receive(room, second.clone()),
                rooms.receive(room, late.clone()),
            )
            .await;
            assert_eq!((first.unwrap(), last.unwrap()), (Verdict::Accepted, Verdict::Accepted));
            assert_eq!(near.receive(room, &target).await, Verdict::Accepted, "{version}");
            for (target, redaction) in [(&target, &redaction), (&late, &second)] {
                assert_eq!(scene.found(target, redaction), (applies, !applies), "{version} {text}");
            }
        }
        scene.stop().await;
    }
}

// Checklist 13.9
#[actix::test]
async fn a_redaction_that_does_not_count_takes_no_ones_place() {
    let scene = Scene::set("11").await;
    let Scene { far, near, other, room, fork } = &scene;
    let target = scene.event(far, "alice", far.message("alice", "mine"), fork);
    let spite = scene.redaction(other, "mallory", &target);
    near.receive(room, &spite).await;
    assert_eq!(near.receive(room, &target).await, Verdict::Accepted);
    assert_eq!(scene.found(&target, &spite), (false, true));
    let own = scene.redaction(far, "alice", &target);
    near.receive(room, &own).await;
    assert_eq!(scene.found(&target, &own), (true, false));
    // One more of the same is no news, but true.
    let again = scene.redaction(near, "bob", &target);
    near.receive(room, &again).await;
    assert!(near.meta(again.event_id()).flags.withheld, "bob has no power");
    scene.stop().await;
}

// Checklist 13.9
#[actix::test]
async fn history_that_comes_late_is_redacted() {
    for version in ["2", "11"] {
        let far = Peer::start("far.test", None).await;
        let near = Peer::start("near.test", None).await;
        let room = far.create(version, "alice").await;
        let secret = far.say(&room, "alice", "secret").await;
        near.join(&far, &room, "bob").await;
        let redaction = LocalEvent {
            event_type: "m.room.redaction".to_owned(),
            content: object("{}"),
            redacts: Some(secret.event_id().clone()),
            ..far.message("alice", "")
        };
        let redaction = far.send(&room, redaction).await;
        assert_eq!(near.receive(&room, &redaction).await, Verdict::Accepted);
        assert_eq!(near.meta(redaction.event_id()).flags.withheld, version == "11");
        let before = far.events_of(far.meta(secret.event_id()).state_before);
        let state_before = before.iter().map(|pdu| pdu.event_id().clone()).collect();
        let event = Backfilled { pdu: secret.clone(), state_before: Some(state_before) };
        near.engine.rooms.backfill(&room, vec![event]).await.unwrap();
        assert!(near.pdu(secret.event_id()).content().is_empty());
        assert!(near.meta(secret.event_id()).redacted_because.is_some());
        assert!(!near.meta(redaction.event_id()).flags.withheld);
        far.engine.stop().await;
        near.engine.stop().await;
    }
}

/// Bob's reply in the thread of an event.
fn reply(scene: &Scene, root: &OwnedEventId, text: &str) -> Arc<Pdu> {
    let relation = format!(r#"{{"rel_type":"m.thread","event_id":"{root}"}}"#);
    let content = object(&format!(r#"{{"body":"{text}","m.relates_to":{relation}}}"#));
    let reply = LocalEvent { content, ..scene.near.message("bob", "") };
    scene.event(&scene.near, "bob", reply, &scene.fork)
}

// Checklist 13.9
#[actix::test]
async fn what_is_redacted_on_its_way_to_disk_is_nobodys_child_and_keeps_its_place() {
    let scene = Scene::set("11").await;
    let Scene { far, near, room, .. } = &scene;
    let root = far.say(room, "alice", "root").await;
    near.receive(room, &root).await;
    let root = root.event_id();
    let [first, second, third] = ["first", "second", "third"].map(|text| reply(&scene, root, text));
    let store = &near.engine.store;
    let thread = || {
        let key = relations::thread(near.num(room), root.as_str());
        let entry = store.typed::<ThreadEntry>(&key).unwrap();
        let group = RelationGroup::Direct(RelationKind::Thread);
        let parent = (near.num(room), root.as_str());
        let all = (Bound::Unbounded, Bound::Unbounded);
        let replies = store.relations(parent, group, all, Direction::Forward, 10).unwrap();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let threads = store.threads(near.num(room), all, Direction::Forward, 10).unwrap();
        assert_eq!(threads.len(), usize::from(entry.is_some()));
        (entry.map(|entry| (entry.count, entry.latest)), replies.len())
    };
    let latest = |pdu: &Pdu| {
        let num = store.event_num(pdu.event_id().as_str()).unwrap().unwrap();
        (near.meta(pdu.event_id()).depth, num)
    };
    let no = |target: &Pdu, why: u64| {
        let redaction = LocalEvent {
            event_type: "m.room.redaction".to_owned(),
            content: object(&format!(r#"{{"reason":"{why}"}}"#)),
            redacts: Some(target.event_id().clone()),
            ..near.message("bob", "")
        };
        scene.event(near, "bob", redaction, &scene.fork)
    };
    // All of them are on their way at once: a page of history is.
    let come = async |pdus: Vec<Arc<Pdu>>| {
        let page = pdus.into_iter().map(|pdu| Backfilled { pdu, state_before: None });
        near.engine.rooms.backfill(room, page.collect()).await.unwrap();
    };
    let (redaction, other) = (no(&second, 1), no(&third, 1));
    come(vec![first.clone(), second.clone(), third.clone(), redaction, other]).await;
    assert_eq!(thread(), (Some((1, latest(&first))), 1));
    let history = near.graph(room);
    for pdu in [&second, &third] {
        let meta = near.meta(pdu.event_id());
        assert!(meta.redacted_because.is_some());
        let place = (Bound::Included((meta.depth, meta.pos)), Bound::Unbounded);
        let found = store.graph(near.num(room), place, Direction::Forward, 1).unwrap();
        assert_eq!(found[0].1, latest(pdu).1, "{meta:?} in {history:?}");
    }
    // One that is redacted twice is taken back once.
    let fourth = reply(&scene, root, "fourth");
    come(vec![fourth.clone()]).await;
    assert_eq!(thread(), (Some((2, latest(&fourth))), 2));
    // Nothing is left of a page that is refused.
    let gap = far.say(room, "alice", "on something that is not here").await;
    let lonely = far.build(far, room, far.message("alice", "x"), &[gap.event_id()], &[]);
    let page = [no(&fourth, 0), lonely].map(|pdu| Backfilled { pdu, state_before: None });
    assert!(near.engine.rooms.backfill(room, page.into()).await.is_err());
    assert_eq!(thread(), (Some((2, latest(&fourth))), 2));
    come(vec![no(&fourth, 1), no(&fourth, 2)]).await;
    assert_eq!(thread(), (Some((1, latest(&first))), 1));
    come(vec![no(&first, 1)]).await;
    assert_eq!(thread(), (None, 0));
    scene.stop().await;
}
