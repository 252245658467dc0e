//! Ephemeral data of other servers: typing, receipts, presence.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, FakeServer, Server, Visitor};

fn typing(visitor: &Visitor<'_>, user: &str, typing: bool) -> Value {
    json!({ "edu_type": "m.typing",
        "content": { "room_id": visitor.room, "user_id": user, "typing": typing } })
}

fn receipt(visitor: &Visitor<'_>, user: &str, event: &str, thread: Option<&str>) -> Value {
    let mut data = json!({ "ts": 1_700_000_000_000_u64 });
    if let Some(thread) = thread {
        data["thread_id"] = thread.into();
    }
    json!({ "edu_type": "m.receipt", "content": { visitor.room.clone(): { "m.read": {
        user: { "data": data, "event_ids": [event] } } } } })
}

fn presence(user: &str, presence: &str, message: &str) -> Value {
    json!({ "edu_type": "m.presence", "content": { "push": [{ "user_id": user,
        "presence": presence, "status_msg": message, "last_active_ago": 1_000,
        "currently_active": true }] } })
}

/// The contents of a room's ephemeral events of a type.
fn ephemeral(answer: &Answer, visitor: &Visitor<'_>, kind: &str) -> Vec<Value> {
    let events = answer.ephemeral(&visitor.room).into_iter();
    events.filter(|event| event["type"] == kind).map(|event| event["content"].clone()).collect()
}

// Checklist 9.7, 12.4, 12.7
#[test]
fn typing_is_seen_of_users_who_are_in_the_room_and_of_the_server() {
    let speaks = [("PARLOUR_FEDERATION__ALLOW_SERVERS", r#"["localhost", "127.0.0.1"]"#)];
    let near = Server::start_federated(&speaks);
    let far = FakeServer::start_at("127.0.0.1", |_| |_: &_| None);
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let stranger = format!("@stranger:{}", far.name());
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let wrong = [
        typing(&visitor, &alice.id, true),
        typing(&visitor, &stranger, true),
        json!({ "edu_type": "m.typing", "content": { "room_id": "!x:y", "user_id": visitor.user,
            "typing": true } }),
        json!({ "edu_type": "m.typing", "content": { "typing": true } }),
    ];
    visitor.transact(&[], &wrong).ok();
    for (types, seen) in [(true, json!([visitor.user])), (false, json!([]))] {
        visitor.transact(&[], &[typing(&visitor, &visitor.user, types)]).ok();
        let answer =
            alice.sync_until(&since, |answer| !ephemeral(answer, &visitor, "m.typing").is_empty());
        assert_eq!(ephemeral(&answer, &visitor, "m.typing")[0]["user_ids"], seen);
        since = answer.next_batch();
    }
    // Who has just come in may type at once.
    visitor.accepted(&[visitor.member("leave")]);
    let join = visitor.member("join");
    visitor.transact(&[join], &[typing(&visitor, &visitor.user, true)]).ok();
    let who_types = |since: &str, who: Value| {
        let is_told = |answer: &Answer| {
            let typing = ephemeral(answer, &visitor, "m.typing");
            typing.iter().any(|content| content["user_ids"] == who)
        };
        alice.sync_until(since, is_told).next_batch()
    };
    let since = who_types(&since, json!([visitor.user]));
    // And nobody does who has left.
    visitor.accepted(&[visitor.member("leave")]);
    let since = who_types(&since, json!([]));
    // A denied server's users don't type.
    visitor.accepted(&[visitor.member("join")]);
    visitor.transact(&[], &[typing(&visitor, &visitor.user, true)]).ok();
    who_types(&since, json!([visitor.user]));
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let list = json!({ "allow": ["*"], "deny": ["127.0.0.*"] });
    alice.set_state(&visitor.room, "m.room.server_acl", "", list).ok();
    visitor.transact(&[], &[typing(&visitor, &visitor.user, false)]).ok();
    let answer = alice.sync(Ask::since(&since)).ok();
    assert!(ephemeral(&answer, &visitor, "m.typing").is_empty(), "{}", answer.body);
}

// Checklist 9.1, 9.6, 12.4
#[test]
fn receipts_are_seen_by_room_and_by_thread() {
    let (near, far) = (Server::start_federated(&[]), FakeServer::start(|_| |_: &_| None));
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let elsewhere = alice.public_room();
    let other = alice.say(&elsewhere, "elsewhere").event_id();
    let root = alice.say(&visitor.room, "root").event_id();
    let reply = json!({ "msgtype": "m.text", "body": "reply",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    let reply = alice.send(&visitor.room, "m.room.message", reply).event_id();
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let user = visitor.user.as_str();
    let wrong = [
        receipt(&visitor, &alice.id, &root, None),
        receipt(&visitor, &format!("@stranger:{}", far.name()), &root, None),
        receipt(&visitor, user, &other, None),
        receipt(&visitor, user, "$unknown", None),
        receipt(&visitor, user, &root, Some("$unknown")),
        receipt(&visitor, user, &reply, Some("main")),
    ];
    visitor.transact(&[], &wrong).ok();
    let right = [
        receipt(&visitor, user, &root, None),
        receipt(&visitor, user, &root, Some("main")),
        receipt(&visitor, user, &reply, Some(&root)),
    ];
    visitor.transact(&[], &right).ok();
    let answer = alice.sync(Ask::since(&since)).ok();
    let mut seen = Vec::new();
    for content in ephemeral(&answer, &visitor, "m.receipt") {
        for (event, kinds) in content.as_object().unwrap() {
            for (kind, users) in kinds.as_object().unwrap() {
                for (who, data) in users.as_object().unwrap() {
                    assert_eq!((kind.as_str(), who.as_str()), ("m.read", user));
                    assert_eq!(data["ts"], 1_700_000_000_000_u64);
                    seen.push((event.clone(), data["thread_id"].clone()));
                }
            }
        }
    }
    // Of receipts on one event for several threads, the form has place for one.
    seen.sort_by_key(|(event, thread)| (event.clone(), thread.to_string()));
    assert!(seen.contains(&(reply.clone(), json!(root))), "{}", answer.body);
    assert!(seen.iter().any(|(event, _)| *event == root), "{}", answer.body);
    assert!(seen.iter().all(|(event, _)| *event == root || *event == reply), "{}", answer.body);
}

// Checklist 9.8, 12.4
#[test]
fn presence_is_seen_of_users_with_whom_a_room_is_shared() {
    let on = [("PARLOUR_PRESENCE__ENABLED", "true")];
    let (near, far) = (Server::start_federated(&on), FakeServer::start(|_| |_: &_| None));
    let (alice, bob) = (near.user("alice"), near.user("bob"));
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let stranger = format!("@stranger:{}", far.name());
    let edus = [
        presence(&bob.id, "online", "not mine"),
        presence(&stranger, "online", "nobody knows me"),
        presence(&visitor.user, "unavailable", "tea"),
    ];
    visitor.transact(&[], &edus).ok();
    let seen = |answer: &Answer| {
        let events = answer.body["presence"]["events"].as_array().cloned().unwrap_or_default();
        assert!(events.iter().all(
            |event| event["sender"] != bob.id.as_str() && event["sender"] != stranger.as_str()
        ));
        events.into_iter().find(|event| event["sender"] == visitor.user.as_str())
    };
    let answer = alice.sync_until(&since, |answer| seen(answer).is_some());
    let content = &seen(&answer).unwrap()["content"];
    assert_eq!(
        (&content["presence"], &content["status_msg"]),
        (&json!("unavailable"), &json!("tea"))
    );
    let since = answer.next_batch();
    visitor.transact(&[], &[presence(&visitor.user, "offline", "")]).ok();
    let answer = alice.sync_until(&since, |answer| seen(answer).is_some());
    assert_eq!(seen(&answer).unwrap()["content"]["presence"], "offline");
    // Synapse does not always say when, and one update that is wrong is not all of them.
    let since = answer.next_batch();
    let edu = json!({ "edu_type": "m.presence", "content": { "push": [
        { "user_id": 5 }, { "user_id": visitor.user },
        { "user_id": visitor.user, "presence": "unavailable", "status_msg": null },
    ] } });
    visitor.transact(&[], &[edu]).ok();
    let answer = alice.sync_until(&since, |answer| seen(answer).is_some());
    let content = &seen(&answer).unwrap()["content"];
    assert_eq!(content["presence"], "unavailable");
    assert!(content["last_active_ago"].as_u64().unwrap() >= 1_000, "{content:?}");
}

#[test]
fn what_there_is_no_use_for_yet_is_taken_and_forgotten() {
    let (near, far) = (Server::start_federated(&[]), FakeServer::start(|_| |_: &_| None));
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let edus = [
        json!({ "edu_type": "m.device_list_update", "content": { "user_id": visitor.user,
            "device_id": "D", "stream_id": 1 } }),
        json!({ "edu_type": "m.direct_to_device", "content": { "sender": visitor.user,
            "type": "m.room_key", "message_id": "1", "messages": {} } }),
        json!({ "edu_type": "m.signing_key_update", "content": { "user_id": visitor.user } }),
        json!({ "edu_type": "org.example.unknown", "content": {} }),
        json!({ "edu_type": "m.receipt", "content": { visitor.room.clone(): 5 } }),
    ];
    visitor.transact(&[], &edus).ok();
    alice.say(&visitor.room, "still here").ok();
}

// Checklist 13.11
#[test]
fn nothing_but_events_tells_of_users_with_names_of_old() {
    let (near, far) = (Server::start_federated(&[]), FakeServer::start(|_| |_: &_| None));
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    for name in ["Éva Adams", ""] {
        let user = format!("@{name}:{}", far.name());
        let origin = far.origin.clone();
        let old = Visitor { user, origin, room: visitor.room.clone(), ..visitor };
        old.accepted(&[old.member("join")]);
        let newest = old.newest();
        old.accepted(&[old.message("hello", &[&newest])]);
        let since = alice.sync(Ask::initial()).ok().next_batch();
        let told = [
            typing(&old, &old.user, true),
            presence(&old.user, "online", "here"),
            receipt(&old, &old.user, &newest, None),
            typing(&visitor, &visitor.user, true),
        ];
        old.transact(&[], &told).ok();
        let all = std::cell::RefCell::new(String::new());
        alice.sync_until(&since, |answer| {
            *all.borrow_mut() += &answer.body.to_string();
            !ephemeral(answer, &visitor, "m.typing").is_empty()
        });
        let all = all.into_inner();
        assert!(!all.contains(&old.user), "{all}");
        visitor.transact(&[], &[typing(&visitor, &visitor.user, false)]).ok();
    }
    assert_eq!(visitor.said(), ["hello", "hello"]);
}
