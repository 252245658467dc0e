//! Events that are to be sent later (MSC4140).

use serde_json::{Value, json};

use super::rooms_read::said;
use crate::common::{Answer, Ask, Server, User, fresh_txn, path};

const BASE: &str = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";

/// Longer than any test takes.
const LATER: &str = "3600000";

fn delay(user: &User, room: &str, txn: &str, delay: &str, text: &str) -> Answer {
    let what = path("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", &[room, txn]);
    let content = json!({ "msgtype": "m.text", "body": text });
    user.http.put(&format!("{what}?org.matrix.msc4140.delay={delay}"), &content)
}

fn say_later(user: &User, room: &str, ms: &str, text: &str) -> String {
    delay(user, room, &fresh_txn(), ms, text).text("delay_id")
}

fn set_later(user: &User, room: &str, key: &str, ms: &str, value: &str) -> String {
    let what = path("/_matrix/client/v3/rooms/{}/state/org.example/{}", &[room, key]);
    let what = format!("{what}?org.matrix.msc4140.delay={ms}");
    user.http.put(&what, &json!({ "value": value })).text("delay_id")
}

fn act(server: &Server, id: &str, action: &str) -> Answer {
    server.http.post(&(path(&format!("{BASE}/{{}}/"), &[id]) + action), &json!({}))
}

fn list(user: &User) -> Vec<Value> {
    let list = user.http.get(BASE).ok();
    assert_eq!(list["scheduled"], list["delayed_events"]);
    list["delayed_events"].as_array().unwrap().clone()
}

/// Waits until a text has been said, and gives all that has been said before.
fn until_said(user: &User, room: &str, text: &str) -> Vec<String> {
    let heard = |answer: &Answer| said(&answer.timeline(room)).contains(&text);
    let first = user.sync(Ask::initial()).ok();
    if !heard(&first) {
        user.sync_until(&first.next_batch(), heard);
    }
    let page = user.room(room, "messages?dir=f&limit=100").ok().chunk();
    said(&page).into_iter().map(str::to_owned).collect()
}

#[test]
fn an_event_is_sent_when_its_time_has_come() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let versions = server.http.get("/_matrix/client/versions").ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4140"], true);
    let room = alice.public_room();
    bob.join(&room).ok();
    let txn = fresh_txn();
    let id = delay(&alice, &room, &txn, LATER, "much later").text("delay_id");
    assert_eq!(delay(&alice, &room, &txn, LATER, "much later").text("delay_id"), id);
    let soon = say_later(&alice, &room, "3000", "soon");
    let all = list(&alice);
    let field = |name: &str| all.iter().map(|event| event[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("delay_id"), [json!(soon), json!(id)]);
    assert_eq!(field("delay"), [json!(3000), json!(3_600_000)]);
    assert_eq!(field("type"), [json!("m.room.message"), json!("m.room.message")]);
    assert_eq!((&all[0]["room_id"], &all[0]["content"]["body"]), (&json!(room), &json!("soon")));
    assert!(all[0]["running_since"].is_u64() && all[0]["state_key"].is_null(), "{all:?}");
    let one = path(&format!("{BASE}/{{}}"), &[&id]);
    assert_eq!(alice.http.get(&one).ok().body, all[1]);
    bob.http.get(&one).refused(404, "M_NOT_FOUND");
    server.http.get(&one).refused(401, "M_MISSING_TOKEN");
    server.http.get(BASE).refused(401, "M_MISSING_TOKEN");
    assert!(list(&bob).is_empty());
    assert_eq!(until_said(&bob, &room, "soon"), ["soon"]);
    act(&server, &soon, "cancel").refused(404, "M_NOT_FOUND");
}

#[test]
fn who_knows_the_id_cancels_restarts_or_sends() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let ids = ["a", "b", "c", "d"].map(|text| say_later(&alice, &room, LATER, text));
    act(&server, &ids[0], "cancel").ok();
    let by_body =
        |id: &str, body: Value| server.http.post(&path(&format!("{BASE}/{{}}"), &[id]), &body);
    by_body(&ids[1], json!({ "action": "send" })).ok();
    act(&server, &ids[2], "send").ok();
    assert_eq!(until_said(&alice, &room, "c"), ["b", "c"]);
    for id in &ids[..3] {
        for action in ["cancel", "restart", "send"] {
            act(&server, id, action).refused(404, "M_NOT_FOUND");
            by_body(id, json!({ "action": action })).refused(404, "M_NOT_FOUND");
        }
    }
    let before = list(&alice)[0]["running_since"].as_u64().unwrap();
    act(&server, &ids[3], "restart").ok();
    by_body(&ids[3], json!({ "action": "restart" })).ok();
    let all = list(&alice);
    assert!(all.len() == 1 && all[0]["running_since"].as_u64().unwrap() >= before, "{all:?}");
    act(&server, &ids[3], "dance").refused(404, "M_UNRECOGNIZED");
    by_body(&ids[3], json!({ "action": "dance" })).refused(400, "M_INVALID_PARAM");
    by_body(&ids[3], json!({ "action": 1 })).refused(400, "M_INVALID_PARAM");
    by_body(&ids[3], json!({})).refused(400, "M_BAD_JSON");
    // One that is restarted over and over does not go off.
    let soon = say_later(&alice, &room, "6000", "never");
    for n in 0..3 {
        act(&server, &soon, "restart").ok();
        say_later(&alice, &room, "2500", &format!("tick {n}"));
        until_said(&alice, &room, &format!("tick {n}"));
    }
    act(&server, &soon, "cancel").ok();
    assert!(!until_said(&alice, &room, "tick 2").contains(&"never".to_owned()));
}

#[test]
fn state_that_others_have_set_is_not_overwritten() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let levels = json!({ "events": { "org.example": 0 } });
    let room = alice
        .create_room(json!({ "preset": "public_chat",
        "power_level_content_override": levels }))
        .room_id();
    bob.join(&room).ok();
    let set = |user: &User, key: &str, value: &str| {
        user.set_state(&room, "org.example", key, json!({ "value": value })).ok();
    };
    let get = |key: &str| alice.state(&room, "org.example", key).ok()["value"].clone();
    set(&alice, "own", "now");
    set(&alice, "others", "now");
    let own = set_later(&alice, &room, "own", "3000", "later");
    let void = set_later(&alice, &room, "others", "3000", "later");
    set_later(&alice, &room, "new", "3000", "later");
    // Those of one millisecond come in any order.
    assert!(list(&alice).iter().any(|event| event["state_key"] == "own"));
    // The own change does no harm, a change by somebody else does, even if one comes back.
    set(&alice, "own", "changed");
    set(&bob, "others", "bob");
    set(&alice, "others", "alice");
    let ids: Vec<_> = list(&alice).iter().map(|event| event["delay_id"].clone()).collect();
    assert!(ids.contains(&json!(own)) && !ids.contains(&json!(void)), "{ids:?}");
    act(&server, &void, "send").refused(404, "M_NOT_FOUND");
    say_later(&alice, &room, "3500", "done");
    until_said(&alice, &room, "done");
    assert_eq!(
        (get("own"), get("others"), get("new")),
        (json!("later"), json!("alice"), json!("later"))
    );
    // What the room refuses when the time has come is gone.
    let refused = set_later(&bob, &room, "own", LATER, "bob");
    bob.leave(&room).ok();
    act(&server, &refused, "send").refused(403, "M_FORBIDDEN");
    assert!(list(&bob).is_empty());
}

#[test]
fn a_restart_forgets_none_and_sends_none_twice() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    for n in 0..30 {
        say_later(&alice, &room, "400", &n.to_string());
    }
    let id = say_later(&alice, &room, LATER, "much later");
    server.restart();
    let alice = server.again(&alice);
    say_later(&alice, &room, "1000", "last");
    let mut all = until_said(&alice, &room, "last");
    server.restart();
    let alice = server.again(&alice);
    assert_eq!(list(&alice)[0]["delay_id"], id.as_str());
    assert_eq!(all.pop().unwrap(), "last");
    all.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(all, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(until_said(&alice, &room, "last").len(), 31);
}

#[test]
fn delays_have_limits() {
    let server = Server::start();
    let [alice, eve] = ["alice", "eve"].map(|name| server.user(name));
    let room = alice.public_room();
    let later = |user: &User, ms: &str| delay(user, &room, &fresh_txn(), ms, "later");
    for ms in ["-1", "soon", "1.5", ""] {
        later(&alice, ms).refused(400, "M_INVALID_PARAM");
    }
    let long = later(&alice, "86400001").refused(400, "M_UNKNOWN");
    assert_eq!(long["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
    assert_eq!(long["org.matrix.msc4140.max_delay"], 86_400_000);
    later(&eve, LATER).refused(403, "M_FORBIDDEN");
    let put = |what: &str, content: &Value| {
        let base = path("/_matrix/client/v3/rooms/{}/", &[&room]);
        alice.http.put(&format!("{base}{what}?org.matrix.msc4140.delay={LATER}"), content)
    };
    put("send/m.room.redaction/x", &json!({ "redacts": "$x" })).refused(400, "M_INVALID_PARAM");
    let join = path("state/m.room.member/{}", &[&alice.id]);
    put(&join, &json!({ "membership": "join" })).refused(400, "M_INVALID_PARAM");
    put("state/m.room.create/", &json!({})).refused(403, "M_FORBIDDEN");
    put("state/m.room.power_levels/", &json!({ "ban": "1" })).refused(400, "M_BAD_JSON");
    put("send/org.example/y", &json!({ "a": "x".repeat(70_000) })).refused(413, "M_TOO_LARGE");
    let leave = put(&join, &json!({ "membership": "leave" })).text("delay_id");
    for _ in 0..99 {
        later(&alice, LATER).ok();
    }
    later(&alice, LATER).refused(429, "M_LIMIT_EXCEEDED");
    act(&server, &leave, "send").ok();
    assert!(alice.sync(Ask::initial()).ok()["rooms"]["join"].get(&room).is_none());
    let strict = Server::start_with(&[("PARLOUR_ROOMS__MAX_EVENT_DELAY_SECONDS", "0")]);
    let alice = strict.user("alice");
    let room = alice.public_room();
    delay(&alice, &room, &fresh_txn(), "1", "later").refused(403, "M_FORBIDDEN");
    let versions = strict.http.get("/_matrix/client/versions").ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4140"], false);
}

#[test]
fn who_may_send_nothing_sends_nothing_later_either() {
    let server = Server::start();
    let root = server.admin("root");
    let alice = server.user("alice");
    let room = alice.public_room();
    let ids = ["a", "b", "c", "d"].map(|text| say_later(&alice, &room, LATER, text));
    let put = |what: &str, body: Value| {
        root.http.put(&path(&format!("/_matrix/client/v1/admin/{what}/{{}}"), &[&alice.id]), &body)
    };
    for (id, what, key) in [(&ids[0], "lock", "locked"), (&ids[1], "suspend", "suspended")] {
        put(what, json!({ key: true })).ok();
        act(&server, id, "send").refused(403, "M_FORBIDDEN");
        act(&server, id, "send").refused(404, "M_NOT_FOUND");
        put(what, json!({ key: false })).ok();
    }
    act(&server, &ids[2], "send").ok();
    assert_eq!(until_said(&alice, &room, "c"), ["c"]);
    let gone = path("/_synapse/admin/v1/deactivate/{}", &[&alice.id]);
    root.http.post(&gone, &json!({})).ok();
    for action in ["restart", "send", "cancel"] {
        act(&server, &ids[3], action).refused(404, "M_NOT_FOUND");
    }
}
