//! What rooms make of events that come from other servers: late, out of order, with gaps, refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::HashSet, sync::Arc};

use parlour_actors::{Backfilled, RoomError, Verdict};
use parlour_event::{EventNum, Pdu, StreamPos};
use ruma::{OwnedEventId, RoomId};
use support::peers::Peer;

/// Two servers in one room: alice is on `far`, bob on `near`.
async fn shared(version: &str) -> (Peer, Peer, ruma::OwnedRoomId) {
    let far = Peer::start("far.test", None).await;
    let near = Peer::start("near.test", None).await;
    let room = far.create(version, "alice").await;
    near.join(&far, &room, "bob").await;
    (far, near, room)
}

async fn stop(peers: &[&Peer]) {
    for peer in peers {
        peer.engine.stop().await;
    }
}

fn ids(pdus: &[Arc<Pdu>]) -> Vec<OwnedEventId> {
    pdus.iter().map(|pdu| pdu.event_id().clone()).collect()
}

/// The state before an event, as the server says that has it.
fn state_before(peer: &Peer, id: &OwnedEventId) -> Vec<Arc<Pdu>> {
    peer.events_of(peer.meta(id).state_before)
}

fn backward(peer: &Peer, room: &RoomId) -> Vec<(String, u64)> {
    peer.engine.store.backward_extremities(peer.num(room), 10).unwrap()
}

fn missing(result: Result<Verdict, RoomError>) -> HashSet<OwnedEventId> {
    match result {
        Err(RoomError::Missing(ids)) => ids.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn an_outlier_is_no_place_to_build_on_until_it_arrives_as_an_event() {
    for version in ["2", "10", "12"] {
        let (far, near, room) = shared(version).await;
        let topic = far.state("alice", "m.room.topic", "", r#"{"topic":"one"}"#);
        let topic = far.send(&room, topic).await;
        let said = far.say(&room, "alice", "hello").await;
        let head = near.head(&room);
        near.engine.rooms.outliers(&room, vec![topic.clone()]).await.unwrap();
        let meta = near.meta(topic.event_id());
        assert!(meta.flags.outlier && !meta.flags.rejected && meta.pos == StreamPos(0));
        assert_eq!(near.head(&room), head);
        let num = near.engine.store.event_num(topic.event_id().as_str()).unwrap().unwrap();
        let off = near.engine.store.off_timeline(near.num(&room), EventNum(0), 100).unwrap();
        assert!(off.contains(&num));
        // Again does nothing.
        near.settle().await;
        let applied = near.engine.store.applied();
        near.engine.rooms.outliers(&room, vec![topic.clone()]).await.unwrap();
        assert_eq!(near.engine.store.applied(), applied);
        let refused = near.engine.rooms.receive(&room, said.clone()).await;
        assert_eq!(missing(refused), HashSet::from([topic.event_id().clone()]));
        // Both at once: what is in flight is as good as what is stored.
        let rooms = &near.engine.rooms;
        let (first, second) = futures_util::future::join(
            rooms.receive(&room, topic.clone()),
            rooms.receive(&room, said.clone()),
        )
        .await;
        assert_eq!((first.unwrap(), second.unwrap()), (Verdict::Accepted, Verdict::Accepted));
        assert_eq!(near.receive(&room, &topic).await, Verdict::Known);
        assert_eq!(near.current(&room), far.current(&room), "version {version}");
        let meta = near.meta(topic.event_id());
        assert!(!meta.flags.outlier && meta.pos > head.pos);
        let stored = near.engine.store.event_num(topic.event_id().as_str()).unwrap();
        assert_eq!(stored, Some(num), "it keeps its number");
        let off = near.engine.store.off_timeline(near.num(&room), EventNum(0), 100).unwrap();
        assert!(!off.contains(&num));
        stop(&[&far, &near]).await;
    }
}

#[actix::test]
async fn outliers_are_judged_by_their_auth_events() {
    let (far, near, room) = shared("10").await;
    let events = far.timeline(&room);
    let (create, alice, power) = (&events[0], &events[1], &events[2]);
    let name = |peer: &Peer, sender: &str| peer.state(sender, "m.room.name", "", "{}");
    let good = far.build(&far, &room, name(&far, "alice"), &[power], &[create, alice, power]);
    let bad = far.build(&far, &room, name(&far, "mallory"), &[power], &[create, power]);
    let sent = far.send(&room, far.member("carol", &far.user("carol"), "join")).await;
    let carol = far.send(&room, name(&far, "carol")).await;
    let other = far.create("10", "alice").await;
    let alien = far.pdu(&far.timeline(&other)[2]);
    let rooms = &near.engine.rooms;
    let all = vec![carol.clone(), good.clone(), bad.clone(), alien.clone()];
    rooms.outliers(&room, all.clone()).await.unwrap();
    assert!(!near.meta(good.event_id()).flags.rejected);
    assert!(near.meta(bad.event_id()).flags.rejected);
    let known =
        |pdu: &Arc<Pdu>| near.engine.store.event_num(pdu.event_id().as_str()).unwrap().is_some();
    assert!(!known(&alien), "it is of another room");
    assert!(!known(&carol), "her join is not known");
    // Now it is, and comes behind what builds on it.
    rooms.outliers(&room, vec![carol.clone(), sent.clone()]).await.unwrap();
    assert!(known(&carol) && !near.meta(carol.event_id()).flags.rejected);
    // What builds on a rejected event is rejected.
    let on_bad = far.build(
        &far,
        &room,
        far.state("mallory", "m.room.topic", "", "{}"),
        &[power],
        &[create, power],
    );
    rooms.outliers(&room, vec![on_bad.clone()]).await.unwrap();
    assert!(near.meta(on_bad.event_id()).flags.rejected);
    stop(&[&far, &near]).await;
}

#[actix::test]
async fn an_event_of_another_room_is_refused() {
    let (far, near, room) = shared("11").await;
    let other = far.create("11", "alice").await;
    near.join(&far, &other, "bob").await;
    let alien = far.say(&other, "alice", "elsewhere").await;
    let result = near.engine.rooms.receive(&room, alien.clone()).await;
    assert!(matches!(result, Err(RoomError::OtherRoom)), "{result:?}");
    near.receive(&other, &alien).await;
    // It follows an event of another room, which is known.
    let events = far.timeline(&room);
    let auth = [&events[0], &events[1], &events[2]];
    let message = far.message("alice", "x");
    let event = far.build(&far, &room, message, &[alien.event_id()], &auth);
    let result = near.engine.rooms.receive(&room, event).await;
    assert!(matches!(result, Err(RoomError::OtherRoom)), "{result:?}");
    // A second create event is none.
    let create = far.pdu(&events[0]);
    let mut json = create.json().clone();
    json.remove("hashes");
    json.remove("signatures");
    json.insert("origin_server_ts".to_owned(), parlour_event::json::Value::Integer(7));
    let version = parlour_event::RoomVersion::parse("11").unwrap();
    let second = far.sign(version, json);
    assert_eq!(near.receive(&room, &second).await, Verdict::Rejected);
    stop(&[&far, &near]).await;
}

#[actix::test]
async fn an_event_behind_a_gap_comes_with_the_state_before_it() {
    for version in ["1", "9", "12"] {
        let (far, near, room) = shared(version).await;
        let topic = |text: &str| {
            far.state("alice", "m.room.topic", "", &format!(r#"{{"topic":"{text}"}}"#))
        };
        let lost = [
            far.send(&room, topic("one")).await,
            far.send(&room, far.member("carol", &far.user("carol"), "join")).await,
            far.send(&room, topic("two")).await,
        ];
        let late = far.say(&room, "carol", "hello").await;
        let refused = near.engine.rooms.receive(&room, late.clone()).await;
        let carol = lost[1].event_id().clone();
        assert_eq!(missing(refused), HashSet::from([lost[2].event_id().clone(), carol.clone()]));
        let before = state_before(&far, late.event_id());
        let rooms = &near.engine.rooms;
        let result = rooms.receive_at(&room, late.clone(), ids(&before)).await;
        assert!(missing(result).contains(&carol), "the state is not known yet");
        let mut all = far.auth_chain(&before);
        all.extend(before.clone());
        rooms.outliers(&room, all).await.unwrap();
        let verdict = rooms.receive_at(&room, late.clone(), ids(&before)).await.unwrap();
        assert_eq!(verdict, Verdict::Accepted);
        assert_eq!(near.current(&room), far.current(&room), "version {version}");
        assert_eq!(near.head(&room).joined, 3);
        // The old end of the history is one still: what follows it is not here.
        assert_eq!(near.extremities(&room).len(), 2);
        let gap = (lost[2].event_id().to_string(), late.depth());
        assert_eq!(backward(&near, &room)[..].iter().filter(|(id, _)| *id == gap.0).count(), 1);
        assert!(backward(&near, &room).contains(&gap));
        // What was lost arrives: it is no new end.
        for pdu in &lost {
            assert_eq!(near.receive(&room, pdu).await, Verdict::Accepted);
        }
        assert_eq!(near.extremities(&room), HashSet::from([late.event_id().clone()]));
        assert!(!backward(&near, &room).iter().any(|(id, _)| *id == gap.0));
        assert_eq!(near.current(&room), far.current(&room), "version {version}");
        stop(&[&far, &near]).await;
    }
}

#[actix::test]
async fn history_comes_in_behind_what_is_known() {
    for version in ["1", "10", "12"] {
        let far = Peer::start("far.test", None).await;
        let near = Peer::start("near.test", None).await;
        let room = far.create(version, "alice").await;
        for text in ["one", "two", "three"] {
            far.say(&room, "alice", text).await;
        }
        let reaction = r#"{"m.relates_to":{"rel_type":"m.annotation","event_id":"$x","key":"k"}}"#;
        let reaction = parlour_actors::LocalEvent {
            event_type: "m.reaction".to_owned(),
            content: support::object(reaction),
            ..far.message("alice", "")
        };
        far.send(&room, reaction).await;
        near.join(&far, &room, "bob").await;
        near.say(&room, "bob", "hello").await;
        let (head, timeline) = (near.head(&room), near.timeline(&room));
        let gaps: Vec<_> = backward(&near, &room);
        let old = far.timeline(&room);
        let newest = &old[old.len() - 2];
        assert_eq!(gaps.iter().map(|(id, _)| id).collect::<Vec<_>>(), [newest.as_str()]);
        let past = |from: usize, to: usize| -> Vec<_> {
            let events = old[from..to].iter().enumerate();
            events
                .map(|(place, id)| Backfilled {
                    pdu: far.pdu(id),
                    state_before: (place == 0).then(|| ids(&state_before(&far, id))),
                })
                .collect()
        };
        let rooms = &near.engine.rooms;
        let changes = near.engine.changes.rooms_since(head.pos);
        // A page whose start hangs in the air is refused as a whole.
        let hanging = rooms.backfill(&room, past(5, 8).split_off(1)).await;
        assert!(matches!(hanging, Err(RoomError::Missing(_))), "{hanging:?}");
        assert_eq!(rooms.backfill(&room, past(5, 8)).await.unwrap(), [Verdict::Accepted; 3]);
        assert_eq!(near.graph(&room), [&old[5..8], &timeline[..]].concat());
        assert_eq!(near.timeline(&room), timeline);
        assert_eq!(near.head(&room), head);
        // It is in no timeline, but who follows rooms sees that there is more.
        let told = near.engine.changes.rooms_since(head.pos);
        assert_eq!(
            (changes.map(|rooms| rooms.len()), told.map(|rooms| rooms.len())),
            (Some(0), Some(1))
        );
        let gap = backward(&near, &room);
        assert_eq!(gap.iter().map(|(id, _)| id).collect::<Vec<_>>(), [old[4].as_str()]);
        // The rest of it, down to the beginning; what was known as an outlier gets its place.
        let rest = rooms.backfill(&room, past(0, 6)).await.unwrap();
        assert_eq!(rest[..5], [Verdict::Accepted; 5]);
        assert_eq!(rest[5], Verdict::Known);
        assert_eq!(near.graph(&room), [&old[..8], &timeline[..]].concat());
        assert_eq!(backward(&near, &room), []);
        assert_eq!(near.head(&room), head);
        assert_eq!(near.state_map(near.meta(&old[3]).state_before).len(), 3);
        // Life goes on.
        let next = far.say(&room, "alice", "bye").await;
        drop(near.engine.rooms.receive(&room, next).await);
        near.say(&room, "bob", "bye").await;
        assert_eq!(near.extremities(&room).len(), 1);
        stop(&[&far, &near]).await;
    }
}

#[actix::test]
async fn history_that_was_not_allowed_is_not_shown() {
    let far = Peer::start("far.test", None).await;
    let near = Peer::start("near.test", None).await;
    let room = far.create("10", "alice").await;
    let events = far.timeline(&room);
    let (create, power, rules) = (&events[0], &events[2], &events[3]);
    let forged = far.build(&far, &room, far.message("mallory", "x"), &[rules], &[create, power]);
    near.join(&far, &room, "bob").await;
    let state_before = Some(ids(&far.events_of(far.meta(rules).state_before)));
    let events = vec![
        Backfilled { pdu: far.pdu(rules), state_before },
        Backfilled { pdu: forged.clone(), state_before: None },
    ];
    let verdicts = near.engine.rooms.backfill(&room, events).await.unwrap();
    assert_eq!(verdicts, [Verdict::Accepted, Verdict::Rejected]);
    assert!(!near.graph(&room).contains(forged.event_id()));
    stop(&[&far, &near]).await;
}

#[actix::test]
async fn what_follows_a_refused_event_takes_the_place_of_what_that_followed() {
    for version in ["6", "12"] {
        let (far, near, room) = shared(version).await;
        let carol = far.user("carol");
        let joined = far.send(&room, far.member("carol", &carol, "join")).await;
        near.receive(&room, &joined).await;
        let events = far.timeline(&room);
        let (create, alice, power) = (&events[0], &events[1], &events[2]);
        let auth = |more: &[&OwnedEventId]| -> Vec<OwnedEventId> {
            let all = [create, power].into_iter().filter(|id| version != "12" || *id != create);
            all.chain(more.iter().copied()).cloned().collect()
        };
        // Carol is banned; on another branch she speaks and sets the topic.
        let ban = far.send(&room, far.member("alice", &carol, "ban")).await;
        near.receive(&room, &ban).await;
        let by_carol = auth(&[joined.event_id()]);
        let by_carol: Vec<_> = by_carol.iter().collect();
        let late = far.state("carol", "m.room.topic", "", r#"{"topic":"late"}"#);
        let late = far.build(&far, &room, late, &[joined.event_id()], &by_carol);
        assert_eq!(near.receive(&room, &late).await, Verdict::SoftFailed);
        assert_eq!(far.receive(&room, &late).await, Verdict::SoftFailed);
        assert_eq!(near.extremities(&room), HashSet::from([ban.event_id().clone()]));
        assert!(!near.current(&room).values().any(|id| id == late.event_id()));
        assert!(!near.timeline(&room).contains(late.event_id()));
        // What builds on it and on the ban is an event like any other, on the state of both.
        let by_alice = auth(&[alice]);
        let by_alice: Vec<_> = by_alice.iter().collect();
        let message = far.message("alice", "both");
        let both = [late.event_id(), ban.event_id()];
        let both = far.build(&far, &room, message, &both, &by_alice);
        assert_eq!(near.receive(&room, &both).await, Verdict::Accepted);
        assert_eq!(near.extremities(&room), HashSet::from([both.event_id().clone()]));
        far.receive(&room, &both).await;
        // A rejected event leaves the state as it was before it, and is passed by.
        let message = far.message("mallory", "x");
        let by_mallory = auth(&[]);
        let by_mallory: Vec<_> = by_mallory.iter().collect();
        let rejected = far.build(&far, &room, message, &[both.event_id()], &by_mallory);
        assert_eq!(near.receive(&room, &rejected).await, Verdict::Rejected);
        far.receive(&room, &rejected).await;
        let message = far.message("alice", "on it");
        let next = far.build(&far, &room, message, &[rejected.event_id()], &by_alice);
        assert_eq!(near.receive(&room, &next).await, Verdict::Accepted);
        assert_eq!(near.extremities(&room), HashSet::from([next.event_id().clone()]));
        far.receive(&room, &next).await;
        let (of_next, of_rejected) =
            (near.meta(next.event_id()).state_before, near.meta(rejected.event_id()).state_before);
        assert_eq!(of_next, of_rejected);
        // An event that names a rejected one as its auth event is rejected.
        let power = far.state("mallory", "m.room.power_levels", "", r#"{"users":{}}"#);
        let power = far.build(&far, &room, power, &[next.event_id()], &by_mallory);
        assert_eq!(near.receive(&room, &power).await, Verdict::Rejected);
        far.receive(&room, &power).await;
        let mut on_power = vec![power.event_id(), alice];
        on_power.extend((version != "12").then_some(create));
        let message = far.message("alice", "x");
        let event = far.build(&far, &room, message, &[next.event_id()], &on_power);
        assert_eq!(near.receive(&room, &event).await, Verdict::Rejected);
        stop(&[&far, &near]).await;
    }
}

#[actix::test]
async fn what_is_handed_over_is_accepted_or_refused() {
    let (far, near, room) = shared("11").await;
    far.settle().await;
    let applied = far.engine.store.applied();
    let dora = near.user("dora");
    // Not signed, not written.
    let template =
        far.engine.rooms.template(&room, near.member("dora", &dora, "join")).await.unwrap();
    assert!(!template.event.contains_key("hashes") && !template.event.contains_key("signatures"));
    let refused = far.engine.rooms.template(&room, near.message("dora", "hi")).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    let invite = far.member("alice", &dora, "invite");
    let proposed = far.engine.rooms.propose(&room, invite.clone()).await.unwrap();
    assert_eq!(far.engine.store.applied(), applied);
    let refused = far.engine.rooms.propose(&room, far.member("mallory", &dora, "invite")).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");

    // A countersigned invite is brought in, once.
    let brought = far.engine.rooms.bring(&room, proposed.clone(), None).await.unwrap();
    assert_eq!(brought.event_id, *proposed.event_id());
    let again = far.engine.rooms.bring(&room, proposed.clone(), None).await.unwrap();
    assert_eq!(again.event_id, brought.event_id);
    assert_eq!(far.head(&room).invited, 1);
    let join = near.sign(template.version, template.event);
    far.engine.rooms.bring(&room, join.clone(), Some(&near.name)).await.unwrap();
    let entries = far.engine.store.outbox(StreamPos(0), 100).unwrap();
    let (_, entry) = entries.last().unwrap();
    assert_eq!(entry.except.as_deref(), Some("near.test"));

    // Banned: refused, and nothing is written.
    far.send(&room, far.member("alice", &dora, "ban")).await;
    far.settle().await;
    let applied = far.engine.store.applied();
    let events = far.timeline(&room);
    let auth = [&events[0], &events[2], &events[3], join.event_id()];
    let profile = near.member("dora", &dora, "join");
    let soft = near.build(&far, &room, profile, &[join.event_id()], &auth);
    let refused = far.engine.rooms.bring(&room, soft.clone(), Some(&near.name)).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    assert_eq!(far.engine.store.applied(), applied);
    // Once it has come in another way, it stays refused.
    assert_eq!(far.receive(&room, &soft).await, Verdict::SoftFailed);
    let refused = far.engine.rooms.bring(&room, soft, Some(&near.name)).await;
    assert!(matches!(refused, Err(RoomError::RefusedBefore)), "{refused:?}");
    stop(&[&far, &near]).await;
}

#[actix::test]
async fn a_redaction_that_was_applied_to_an_outlier_stays() {
    let (far, near, room) = shared("11").await;
    let topic = far.state("alice", "m.room.topic", "", r#"{"topic":"secret"}"#);
    let topic = far.send(&room, topic).await;
    near.engine.rooms.outliers(&room, vec![topic.clone()]).await.unwrap();
    let redaction = parlour_actors::LocalEvent {
        event_type: "m.room.redaction".to_owned(),
        content: support::object("{}"),
        redacts: Some(topic.event_id().clone()),
        ..far.message("alice", "")
    };
    let redaction = far.send(&room, redaction).await;
    let before = state_before(&far, redaction.event_id());
    let rooms = &near.engine.rooms;
    rooms.receive_at(&room, redaction.clone(), ids(&before)).await.unwrap();
    assert_eq!(near.receive(&room, &topic).await, Verdict::Accepted);
    let meta = near.meta(topic.event_id());
    assert!(meta.redacted_because.is_some() && !meta.flags.outlier);
    assert!(!near.pdu(topic.event_id()).content().contains_key("topic"));
    stop(&[&far, &near]).await;
}
