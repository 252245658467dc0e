//! Push rules: their endpoints, and what they make of events.

use serde_json::{Value, json};

use crate::common::{Ask, Server, User, path};

const RULES: &str = "/_matrix/client/v3/pushrules/";

fn at(kind: &str, id: &str) -> String {
    path("/_matrix/client/v3/pushrules/global/{}/{}", &[kind, id])
}

fn rules(user: &User) -> Value {
    user.http.get(RULES).ok()["global"].clone()
}

fn ids(rules: &Value, kind: &str) -> Vec<String> {
    let list = rules[kind].as_array().cloned().unwrap_or_default();
    list.iter().map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect()
}

/// The ids of a user's own rules of a kind, in one string.
fn own(user: &User, kind: &str) -> String {
    let all = ids(&rules(user), kind);
    all.into_iter().filter(|id| !id.starts_with('.')).collect::<Vec<_>>().join(" ")
}

/// Notifications and highlights of a room.
fn unread(user: &User, room: &str) -> (i64, i64) {
    let answer = user.sync(Ask::initial()).ok();
    let counts = &answer["rooms"]["join"][room]["unread_notifications"];
    let count = |key: &str| counts[key].as_i64().unwrap();
    (count("notification_count"), count("highlight_count"))
}

fn two_in_a_room(server: &Server) -> (User, User, String) {
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    (alice, bob, room)
}

// Checklist 9.11
#[test]
fn the_defaults_are_those_of_the_specification() {
    let server = Server::start();
    let alice = server.user("alice");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/push-rules.json");
    let text = std::fs::read_to_string(file).unwrap().replace("[the user's Matrix ID]", &alice.id);
    let expected: Value = serde_json::from_str(&text).unwrap();
    let global = rules(&alice);
    for (kind, expected) in expected["default_rules"].as_object().unwrap() {
        let ours = global[kind].as_array().cloned().unwrap_or_default();
        // Polls are not in the specification yet (MSC3930).
        let is_poll = |rule: &Value| rule["rule_id"].as_str().unwrap().contains("msc3930");
        let ours: Vec<_> = ours.into_iter().filter(|rule| !is_poll(rule)).collect();
        assert_eq!(json!(ours), *expected, "{kind}");
    }
    let polls = ids(&global, "underride").into_iter().filter(|id| id.contains("poll")).count();
    assert_eq!(polls, 4);
    assert_eq!(alice.http.get(&format!("{RULES}global/")).ok().body, global);
    let data = path("/_matrix/client/v3/user/{}/account_data/m.push_rules", &[&alice.id]);
    assert_eq!(alice.http.get(&data).ok()["global"], global);
    server.http.get(RULES).refused(401, "M_MISSING_TOKEN");
}

// Checklist 9.12
#[test]
fn new_rules_are_enabled_and_come_first() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let rule = json!({ "pattern": "cake*lie", "actions": ["notify"] });
    for id in ["a", "b"] {
        assert_eq!(alice.http.put(&at("content", id), &rule).ok().body, json!({}));
    }
    assert_eq!(own(&alice, "content"), "b a");
    alice.http.put(&(at("content", "c") + "?after=b"), &rule).ok();
    alice.http.put(&(at("content", "d") + "?before=a"), &rule).ok();
    assert_eq!(own(&alice, "content"), "b c d a");
    alice.http.put(&(at("content", "b") + "?after=a"), &rule).ok();
    assert_eq!(own(&alice, "content"), "c d a b");
    alice.http.put(&(at("content", "c") + "?after=a&before=b"), &rule).ok();
    assert_eq!(own(&alice, "content"), "d a c b");
    let expected = json!({ "rule_id": "a", "pattern": "cake*lie", "actions": ["notify"],
        "default": false, "enabled": true });
    assert_eq!(alice.http.get(&at("content", "a")).ok().body, expected);
    // What is changed keeps its place, and whether it is enabled.
    alice.http.put(&(at("content", "a") + "/enabled"), &json!({ "enabled": false })).ok();
    alice.http.put(&at("content", "a"), &json!({ "pattern": "pie", "actions": [] })).ok();
    let answer = alice.http.get(&at("content", "a")).ok();
    assert_eq!((&answer["pattern"], &answer["enabled"]), (&json!("pie"), &json!(false)));
    assert_eq!(own(&alice, "content"), "d a c b");
    // Conditions may be left out. Own rules come behind the one that silences all.
    alice.http.put(&at("override", "mine"), &json!({ "actions": [] })).ok();
    assert_eq!(ids(&rules(&alice), "override")[..2], [".m.rule.master", "mine"]);
    server.restart();
    let alice = server.again(&alice);
    assert_eq!(own(&alice, "content"), "d a c b");
    assert_eq!(own(&alice, "override"), "mine");
}

#[test]
fn rules_of_every_kind_are_set_read_and_deleted() {
    let server = Server::start();
    let alice = server.user("alice");
    let condition = json!([{ "kind": "org.example.unknown", "anything": [1, null] }]);
    for (kind, id, extra) in [
        ("override", "o", json!({ "conditions": condition })),
        ("underride", "u", json!({ "conditions": [] })),
        ("content", "c", json!({ "pattern": "x" })),
        ("room", "!room:localhost", json!({})),
        ("sender", "@bob:localhost", json!({})),
    ] {
        let here = at(kind, id);
        let sub = |what: &str| format!("{here}/{what}");
        for place in [here.clone(), sub("enabled"), sub("actions")] {
            alice.http.get(&place).refused(404, "M_NOT_FOUND");
        }
        let enable = json!({ "enabled": true });
        alice.http.put(&sub("enabled"), &enable).refused(404, "M_NOT_FOUND");
        alice.http.put(&sub("actions"), &json!({ "actions": [] })).refused(404, "M_NOT_FOUND");
        alice.http.send("DELETE", &here, b"").refused(404, "M_NOT_FOUND");
        let mut rule = extra.clone();
        rule["actions"] = json!(["notify", { "set_tweak": "sound", "value": "bell" }]);
        alice.http.put(&here, &rule).ok();
        rule["rule_id"] = json!(id);
        rule["enabled"] = json!(true);
        rule["default"] = json!(false);
        assert_eq!(alice.http.get(&here).ok().body, rule);
        alice.http.put(&sub("enabled"), &json!({ "enabled": false })).ok();
        assert_eq!(alice.http.get(&sub("enabled")).ok().body, json!({ "enabled": false }));
        let actions = json!({ "actions": [{ "set_tweak": "highlight" }] });
        alice.http.put(&sub("actions"), &actions).ok();
        assert_eq!(alice.http.get(&sub("actions")).ok().body, actions);
        alice.http.send("DELETE", &here, b"").ok();
        alice.http.get(&here).refused(404, "M_NOT_FOUND");
    }
    // The server's own rules can be switched and changed.
    let master = at("override", ".m.rule.master");
    alice.http.put(&format!("{master}/enabled"), &json!({ "enabled": true })).ok();
    alice.http.put(&format!("{master}/actions"), &json!({ "actions": ["notify"] })).ok();
    let answer = alice.http.get(&master).ok();
    assert_eq!((&answer["enabled"], &answer["actions"]), (&json!(true), &json!(["notify"])));
}

#[test]
fn rules_are_checked_and_bounded() {
    let server = Server::start();
    let alice = server.user("alice");
    let fine = json!({ "actions": [], "pattern": "x" });
    let long = "x".repeat(256);
    for (kind, id, body, errcode) in [
        ("content", ".mine", &fine, "M_INVALID_PARAM"),
        ("override", ".m.rule.master", &fine, "M_INVALID_PARAM"),
        ("content", "a\\b", &fine, "M_INVALID_PARAM"),
        ("content", &long, &fine, "M_INVALID_PARAM"),
        ("nothing", "x", &fine, "M_INVALID_PARAM"),
        ("io.element.msc4306.postcontent", "x", &fine, "M_INVALID_PARAM"),
        ("room", "nonsense", &fine, "M_INVALID_PARAM"),
        ("sender", "nonsense", &fine, "M_INVALID_PARAM"),
        ("content", "x", &json!({ "actions": [] }), "M_BAD_JSON"),
        ("content", "x", &json!({ "pattern": "x" }), "M_BAD_JSON"),
        ("content", "x", &json!({ "pattern": "x", "actions": [1] }), "M_BAD_JSON"),
        ("content", "x", &json!({ "pattern": &long, "actions": [] }), "M_INVALID_PARAM"),
        ("override", "x", &json!({ "actions": [], "conditions": [{}] }), "M_BAD_JSON"),
        (
            "override",
            "x",
            &json!({ "actions": [], "conditions":
            [{ "kind": "room_member_count", "is": "few" }] }),
            "M_BAD_JSON",
        ),
    ] {
        alice.http.put(&at(kind, id), body).refused(400, errcode);
    }
    alice.http.send("PUT", &at("content", "x"), b"").refused(400, "M_NOT_JSON");
    for beside in ["?before=nobody", "?after=nobody", "?before=.m.rule.master", "?after=x"] {
        alice.http.put(&(at("content", "x") + beside), &fine).refused(400, "M_UNKNOWN");
    }
    for id in ["a", "b"] {
        alice.http.put(&at("content", id), &fine).ok();
    }
    let turned = at("content", "x") + "?before=b&after=a";
    alice.http.put(&turned, &fine).refused(400, "M_INVALID_PARAM");
    assert_eq!(own(&alice, "content"), "b a", "what was refused changes nothing");
    alice
        .http
        .send("DELETE", &at("override", ".m.rule.master"), b"")
        .refused(400, "M_INVALID_PARAM");
    alice.http.get(&at("nothing", "x")).refused(404, "M_NOT_FOUND");
    for number in 2..100 {
        alice.http.put(&at("content", &format!("n{number}")), &fine).ok();
    }
    let one_more = alice.http.put(&at("content", "more"), &fine);
    one_more.refused(400, "M_INVALID_PARAM");
}

// Checklist 9.13
#[test]
fn every_change_comes_down_sync() {
    let server = Server::start();
    let alice = server.user("alice");
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let here = at("content", "cake");
    let mut steps: Vec<Box<dyn Fn()>> = Vec::new();
    let put = |at: String, body: Value| -> Box<dyn Fn()> {
        let http = alice.http.clone();
        Box::new(move || drop(http.put(&at, &body).ok()))
    };
    steps.push(put(here.clone(), json!({ "pattern": "cake", "actions": [] })));
    steps.push(put(format!("{here}/enabled"), json!({ "enabled": false })));
    steps.push(put(format!("{here}/actions"), json!({ "actions": ["notify"] })));
    let (http, gone) = (alice.http.clone(), here.clone());
    steps.push(Box::new(move || drop(http.send("DELETE", &gone, b"").ok())));
    for step in steps {
        step();
        let answer = alice.sync(Ask::since(&since)).ok();
        let events = answer["account_data"]["events"].as_array().cloned().unwrap_or_default();
        let of_rules = |event: &&Value| event["type"] == "m.push_rules";
        let event = events.iter().find(of_rules).expect("the rules are in the answer");
        assert_eq!(event["content"]["global"], rules(&alice));
        since = answer.next_batch();
    }
    // What changes nothing is no news.
    let master = at("override", ".m.rule.master") + "/enabled";
    alice.http.put(&master, &json!({ "enabled": false })).ok();
    let answer = alice.sync(Ask::since(&since)).ok();
    assert!(answer["account_data"]["events"].is_null(), "{}", answer.body);
}

// Checklist 9.9
#[test]
fn the_first_rule_that_matches_decides() {
    let server = Server::start();
    let (alice, bob, room) = two_in_a_room(&server);
    let say = |text: &str| drop(alice.say(&room, text).ok());
    let all = json!([{ "kind": "event_match", "key": "type", "pattern": "m.room.message" }]);
    let loud = json!(["notify", { "set_tweak": "highlight" }]);
    // In the order in which they are looked at; each is silent, then loud, then taken away.
    bob.http.put(&at("underride", "u"), &json!({ "conditions": all, "actions": loud })).ok();
    say("by the underride rule");
    assert_eq!(unread(&bob, &room), (1, 1));
    for (kind, id, rule) in [
        ("sender", alice.id.as_str(), json!({ "actions": [] })),
        ("room", room.as_str(), json!({ "actions": loud })),
        ("content", "word", json!({ "pattern": "rule", "actions": ["dont_notify"] })),
        ("override", "o", json!({ "conditions": all, "actions": loud })),
    ] {
        bob.http.put(&at(kind, id), &rule).ok();
        let expected = if rule["actions"] == loud { (1, 1) } else { (0, 0) };
        assert_eq!(unread(&bob, &room), expected, "{kind}");
    }
    bob.http.put(&at("override", "first"), &json!({ "actions": ["coalesce"] })).ok();
    assert_eq!(unread(&bob, &room), (0, 0), "the newest rule is the first");
    bob.http.put(&(at("override", "first") + "/enabled"), &json!({ "enabled": false })).ok();
    assert_eq!(unread(&bob, &room), (1, 1));
    let unknown = json!({ "conditions": [{ "kind": "org.example" }], "actions": [] });
    bob.http.put(&at("override", "unknown"), &unknown).ok();
    let version = json!({ "conditions": [{ "feature": "m.extensible_events",
        "kind": "org.matrix.msc3931.room_version_supports" }], "actions": [] });
    bob.http.put(&at("override", "version"), &version).ok();
    assert_eq!(unread(&bob, &room), (1, 1), "what is unknown never matches");
    let master = at("override", ".m.rule.master") + "/enabled";
    bob.http.put(&master, &json!({ "enabled": true })).ok();
    assert_eq!(unread(&bob, &room), (0, 0), "the master rule is before all others");
    // One's own events never count, whatever the rules say.
    bob.http.put(&master, &json!({ "enabled": false })).ok();
    bob.say(&room, "a rule").ok();
    assert_eq!(unread(&bob, &room), (0, 0));
}

/// Whether an override rule with this condition matches an event of this content.
fn matches(alice: &User, bob: &User, condition: &Value, content: &Value) -> bool {
    let room = alice.public_room();
    bob.join(&room).ok();
    let loud = json!({ "conditions": [condition],
        "actions": ["notify", { "set_tweak": "highlight" }] });
    bob.http.put(&at("override", "it"), &loud).ok();
    alice.send(&room, "org.example", content.clone()).ok();
    unread(bob, &room).1 == 1
}

// Checklist 9.10
#[test]
fn conditions_match_as_the_specification_says() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let name = path("/_matrix/client/v3/profile/{}/displayname", &[&bob.id]);
    bob.http.put(&name, &json!({ "displayname": "Bobby" })).ok();
    let glob = |key: &str, pattern: &str| {
        json!({ "kind": "event_match", "key": key,
        "pattern": pattern })
    };
    let is = |key: &str, value: Value| {
        json!({ "kind": "event_property_is", "key": key,
        "value": value })
    };
    let has = |key: &str, value: Value| {
        json!({ "kind": "event_property_contains", "key": key,
        "value": value })
    };
    let (body, topic) = ("content.body", "content.topic");
    for (condition, content, expected) in [
        (glob(body, "ex*ple"), json!({ "body": "An example event." }), true),
        (glob(body, "ex*ple"), json!({ "body": "An exciting triple-whammy" }), true),
        (glob(body, "ex?mple"), json!({ "body": "counterexample" }), false),
        (glob(body, "cake"), json!({ "body": "Cake!" }), true),
        (glob(body, "cake"), json!({ "body": "cakes or pancake" }), false),
        (glob(topic, "lunc?*"), json!({ "topic": "Lunch plans" }), true),
        (glob(topic, "lunc?*"), json!({ "topic": " lunch" }), false),
        (glob(topic, "lunch"), json!({ "topic": "after lunch" }), false),
        (glob(topic, "*"), json!({}), false),
        (glob(topic, "*"), json!({ "topic": null }), false),
        (glob(topic, "*"), json!({ "topic": 1 }), false),
        (glob(r"content.m\.x.y", "z"), json!({ "m.x": { "y": "z" } }), true),
        (is("content.n", json!(1)), json!({ "n": 1 }), true),
        (is("content.n", json!(1)), json!({ "n": "1" }), false),
        (is("content.n", json!(null)), json!({ "n": null }), true),
        (is("content.n", json!(null)), json!({}), false),
        (is("content.n", json!(true)), json!({ "n": true }), true),
        (has("content.l", json!("b")), json!({ "l": ["a", "b", {}] }), true),
        (has("content.l", json!("b")), json!({ "l": ["ab"] }), false),
        (has("content.l", json!("b")), json!({ "l": "b" }), false),
        (json!({ "kind": "room_member_count", "is": "2" }), json!({}), true),
        (json!({ "kind": "room_member_count", "is": ">2" }), json!({}), false),
        (json!({ "kind": "room_member_count", "is": "<=2" }), json!({}), true),
        (json!({ "kind": "sender_notification_permission", "key": "room" }), json!({}), true),
        (json!({ "kind": "sender_notification_permission", "key": "none" }), json!({}), false),
        (json!({ "kind": "contains_display_name" }), json!({ "body": "hello bobby" }), true),
    ] {
        assert_eq!(matches(&alice, &bob, &condition, &content), expected, "{condition} {content}");
    }
}

#[test]
fn a_body_made_to_be_hard_to_search_does_no_harm() {
    let server = Server::start();
    let (alice, bob, room) = two_in_a_room(&server);
    for (id, pattern) in [("plain", "a"), ("glob", "a*?*a"), ("marks", &"?".repeat(255))] {
        let rule = json!({ "pattern": pattern, "actions": [] });
        bob.http.put(&at("content", id), &rule).ok();
    }
    alice.say(&room, &"xa ".repeat(20_000)).ok();
    assert_eq!(unread(&bob, &room), (1, 0));
}

#[test]
fn polls_notify_as_messages_do() {
    let server = Server::start();
    let (alice, bob, room) = two_in_a_room(&server);
    for (kind, expected) in [("start", 1), ("response", 1), ("end", 2)] {
        alice.send(&room, &format!("org.matrix.msc3381.poll.{kind}"), json!({})).ok();
        assert_eq!(unread(&bob, &room).0, expected, "{kind}");
    }
}
