//! What other servers send that no honest one would: each event ends as the specification says, and
//! nothing panics, blocks or grows.

use parlour_event::{
    json::{Object, Value as Json},
    signing::{self, SigningKey},
};
use serde_json::{Value, json};

use crate::common::{Ask, FakeServer, Origin, Server, Visitor, parse, path};

/// A server with a federation of which it knows the other one only by its keys.
fn two() -> (Server, FakeServer) {
    (Server::start_federated(&[]), FakeServer::start(|_| |_: &_| None))
}

fn put(object: &mut Object, key: &str, value: &Value) {
    let value = parse(&json!({ "value": value })).remove("value").unwrap();
    object.insert(key.to_owned(), value);
}

// Checklist 12.3, 13.1, 13.8
#[test]
fn events_come_in_whatever_the_version_of_the_room() {
    let (near, far) = two();
    let alice = near.user("alice");
    for version in ["1", "2", "3", "4", "6", "9", "10", "11", "12"] {
        let visitor = Visitor::new(&near, &alice, &far.origin, version);
        let since = alice.sync(Ask::initial()).ok().next_batch();
        let first = visitor.message("one", &[&visitor.newest()]);
        let second = visitor.message("two", &[&visitor.id(&first)]);
        visitor.accepted(&[first, second]);
        alice.sync_until(&since, |answer| {
            answer.timeline(&visitor.room).iter().any(|event| event["content"]["body"] == "two")
        });
        alice.say(&visitor.room, "three").ok();
        assert_eq!(visitor.said(), ["one", "two", "three"], "version {version}");
    }
}

// Checklist 13.1, 13.7, 11.7, 11.11
#[test]
fn signatures_drop_and_hashes_redact() {
    let (near, far) = two();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let newest = visitor.newest();
    let good = visitor.message("good", &[&newest]);
    let mut unsigned = good.clone();
    put(&mut unsigned, "signatures", &json!({}));
    visitor.refused(&unsigned, "no signature");
    let mut by_stranger = good.clone();
    let stranger = SigningKey::from_seed(&[9; 32], "fake").unwrap();
    signing::sign_event(visitor.version, &mut by_stranger, &far.origin.name, &stranger);
    visitor.refused(&by_stranger, "invalid");
    let unknown = SigningKey::from_seed(&[9; 32], "unknown").unwrap();
    let unknown = Origin { key: unknown, ..far.origin.clone() };
    let unknown = Visitor {
        origin: unknown,
        user: visitor.user.clone(),
        room: visitor.room.clone(),
        ..visitor
    };
    let by_unknown = unknown.message("unknown key", &[&newest]);
    let sent = visitor.transact(std::slice::from_ref(&by_unknown), &[]).ok();
    assert!(sent.body["pdus"][visitor.id(&by_unknown)]["error"].is_string());
    // A key counts for a week from now, and for as long as its server says.
    let mut late = visitor.draft("m.room.message", None, json!({ "body": "late" }), &[&newest]);
    put(&mut late, "origin_server_ts", &json!(3_900_000_000_000_u64));
    visitor.refused(&visitor.sign(late), "no signature");
    // In the name of somebody else's user.
    let mut forged = visitor.draft("m.room.message", None, json!({ "body": "x" }), &[&newest]);
    put(&mut forged, "sender", &json!(alice.id));
    visitor.refused(&visitor.sign(forged), "no signature");
    assert!(visitor.said().is_empty());
    // With another content than it was hashed with, it is what a redaction would leave.
    let mut changed = good.clone();
    put(&mut changed, "content", &json!({ "msgtype": "m.text", "body": "changed" }));
    visitor.accepted(&[changed]);
    assert_eq!(visitor.said(), ["(none)"]);
    // It is known now; the whole one comes too late.
    visitor.accepted(&[good]);
    assert_eq!(visitor.said(), ["(none)"]);
}

// Checklist 12.3, 13.1
#[test]
fn what_is_wrong_with_one_event_does_not_concern_the_others() {
    let (near, far) = two();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let newest = visitor.newest();
    let good = visitor.message("good", &[&newest]);
    let message = |body: &str| {
        let content = json!({ "msgtype": "m.text", "body": body });
        visitor.draft("m.room.message", None, content, &[&newest])
    };
    let sized = |bytes: usize| {
        let without = visitor.sign(message("")).len_as_json();
        visitor.sign(message(&"x".repeat(bytes - without)))
    };
    let (largest, too_large) = (sized(65_536), sized(65_537));
    let mut unknown_room = message("unknown room");
    put(&mut unknown_room, "room_id", &json!("!nowhere:example.org"));
    let unknown_room = visitor.sign(unknown_room);
    let mut no_room = message("no room");
    no_room.remove("room_id");
    let no_room = visitor.sign(no_room);
    let mut untyped = message("untyped");
    put(&mut untyped, "type", &json!(5));
    let untyped = visitor.sign(untyped);
    let deep = {
        let nested = format!("{}1{}", "[".repeat(300), "]".repeat(300));
        let text = visitor.body(std::slice::from_ref(&good), &[]);
        text.replace(r#""body":"good""#, &format!(r#""body":{nested}"#))
    };
    let events = [&largest, &too_large, &unknown_room, &no_room, &untyped, &good];
    let answer = visitor.transact(&events.map(Clone::clone), &[]).ok();
    let error = |event: &Object| answer.body["pdus"][visitor.id(event)].get("error").cloned();
    assert_eq!([&largest, &good].map(error), [None, None], "{}", answer.body);
    for (event, why) in [
        (&too_large, "65537 bytes"),
        (&unknown_room, "not known here"),
        (&no_room, "names no room"),
        (&untyped, "type"),
    ] {
        let error = error(event).unwrap_or_else(|| panic!("{why}: {}", answer.body));
        assert!(error.as_str().unwrap().contains(why), "{error}");
    }
    assert_eq!(visitor.said().len(), 2);
    // Nested so deeply that it is not even read.
    visitor.transact_as("deep", &deep).ok();
    let garbage = r#"{"pdus":[5,{},[],"x"],"edus":[5,{},{"edu_type":"x","content":5}],"#;
    let garbage =
        garbage.to_owned() + &format!(r#""origin":"{}","origin_server_ts":1}}"#, far.name());
    visitor.transact_as("garbage", &garbage).ok();
    assert_eq!(visitor.said().len(), 2);
}

// Checklist 12.1, 12.4
#[test]
fn transactions_that_are_none() {
    let (near, far) = two();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let typing = json!({ "edu_type": "m.typing", "content": { "typing": true,
        "room_id": visitor.room, "user_id": visitor.user } });
    let message = visitor.message("hello", &[&visitor.newest()]);
    let pdus = vec![message; 51];
    visitor.transact(&pdus, &[]).refused(400, "M_INVALID_PARAM");
    visitor.transact(&[], &vec![typing.clone(); 101]).refused(400, "M_INVALID_PARAM");
    visitor.transact(&pdus[..50], &vec![typing; 100]).ok();
    let another = visitor.body(&[], &[]).replace(far.name(), "another.example.org");
    visitor.transact_as("other", &another).refused(400, "M_INVALID_PARAM");
    for (body, status, errcode) in [
        ("{}", 400, "M_BAD_JSON"),
        ("[]", 400, "M_BAD_JSON"),
        (r#"{"pdus":{}}"#, 400, "M_BAD_JSON"),
        ("{", 400, "M_NOT_JSON"),
        ("", 400, "M_NOT_JSON"),
    ] {
        let answer = visitor.transact_as("garbage", body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert_eq!(answer.body["errcode"], errcode, "{body}: {}", answer.body);
    }
    // Whoever sends must have signed.
    let at = "/_matrix/federation/v1/send/unsigned";
    near.http.send("PUT", at, b"{}").refused(401, "M_UNAUTHORIZED");
    let stranger = SigningKey::from_seed(&[9; 32], "fake").unwrap();
    let forged = Origin { key: stranger, ..far.origin.clone() };
    let body = visitor.body(&[visitor.message("forged", &[&visitor.newest()])], &[]);
    forged.send(&near, "PUT", at, body.as_bytes()).refused(401, "M_UNAUTHORIZED");
    assert_eq!(visitor.said(), ["hello"]);
}

// Checklist 12.3
#[test]
fn a_repeated_transaction_is_one() {
    let (mut near, far) = two();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let first = visitor.message("once", &[&visitor.newest()]);
    let mut bad = first.clone();
    put(&mut bad, "depth", &json!(5));
    let body = visitor.body(&[first.clone(), bad], &[]);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let sent = (0..4).map(|_| scope.spawn(|| visitor.transact_as("same", &body).ok().body));
        sent.collect::<Vec<_>>().into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0]["pdus"].as_object().unwrap().len(), 2);
    // The content does not matter: the id does.
    let other = visitor.body(&[visitor.message("other", &[&visitor.id(&first)])], &[]);
    assert_eq!(visitor.transact_as("same", &other).ok().body, answers[0]);
    assert_eq!(visitor.said(), ["once"]);
    // In another transaction and after a restart the event is known.
    visitor.accepted(std::slice::from_ref(&first));
    let Visitor { room, user, version, origin, .. } = visitor;
    near.restart();
    let alice = near.again(&alice);
    let visitor = Visitor { near: &near, host: &alice, room, version, origin, user };
    visitor.transact_as("same", &body).ok();
    assert_eq!(visitor.said(), ["once"]);
    let news = alice.sync(Ask::since(&since)).ok();
    assert_eq!(news.timeline(&visitor.room).len(), 1);
}

// Checklist 13.1, 13.2, 13.3
#[test]
fn who_is_banned_is_not_heard_on_old_extremities() {
    let (near, far) = two();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let before = visitor.newest();
    let (old_draft, own) = (visitor.message("evading", &[&before]), visitor.member("join"));
    alice.membership(&visitor.room, "ban", json!({ "user_id": visitor.user })).ok();
    // Allowed where it stands, but not now: the sender does not learn it, nobody sees it.
    visitor.accepted(std::slice::from_ref(&old_draft));
    // Not allowed where it stands.
    let after = visitor.message("after the ban", &[&visitor.newest()]);
    visitor.refused(&after, "rules");
    visitor.refused(&own_at(&visitor, &own, &visitor.newest()), "rules");
    assert!(visitor.said().is_empty());
    let page = path("event/{}", &[&visitor.id(&old_draft)]);
    alice.room(&visitor.room, &page).refused(404, "M_NOT_FOUND");
    // What others say next does not follow it.
    alice.say(&visitor.room, "quiet now").ok();
    assert_eq!(visitor.said(), ["quiet now"]);
    // What follows a rejected event is judged by itself.
    alice.membership(&visitor.room, "unban", json!({ "user_id": visitor.user })).ok();
    visitor.accepted(&[visitor.member("join")]);
    let newest = visitor.newest();
    let follows = visitor.message("back again", &[&newest, &visitor.id(&after)]);
    visitor.accepted(&[follows]);
    assert_eq!(visitor.said(), ["quiet now", "back again"]);
}

/// The same member event behind another one.
fn own_at(visitor: &Visitor<'_>, event: &Object, prev: &str) -> Object {
    let mut event = event.clone();
    ["hashes", "signatures"].iter().for_each(|key| drop(event.remove(*key)));
    put(&mut event, "prev_events", &json!([prev]));
    visitor.sign(event)
}

// Checklist 13.4, 13.10
#[test]
fn auth_events_must_be_those_of_the_room() {
    let (near, far) = two();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let elsewhere = Visitor::new(&near, &alice, &far.origin, "11");
    let newest = visitor.newest();
    let with_auth = |auth: &[String]| {
        let content = json!({ "msgtype": "m.text", "body": "bad" });
        let mut draft = visitor.draft("m.room.message", None, content, &[&newest]);
        put(&mut draft, "auth_events", &json!(auth));
        visitor.sign(draft)
    };
    let own = visitor.auth_events("m.room.message", None, &json!({}));
    visitor.refused(&with_auth(&elsewhere.auth_events("m.room.message", None, &json!({}))), "");
    visitor.refused(&with_auth(&[]), "rules");
    visitor.refused(&with_auth(&[own.clone(), own.clone()].concat()), "rules");
    // One that nobody gives.
    let unknown = [&own[..], &[format!("${}", "a".repeat(43))]].concat();
    visitor.refused(&with_auth(&unknown), "not known");
    assert!(visitor.said().is_empty());
    // A previous event of another room is none of this room.
    visitor.refused(&visitor.message("crossed", &[&elsewhere.newest()]), "");
    assert!(visitor.said().is_empty());
    let closed = json!({ "preset": "public_chat", "room_version": "11",
        "creation_content": { "m.federate": false } });
    let closed = alice.create_room(closed).room_id();
    let outside = Visitor {
        near: &near,
        host: &alice,
        room: closed,
        version: visitor.version,
        origin: far.origin.clone(),
        user: visitor.user.clone(),
    };
    outside.refused(&outside.member("join"), "rules");
}

#[test]
fn memberships_that_contradict_each_other() {
    let (mut near, far) = two();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let joined = visitor.newest();
    // Two branches that say different things, each twice and in different orders.
    let (leave, join) = (visitor.member("leave"), visitor.member("join"));
    let renamed = {
        let content = json!({ "membership": "join", "displayname": "V" });
        visitor.sign(visitor.draft("m.room.member", Some(&visitor.user), content, &[&joined]))
    };
    visitor.accepted(&[leave.clone(), join.clone(), leave.clone(), renamed, join, leave]);
    alice.say(&visitor.room, "merged").ok();
    let members = |alice: &crate::common::User| {
        let mut members = alice.room(&visitor.room, "members").ok().chunk();
        members.sort_by_key(|event| event["state_key"].to_string());
        members
    };
    let before = members(&alice);
    assert_eq!(before.len(), 2, "{before:?}");
    let room = visitor.room.clone();
    near.restart();
    let alice = near.again(&alice);
    let mut after = alice.room(&room, "members").ok().chunk();
    after.sort_by_key(|event| event["state_key"].to_string());
    let ids = |events: &[Value]| events.iter().map(|e| e["event_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after));
}

// Checklist 12.7
#[test]
fn rooms_are_closed_to_servers_that_they_deny_and_to_nobody() {
    let speaks = [("PARLOUR_FEDERATION__ALLOW_SERVERS", r#"["localhost", "127.0.0.1"]"#)];
    let near = Server::start_federated(&speaks);
    let far = FakeServer::start_at("127.0.0.1", |_| |_: &_| None);
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let list = json!({ "allow": ["*"], "allow_ip_literals": false });
    alice.set_state(&visitor.room, "m.room.server_acl", "", list).ok();
    let denied = visitor.message("denied", &[&visitor.newest()]);
    visitor.refused(&denied, "M_FORBIDDEN");
    alice.set_state(&visitor.room, "m.room.server_acl", "", json!({ "allow": ["*"] })).ok();
    visitor.accepted(&[denied]);
    assert_eq!(visitor.said(), ["denied"]);
    // When nobody here is in the room any more, what happens there is not ours.
    let message = visitor.message("too late", &[&visitor.newest()]);
    alice.leave(&visitor.room).ok();
    visitor.refused(&message, "Nobody here");
}

/// How long an event is.
trait Length {
    fn len_as_json(&self) -> usize;
}

impl Length for Object {
    fn len_as_json(&self) -> usize {
        parlour_event::json::to_canonical(&Json::Object(self.clone())).len()
    }
}

// Checklist 7.2
#[test]
fn numbers_that_strict_rooms_do_not_know_are_dropped() {
    let (near, far) = two();
    let alice = near.user("alice");
    for (version, is_strict) in [("5", false), ("6", true), ("12", true)] {
        let visitor = Visitor::new(&near, &alice, &far.origin, version);
        for (text, number) in
            [("fraction", json!(1.5)), ("large", json!(9_007_199_254_740_992_u64))]
        {
            let content = json!({ "msgtype": "m.text", "body": text, "n": number });
            let draft = visitor.draft("m.room.message", None, content, &[&visitor.newest()]);
            let event = visitor.sign(draft);
            match is_strict {
                // It has no id by which it could be refused.
                true => assert_eq!(visitor.transact(&[event], &[]).ok()["pdus"], json!({})),
                false => visitor.accepted(&[event]),
            }
        }
        let expected: &[&str] = if is_strict { &[] } else { &["fraction", "large"] };
        assert_eq!(visitor.said(), expected, "version {version}");
    }
}

// Checklist 4.3, 13.3, 14.7
#[test]
fn what_was_soft_failed_can_become_the_state() {
    let (near, far) = two();
    let alice = near.user("alice");
    for version in ["6", "12"] {
        let visitor = Visitor::new(&near, &alice, &far.origin, version);
        let room = &visitor.room;
        let power = |level: i64| {
            let mut levels = alice.state(room, "m.room.power_levels", "").ok().body;
            levels["users"][&visitor.user] = level.into();
            alice.set_state(room, "m.room.power_levels", "", levels).event_id()
        };
        let mighty = power(50);
        let topic = visitor.draft("m.room.topic", Some(""), json!({ "topic": "late" }), &[&mighty]);
        let topic = visitor.sign(topic);
        power(0);
        visitor.accepted(std::slice::from_ref(&topic));
        alice.state(room, "m.room.topic", "").refused(404, "M_NOT_FOUND");
        let again = power(50);
        alice.state(room, "m.room.topic", "").refused(404, "M_NOT_FOUND");
        // With a message that follows both, the states are resolved, and the topic is in it.
        let since = alice.sync(Ask::initial()).ok().next_batch();
        visitor.accepted(&[visitor.message("both", &[&visitor.id(&topic), &again])]);
        let is_there = |event: &Value| event["content"]["body"] == "both";
        let sync = alice.sync_until(&since, |answer| answer.timeline(room).iter().any(is_there));
        let id = json!(visitor.id(&topic));
        assert!(sync.timeline(room).iter().all(|event| event["event_id"] != id));
        assert!(sync.state_before(room).iter().any(|event| event["event_id"] == id), "{version}");
        assert_eq!(alice.state(room, "m.room.topic", "").ok()["topic"], "late");
    }
}
