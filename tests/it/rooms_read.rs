//! Reading rooms: who may read what, in which form, and how history is paged.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, fresh_txn, path};

pub(crate) fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

/// What was said in messages; of redacted ones nothing.
pub(crate) fn said(events: &[Value]) -> Vec<&str> {
    let messages = events.iter().filter(|event| event["type"] == "m.room.message");
    messages.map(|event| event["content"]["body"].as_str().unwrap_or_default()).collect()
}

pub(crate) fn say_all(
    user: &User,
    room: &str,
    texts: impl IntoIterator<Item = String>,
) -> Vec<String> {
    texts.into_iter().map(|text| user.say(room, &text).event_id()).collect()
}

/// A room in which the history is visible like this, and whoever wants may join.
pub(crate) fn room_with(owner: &User, visibility: &str) -> String {
    let rule = json!([{ "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": visibility } }]);
    owner.create_room(json!({ "preset": "public_chat", "initial_state": rule })).room_id()
}

pub(crate) fn set_visibility(user: &User, room: &str, visibility: &str) -> String {
    let content = json!({ "history_visibility": visibility });
    user.set_state(room, "m.room.history_visibility", "", content).event_id()
}

pub(crate) fn event(user: &User, room: &str, id: &str) -> Answer {
    user.room(room, &path("event/{}", &[id]))
}

pub(crate) fn with_filter(what: &str, filter: &Value) -> String {
    format!("{what}&{}", path("filter={}", &[&filter.to_string()]))
}

/// All pages in one direction from a place on, until there is no further one.
pub(crate) fn pages(user: &User, room: &str, what: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut from = String::new();
    for _ in 0..100 {
        let page = user.room(room, &format!("{what}{from}")).ok();
        all.extend(page.chunk());
        match page["end"].as_str() {
            Some(end) => from = path("&from={}", &[end]),
            None => return all,
        }
    }
    panic!("{what}: the pages never end");
}

#[test]
fn strangers_learn_nothing_not_even_that_a_room_exists() {
    let server = Server::start();
    let [alice, eve] = ["alice", "eve"].map(|name| server.user(name));
    let room = room_with(&alice, "shared");
    let id = alice.say(&room, "secret").event_id();
    alice.membership(&room, "invite", json!({ "user_id": server.user("guest").id })).ok();
    for room in [&*room, "!nowhere:localhost"] {
        for what in [
            "messages?dir=b",
            "state",
            "state/m.room.create/",
            "state/m.room.create",
            "members",
            "joined_members",
        ] {
            eve.room(room, what).refused(403, "M_FORBIDDEN");
        }
        event(&eve, room, &id).refused(404, "M_NOT_FOUND");
        eve.room(room, &path("context/{}", &[&id])).refused(404, "M_NOT_FOUND");
    }
    let elsewhere = eve.public_room();
    event(&eve, &elsewhere, &id).refused(404, "M_NOT_FOUND");
    eve.room(&elsewhere, &path("context/{}", &[&id])).refused(404, "M_NOT_FOUND");
}

#[test]
fn an_invited_user_reads_no_state() {
    let server = Server::start();
    let alice = server.user("alice");
    for (visibility, sees) in [("shared", false), ("joined", false), ("invited", true)] {
        let guest = server.user(&format!("guest_{visibility}"));
        let room = room_with(&alice, visibility);
        alice.say(&room, "before").ok();
        alice.invite(&room, &guest).ok();
        let id = alice.say(&room, "after").event_id();
        guest.room(&room, "state").refused(403, "M_FORBIDDEN");
        guest.room(&room, "members").refused(403, "M_FORBIDDEN");
        guest.room(&room, "state/m.room.create/").refused(403, "M_FORBIDDEN");
        let page = guest.room(&room, "messages?dir=b");
        if sees {
            assert_eq!(said(&page.ok().chunk()), ["after"]);
            let around = guest.room(&room, &path("context/{}", &[&id])).ok();
            assert!(around["state"].is_null(), "{}", around.body);
        } else {
            page.refused(403, "M_FORBIDDEN");
            event(&guest, &room, &id).refused(404, "M_NOT_FOUND");
        }
    }
}

#[test]
fn what_is_world_readable_is_read_by_strangers() {
    let server = Server::start();
    let [alice, eve] = ["alice", "eve"].map(|name| server.user(name));
    let room = room_with(&alice, "world_readable");
    let open = alice.say(&room, "open").event_id();
    assert_eq!(said(&pages(&eve, &room, "messages?dir=f")), ["open"]);
    assert_eq!(eve.room(&room, "members").ok().chunk().len(), 1);
    assert!(eve.room(&room, "state").ok().body.as_array().unwrap().len() > 3);
    assert_eq!(eve.state(&room, "m.room.create", "").ok().status, 200);
    eve.room(&room, "joined_members").refused(403, "M_FORBIDDEN");
    // Of a change of visibility it is enough that one side of it allows.
    let closing = set_visibility(&alice, &room, "shared");
    let closed = alice.say(&room, "closed").event_id();
    assert_eq!(event(&eve, &room, &open).ok()["unsigned"]["membership"], "leave");
    event(&eve, &room, &closing).ok();
    event(&eve, &room, &closed).refused(404, "M_NOT_FOUND");
    eve.room(&room, "messages?dir=b").refused(403, "M_FORBIDDEN");
    let around = eve.room(&room, &path("context/{}", &[&open])).ok();
    assert!(said(around["events_after"].as_array().unwrap()).is_empty(), "{}", around.body);
    let opening = set_visibility(&alice, &room, "world_readable");
    event(&eve, &room, &opening).ok();
    assert_eq!(said(&pages(&eve, &room, "messages?dir=f&limit=2")), ["open"]);
}

// Checklist 6.5
#[test]
fn who_left_sees_the_room_as_it_was_then() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    let set_name = |name: &str| alice.set_state(&room, "m.room.name", "", json!({ "name": name }));
    set_name("Then").ok();
    bob.join(&room).ok();
    alice.say(&room, "then").ok();
    alice.membership(&room, "kick", json!({ "user_id": bob.id })).ok();
    set_name("Now").ok();
    carol.join(&room).ok();
    let now = alice.say(&room, "now").event_id();
    let live = alice.room(&room, "messages?dir=b").ok().text("start");
    let check = || {
        assert_eq!(bob.state(&room, "m.room.name", "").ok()["name"], "Then");
        let state = bob.room(&room, "state").ok().body;
        let names = state.as_array().unwrap().iter().filter(|event| event["type"] == "m.room.name");
        assert_eq!(names.map(|name| &name["content"]["name"]).collect::<Vec<_>>(), ["Then"]);
        let members = bob.room(&room, "members").ok().chunk();
        let them = members.iter().find(|event| event["state_key"] == carol.id.as_str());
        assert!(them.is_none() && members.len() == 2, "{members:?}");
        let at = path("members?at={}", &[&live]);
        assert_eq!(ids(&bob.room(&room, &at).ok().chunk()), ids(&members));
        bob.room(&room, "joined_members").refused(403, "M_FORBIDDEN");
        for what in ["messages?dir=b", "messages?dir=f", "messages?dir=b&limit=2"] {
            assert_eq!(said(&pages(&bob, &room, what)), ["then"], "{what}");
        }
        let from_now = path("messages?dir=b&from={}", &[&live]);
        let newest = bob.room(&room, &from_now).ok().chunk();
        assert_eq!(newest[0]["content"]["membership"], "leave", "{newest:?}");
        event(&bob, &room, &now).refused(404, "M_NOT_FOUND");
        bob.room(&room, &path("context/{}", &[&now])).refused(404, "M_NOT_FOUND");
    };
    check();
    // Neither a ban nor another invite changes what was seen.
    alice.membership(&room, "ban", json!({ "user_id": bob.id })).ok();
    check();
    alice.membership(&room, "unban", json!({ "user_id": bob.id })).ok();
    alice.invite(&room, &bob).ok();
    check();
    bob.join(&room).ok();
    assert_eq!(said(&pages(&bob, &room, "messages?dir=f")), ["then", "now"]);
    assert_eq!(bob.state(&room, "m.room.name", "").ok()["name"], "Now");
}

#[test]
fn who_forgot_a_room_is_a_stranger_to_it() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let id = alice.say(&room, "hello").event_id();
    bob.leave(&room).ok();
    event(&bob, &room, &id).ok();
    bob.membership(&room, "forget", json!({})).ok();
    for what in ["messages?dir=b", "state", "members", "state/m.room.create/"] {
        bob.room(&room, what).refused(403, "M_FORBIDDEN");
    }
    event(&bob, &room, &id).refused(404, "M_NOT_FOUND");
    bob.join(&room).ok();
    event(&bob, &room, &id).ok();
    assert_eq!(said(&pages(&bob, &room, "messages?dir=b")), ["hello"]);
}

#[test]
fn members_are_told_as_of_a_token() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = room_with(&alice, "joined");
    alice.say(&room, "alone").ok();
    let alone = alice.room(&room, "messages?dir=b&limit=1").ok().text("start");
    bob.join(&room).ok();
    let synced = alice.sync(Ask::initial()).ok().next_batch();
    let two = alice.room(&room, "messages?dir=b&limit=1").ok().text("start");
    carol.join(&room).ok();
    bob.leave(&room).ok();
    let members = |user: &User, what: &str| -> Vec<(String, String)> {
        let chunk = user.room(&room, what).ok().chunk();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entry =
            |event: &Value| (text(&event["state_key"]), text(&event["content"]["membership"]));
        let mut all: Vec<_> = chunk.iter().map(entry).collect();
        all.sort();
        all
    };
    let then = |names: &[(&User, &str)]| -> Vec<(String, String)> {
        names.iter().map(|(user, is)| (user.id.clone(), (*is).to_owned())).collect()
    };
    let at = |token: &str, more: &str| path("members?at={}", &[token]) + more;
    assert_eq!(members(&alice, &at(&alone, "")), then(&[(&alice, "join")]));
    for token in [&two, &synced] {
        assert_eq!(members(&alice, &at(token, "")), then(&[(&alice, "join"), (&bob, "join")]));
    }
    let now = [(&alice, "join"), (&bob, "leave"), (&carol, "join")];
    assert_eq!(members(&alice, "members"), then(&now));
    for (query, expected) in [
        ("members?membership=join", vec![now[0], now[2]]),
        ("members?not_membership=join", vec![now[1]]),
        ("members?membership=leave&not_membership=join", vec![now[1]]),
        ("members?membership=join&not_membership=leave", vec![now[0], now[2]]),
        ("members?membership=join&not_membership=join", now.to_vec()),
        ("members?membership=ban", vec![]),
    ] {
        assert_eq!(members(&alice, query), then(&expected), "{query}");
    }
    // Bob was not there yet; Carol came later still.
    bob.room(&room, &at(&alone, "")).refused(403, "M_FORBIDDEN");
    carol.room(&room, &at(&two, "")).refused(403, "M_FORBIDDEN");
    assert_eq!(members(&bob, &at(&two, "&membership=join")).len(), 2);
}

#[test]
fn joined_members_have_names_and_faces() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let member = json!({ "membership": "join", "displayname": "Bob", "avatar_url": "mxc://a/b" });
    bob.set_state(&room, "m.room.member", &bob.id, member).ok();
    let odd = json!({ "membership": "join", "displayname": 7, "avatar_url": ["x"] });
    alice.set_state(&room, "m.room.member", &alice.id, odd).ok();
    let joined = alice.room(&room, "joined_members").ok()["joined"].clone();
    assert_eq!(
        joined,
        json!({
            &alice.id: {}, &bob.id: { "display_name": "Bob", "avatar_url": "mxc://a/b" },
        })
    );
    bob.leave(&room).ok();
    let joined = alice.room(&room, "joined_members").ok()["joined"].clone();
    assert_eq!(joined.as_object().unwrap().len(), 1);
    bob.room(&room, "joined_members").refused(403, "M_FORBIDDEN");
}

// Checklist 2.3, 4.15
#[test]
fn unsigned_tells_each_reader_its_own_part() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let elsewhere = server.login("alice");
    let room = room_with(&alice, "joined");
    let txn = fresh_txn();
    let text = json!({ "msgtype": "m.text", "body": "hello" });
    let id = alice.send_as(&room, "m.room.message", &txn, text).event_id();
    let set_name = |name: &str| alice.set_state(&room, "m.room.name", "", json!({ "name": name }));
    let first = set_name("One").event_id();
    let joined = bob.join(&room).ok();
    assert_eq!(joined["room_id"], room.as_str());
    let second = set_name("Two").event_id();
    let own = event(&alice, &room, &id).ok()["unsigned"].clone();
    assert_eq!((&own["transaction_id"], &own["membership"]), (&json!(txn), &json!("join")));
    assert!(own["age"].is_i64(), "{own}");
    let other = event(&elsewhere, &room, &id).ok()["unsigned"].clone();
    assert!(other["transaction_id"].is_null() && other["age"].is_i64(), "{other}");
    let change = event(&alice, &room, &second).ok()["unsigned"].clone();
    assert_eq!(change["prev_content"], json!({ "name": "One" }));
    assert_eq!(change["replaces_state"], first.as_str());
    // Bob may not see what the name was before he came, only that there was one.
    event(&bob, &room, &first).refused(404, "M_NOT_FOUND");
    let change = event(&bob, &room, &second).ok()["unsigned"].clone();
    assert!(change["prev_content"].is_null(), "{change}");
    assert_eq!(change["replaces_state"], first.as_str());
    let page = bob.room(&room, "messages?dir=f&limit=50").ok().chunk();
    let then: Vec<_> = page.iter().map(|event| &event["unsigned"]["membership"]).collect();
    assert_eq!(then[then.len() - 3..], ["leave", "join", "join"], "{page:?}");
    assert!(page.iter().all(|event| event["room_id"] == room.as_str()), "{page:?}");
}

// Checklist 7.6, 7.7, 7.8
#[test]
fn redactions_show_what_they_redact_in_both_places() {
    let server = Server::start();
    let alice = server.user("alice");
    for version in ["1", "10", "11", "12"] {
        let body = json!({ "preset": "public_chat", "room_version": version });
        let room = alice.create_room(body).room_id();
        let target = alice.say(&room, "regretted").event_id();
        let redaction = alice.redact(&room, &target, "regret").event_id();
        let shown = event(&alice, &room, &redaction).ok();
        assert_eq!(shown["redacts"], target.as_str(), "version {version}");
        assert_eq!(shown["content"]["redacts"], target.as_str(), "version {version}");
        let left = event(&alice, &room, &target).ok();
        assert_eq!(left["content"], json!({}));
        let because = &left["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], redaction.as_str());
        assert_eq!(because["content"]["reason"], "regret");
        assert_eq!(because["redacts"], target.as_str());
        assert_eq!(because["room_id"], room.as_str());
        // A redaction of the redaction leaves the first one applied.
        let second = alice.redact(&room, &redaction, "more regret").event_id();
        let third = alice.redact(&room, &second, "even more").event_id();
        let because = event(&alice, &room, &target).ok()["unsigned"]["redacted_because"].clone();
        assert_eq!(because["event_id"], redaction.as_str());
        assert!(because["content"]["reason"].is_null(), "{because}");
        assert!(because["unsigned"]["redacted_because"].is_null(), "{because}");
        let chunk = alice.room(&room, "messages?dir=b&limit=4").ok().chunk();
        assert_eq!(ids(&chunk), [&*third, &second, &redaction, &target]);
    }
}

#[test]
fn a_redaction_after_the_leave_keeps_its_reason() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let target = alice.say(&room, "regretted").event_id();
    bob.leave(&room).ok();
    let redaction = alice.redact(&room, &target, "for members only").event_id();
    event(&bob, &room, &redaction).refused(404, "M_NOT_FOUND");
    let left = event(&bob, &room, &target).ok();
    let because = &left["unsigned"]["redacted_because"];
    assert_eq!(left["content"], json!({}));
    assert_eq!(because["content"], json!({ "redacts": target }));
    assert_eq!(because["event_id"], redaction.as_str());
}

#[test]
fn a_state_event_is_read_whole_or_as_its_content() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let id = alice.set_state(&room, "org.example", "key", json!({ "a": [1, "é"] })).event_id();
    let read =
        |format: &str| alice.room(&room, &format!("state/org.example/key{format}")).ok().body;
    assert_eq!(read(""), json!({ "a": [1, "é"] }));
    assert_eq!(read("?format=content"), read(""));
    let whole = read("?format=event");
    assert_eq!((&whole["event_id"], &whole["room_id"]), (&json!(id), &json!(room)));
    assert_eq!((&whole["sender"], &whole["state_key"]), (&json!(alice.id), &json!("key")));
    let all = alice.room(&room, "state").ok().body;
    let listed = all.as_array().unwrap().iter().find(|event| event["event_id"] == id.as_str());
    assert_eq!(listed.unwrap()["content"], whole["content"]);
}
