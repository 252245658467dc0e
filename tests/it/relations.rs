//! Events that relate to others: pages of them, and what they come to.

use serde_json::{Value, json};

use super::rooms_read::{event, ids, room_with, with_filter};
use crate::common::{Answer, Ask, Server, User, path};

/// What an event of this relation looks like.
pub(crate) fn relating(rel_type: &str, parent: &str, text: &str) -> Value {
    json!({ "msgtype": "m.text", "body": text,
        "m.relates_to": { "rel_type": rel_type, "event_id": parent } })
}

pub(crate) fn relate(user: &User, room: &str, rel_type: &str, parent: &str) -> String {
    user.send(room, "m.room.message", relating(rel_type, parent, rel_type)).event_id()
}

pub(crate) fn react(user: &User, room: &str, parent: &str, key: &str) -> Answer {
    let relation = json!({ "rel_type": "m.annotation", "event_id": parent, "key": key });
    user.send(room, "m.reaction", json!({ "m.relates_to": relation }))
}

pub(crate) fn edit(user: &User, room: &str, original: &str, text: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": format!("* {text}"),
        "m.new_content": { "msgtype": "m.text", "body": text },
        "m.relates_to": { "rel_type": "m.replace", "event_id": original } });
    user.send(room, "m.room.message", content).event_id()
}

/// `GET /relations/{event}...`
fn relations(user: &User, room: &str, parent: &str, more: &str) -> Answer {
    let what = path("/_matrix/client/v1/rooms/{}/relations/{}", &[room, parent]) + more;
    user.http.get(&what)
}

fn chunk(user: &User, room: &str, parent: &str, more: &str) -> Vec<String> {
    let chunk = relations(user, room, parent, more).ok().chunk();
    ids(&chunk).into_iter().map(str::to_owned).collect()
}

/// The aggregations that come with an event.
pub(crate) fn bundle(user: &User, room: &str, id: &str) -> Value {
    event(user, room, id).ok()["unsigned"]["m.relations"].clone()
}

/// The aggregations that come with an event wherever it is served: they must be the same.
fn bundle_everywhere(user: &User, room: &str, id: &str) -> Value {
    let expected = bundle(user, room, id);
    let sync = user.sync(Ask::initial()).ok();
    let page = user.room(room, "messages?dir=b&limit=50").ok();
    let around = user.room(room, &path("context/{}", &[id])).ok();
    let all = [sync.timeline(room), page.chunk(), vec![around["event"].clone()]];
    for events in all {
        let found = events.iter().find(|event| event["event_id"] == id).unwrap();
        let mut found = found["unsigned"]["m.relations"].clone();
        let mut expected = expected.clone();
        for bundle in [&mut found, &mut expected] {
            forget_form(bundle);
        }
        assert_eq!(found, expected);
    }
    expected
}

/// Takes out what differs between the places where an event is served, and from moment to moment.
fn forget_form(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|key, _| key != "room_id" && key != "age");
        fields.values_mut().for_each(forget_form);
    }
}

fn ignore(user: &User, whom: &[&User]) {
    let list: serde_json::Map<_, _> =
        whom.iter().map(|user| (user.id.clone(), json!({}))).collect();
    let what = path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&user.id]);
    user.http.put(&what, &json!({ "ignored_users": list })).ok();
}

#[test]
fn children_come_page_by_page_in_the_order_of_the_graph() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let parent = alice.say(&room, "parent").event_id();
    let kinds = ["m.thread", "m.reference", "org.example", "m.annotation", "m.replace", "other"];
    let mut sent: Vec<_> = kinds.iter().map(|kind| relate(&alice, &room, kind, &parent)).collect();
    sent.push(react(&alice, &room, &parent, "👍").event_id());
    alice.say(&room, "no child").ok();
    server.restart();
    let alice = server.again(&alice);
    let newest_first: Vec<_> = sent.iter().rev().cloned().collect();
    assert_eq!(chunk(&alice, &room, &parent, ""), newest_first);
    assert_eq!(chunk(&alice, &room, &parent, "?dir=f"), sent);
    for (dir, expected) in [("b", &newest_first), ("f", &sent)] {
        let (mut all, mut from) = (Vec::new(), String::new());
        loop {
            let what = format!("?dir={dir}&limit=2{from}");
            let page = relations(&alice, &room, &parent, &what).ok();
            assert_eq!(page["prev_batch"].is_string(), !from.is_empty(), "{}", page.body);
            all.extend(ids(&page.chunk()).into_iter().map(str::to_owned));
            let Some(next) = page["next_batch"].as_str() else { break };
            from = path("&from={}", &[next]);
        }
        assert_eq!(&all, expected, "{dir}");
    }
    assert_eq!(chunk(&alice, &room, &parent, "/org.example"), [&*sent[2]]);
    assert_eq!(chunk(&alice, &room, &parent, "/m.annotation"), [&*sent[6], &sent[3]]);
    assert_eq!(chunk(&alice, &room, &parent, "/m.annotation/m.reaction"), [&*sent[6]]);
    assert!(chunk(&alice, &room, &parent, "/m.annotation/m.none").is_empty());
    assert!(chunk(&alice, &room, &sent[0], "").is_empty());
    assert!(relations(&alice, &room, &parent, "?limit=0").ok().chunk().is_empty());
}

// Checklist 4.14
#[test]
fn tokens_of_messages_and_of_sync_lead_into_relations() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let parent = alice.say(&room, "parent").event_id();
    let early = relate(&alice, &room, "m.thread", &parent);
    let synced = alice.sync(Ask::initial()).ok().next_batch();
    let middle = relate(&alice, &room, "m.thread", &parent);
    let place = alice.room(&room, "messages?dir=b&limit=1").ok().text("start");
    let late = relate(&alice, &room, "m.thread", &parent);
    for (more, expected) in [
        (path("?from={}", &[&synced]), vec![&early]),
        (path("?from={}", &[&place]), vec![&middle, &early]),
        (path("?to={}", &[&synced]), vec![&late, &middle]),
        (path("?from={}&to={}", &[&place, &synced]), vec![&middle]),
        (path("?from={}&to={}", &[&synced, &place]), vec![]),
        (path("?dir=f&from={}", &[&synced]), vec![&middle, &late]),
        (path("?dir=f&from={}&to={}", &[&synced, &place]), vec![&middle]),
    ] {
        let found = chunk(&alice, &room, &parent, &more);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{more}");
    }
    for more in ["?from=garbage", "?to=t1_1_1", "?dir=x", "?limit=-1", "?recurse=perhaps"] {
        relations(&alice, &room, &parent, more).refused(400, "M_INVALID_PARAM");
    }
}

// Checklist 7.14
#[test]
fn recursion_follows_what_the_filter_lets_through() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let root = alice.say(&room, "root").event_id();
    let reply = relate(&alice, &room, "m.thread", &root);
    let edited = edit(&alice, &room, &reply, "better");
    let reaction = react(&alice, &room, &edited, "👍").event_id();
    let too_far = relate(&alice, &room, "m.reference", &reaction);
    let direct = react(&alice, &room, &root, "👍").event_id();
    let all = relations(&alice, &room, &root, "?recurse=true").ok();
    assert_eq!(all["recursion_depth"], 3);
    assert_eq!(ids(&all.chunk()), [&*direct, &reaction, &edited, &reply]);
    assert_eq!(chunk(&alice, &room, &root, "?recurse=true&dir=f&limit=2"), [&*reply, &edited]);
    assert_eq!(chunk(&alice, &room, &reply, "?recurse=true"), [&*too_far, &reaction, &edited]);
    assert!(relations(&alice, &room, &root, "").ok()["recursion_depth"].is_null());
    assert_eq!(chunk(&alice, &room, &root, ""), [&*direct, &reply]);
    // The reaction to the edit is reached by what is no annotation.
    assert_eq!(chunk(&alice, &room, &root, "/m.annotation?recurse=true"), [&*direct]);
    assert_eq!(chunk(&alice, &room, &root, "/m.thread?recurse=true"), [&*reply]);
    let nested = relate(&alice, &room, "m.reference", &root);
    let deeper = relate(&alice, &room, "m.reference", &nested);
    let both = "/m.reference/m.room.message?recurse=true";
    assert_eq!(chunk(&alice, &room, &root, both), [&*deeper, &nested]);
    // What related by way of a redacted event does not any more.
    alice.redact(&room, &nested, "gone").ok();
    assert!(chunk(&alice, &room, &root, both).is_empty());
    assert_eq!(chunk(&alice, &room, &nested, ""), [&*deeper]);
}

#[test]
fn only_who_sees_an_event_reads_its_children() {
    let server = Server::start();
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|name| server.user(name));
    let room = room_with(&alice, "joined");
    let parent = alice.say(&room, "before").event_id();
    bob.join(&room).ok();
    let seen = alice.say(&room, "after").event_id();
    let child = relate(&bob, &room, "m.reference", &seen);
    for more in ["", "/m.reference", "/m.reference/m.room.message"] {
        assert_eq!(chunk(&bob, &room, &seen, more), [&*child]);
        relations(&bob, &room, &parent, more).refused(404, "M_NOT_FOUND");
        relations(&eve, &room, &seen, more).refused(404, "M_NOT_FOUND");
        relations(&alice, &room, "$nothing", more).refused(404, "M_NOT_FOUND");
        relations(&alice, "!nowhere:localhost", &seen, more).refused(404, "M_NOT_FOUND");
    }
    bob.leave(&room).ok();
    let unseen = relate(&alice, &room, "m.reference", &seen);
    assert_eq!(chunk(&bob, &room, &seen, ""), [&*child]);
    assert_eq!(bundle(&bob, &room, &seen)["m.reference"]["chunk"].as_array().unwrap().len(), 1);
    assert_eq!(chunk(&alice, &room, &seen, ""), [&*unseen, &child]);
    ignore(&alice, &[&bob]);
    assert_eq!(chunk(&alice, &room, &seen, ""), [&*unseen]);
    assert_eq!(
        bundle(&alice, &room, &seen),
        json!({
        "m.reference": { "chunk": [{ "event_id": unseen }] } })
    );
}

// Checklist 7.13
#[test]
fn the_newest_valid_edit_comes_with_the_event() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let id = alice.say(&room, "first").event_id();
    assert!(bundle(&alice, &room, &id).is_null());
    let second = edit(&alice, &room, &id, "second");
    let third = edit(&alice, &room, &id, "third");
    // None of these counts.
    edit(&bob, &room, &id, "not mine");
    let typed = json!({ "m.new_content": {}, "m.relates_to": { "rel_type": "m.replace",
        "event_id": id } });
    alice.send(&room, "org.example", typed).ok();
    relate(&alice, &room, "m.replace", &id);
    edit(&alice, &room, &third, "an edit of an edit");
    react(&bob, &room, &id, "👍").ok();
    let found = bundle_everywhere(&bob, &room, &id);
    assert_eq!(found["m.replace"]["event_id"], third.as_str());
    assert_eq!(found["m.replace"]["content"]["m.new_content"]["body"], "third");
    assert_eq!(found.as_object().unwrap().len(), 1, "reactions are not aggregated: {found}");
    assert_eq!(event(&bob, &room, &id).ok()["content"]["body"], "first");
    assert!(bundle(&alice, &room, &third).is_null());
    server.restart();
    let alice = server.again(&alice);
    alice.redact(&room, &third, "no").ok();
    assert_eq!(bundle(&alice, &room, &id)["m.replace"]["event_id"], second.as_str());
    alice.redact(&room, &second, "no").ok();
    assert!(bundle(&alice, &room, &id).is_null());
    edit(&alice, &room, &id, "fourth");
    alice.redact(&room, &id, "all of it").ok();
    assert!(bundle(&alice, &room, &id).is_null());
    let page = alice.room(&room, "messages?dir=b&limit=50").ok().chunk();
    let original = page.iter().find(|event| event["event_id"] == id.as_str()).unwrap();
    assert_eq!(original["unsigned"]["redacted_because"]["type"], "m.room.redaction");
}

#[test]
fn state_is_neither_edited_nor_aggregated() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let state = alice.set_state(&room, "org.example", "", json!({ "a": 1 })).event_id();
    let content = json!({ "m.new_content": { "a": 2 },
        "m.relates_to": { "rel_type": "m.replace", "event_id": state } });
    alice.send(&room, "org.example", content.clone()).ok();
    alice.set_state(&room, "org.example", "other", content).ok();
    relate(&alice, &room, "m.reference", &state);
    assert!(bundle(&alice, &room, &state).is_null());
    assert_eq!(chunk(&alice, &room, &state, "").len(), 3);
}

// Checklist 7.12
#[test]
fn the_same_annotation_twice_is_refused() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let id = alice.say(&room, "like me").event_id();
    let first = react(&alice, &room, &id, "👍").event_id();
    react(&alice, &room, &id, "👍").refused(400, "M_DUPLICATE_ANNOTATION");
    react(&alice, &room, &id, "👎").ok();
    react(&bob, &room, &id, "👍").ok();
    let other = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id,
        "key": "👍" } });
    alice.send(&room, "org.example.reaction", other.clone()).ok();
    server.restart();
    let alice = server.again(&alice);
    alice.send(&room, "org.example.reaction", other).refused(400, "M_DUPLICATE_ANNOTATION");
    react(&alice, &room, &id, "👍").refused(400, "M_DUPLICATE_ANNOTATION");
    alice.redact(&room, &first, "changed my mind").ok();
    react(&alice, &room, &id, "👍").ok();
    react(&alice, &room, &id, "👍").refused(400, "M_DUPLICATE_ANNOTATION");
}

#[test]
fn events_are_filtered_by_their_relations() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let root = alice.say(&room, "root").event_id();
    let other = alice.say(&room, "other").event_id();
    let reply = relate(&bob, &room, "m.thread", &root);
    let reaction = react(&alice, &room, &other, "👍").event_id();
    let of_two_types = |events: Vec<Value>| {
        let all = events
            .into_iter()
            .filter(|event| event["type"] == "m.room.message" || event["type"] == "m.reaction");
        all.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let found = |filter: &Value| {
        let page = alice.room(&room, &with_filter("messages?dir=f&limit=50", filter)).ok();
        of_two_types(page.chunk())
    };
    let filters = path("/_matrix/client/v3/user/{}/filter", &[&alice.id]);
    let synced = |filter: &Value| {
        let mut timeline = filter.clone();
        timeline["limit"] = json!(50);
        let filter = json!({ "room": { "timeline": timeline } });
        let inline =
            of_two_types(alice.sync(Ask::initial().filter(filter.clone())).timeline(&room));
        let id = alice.http.post(&filters, &filter).text("filter_id");
        assert_eq!(alice.http.post(&filters, &filter).text("filter_id"), id);
        let kept = alice.http.get(&(filters.clone() + "/" + &id)).ok();
        assert_eq!(kept["room"]["timeline"], filter["room"]["timeline"]);
        let stored = alice.sync(Ask::initial().with(&format!("filter={id}"))).timeline(&room);
        assert_eq!(of_two_types(stored), inline, "{filter}");
        inline
    };
    for (filter, expected) in [
        (json!({ "org.matrix.msc3874.rel_types": ["m.thread"] }), vec![&reply]),
        (json!({ "org.matrix.msc3874.rel_types": ["m.thread", "m.annotation"] }), {
            vec![&reply, &reaction]
        }),
        (json!({ "org.matrix.msc3874.rel_types": [] }), vec![]),
        (json!({ "org.matrix.msc3874.not_rel_types": ["m.thread"] }), {
            vec![&root, &other, &reaction]
        }),
        (json!({ "related_by_rel_types": ["m.thread"] }), vec![&root]),
        (json!({ "related_by_rel_types": ["m.annotation", "m.thread"] }), vec![&root, &other]),
        (json!({ "related_by_senders": [bob.id] }), vec![&root]),
        (json!({ "related_by_senders": [alice.id] }), vec![&other]),
        (json!({ "related_by_senders": [alice.id], "related_by_rel_types": ["m.thread"] }), {
            vec![]
        }),
    ] {
        assert_eq!(found(&filter).iter().collect::<Vec<_>>(), expected, "{filter}");
        assert_eq!(synced(&filter).iter().collect::<Vec<_>>(), expected, "sync: {filter}");
    }
}
