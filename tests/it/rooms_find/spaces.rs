//! The hierarchy of spaces.

use serde_json::{Value, json};

use super::{each, room_with_rule};
use crate::common::{Answer, Server, User, path};

fn hierarchy(user: &User, room: &str, parameters: &str) -> Answer {
    let at = path("/_matrix/client/v1/rooms/{}/hierarchy", &[room]);
    user.http.get(&format!("{at}?{parameters}"))
}

/// The names of the rooms in an answer.
fn names(answer: Answer) -> Vec<String> {
    each(&answer.ok()["rooms"], "name")
}

fn space(owner: &User, name: &str) -> String {
    let body = json!({ "name": name, "preset": "public_chat",
        "creation_content": { "type": "m.space" } });
    owner.create_room(body).room_id()
}

fn room(owner: &User, name: &str) -> String {
    owner.create_room(json!({ "name": name, "preset": "public_chat" })).room_id()
}

fn add(owner: &User, space: &str, child: &str, more: Value) {
    let mut content = json!({ "via": ["localhost"] });
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    owner.set_state(space, "m.space.child", child, content).ok();
}

/// Root holds Sub (with Deep, in which is Pit), One and Two; Pit leads back to Root.
fn tree(owner: &User) -> (String, String) {
    let [root, sub, deep, pit] = ["Root", "Sub", "Deep", "Pit"].map(|name| space(owner, name));
    let [one, two] = ["One", "Two"].map(|name| room(owner, name));
    add(owner, &root, &two, json!({}));
    add(owner, &root, &one, json!({ "order": "b", "suggested": true }));
    add(owner, &root, &sub, json!({ "order": "a", "suggested": true }));
    add(owner, &sub, &deep, json!({}));
    add(owner, &sub, &two, json!({ "suggested": true }));
    add(owner, &deep, &pit, json!({}));
    add(owner, &pit, &root, json!({}));
    (root, pit)
}

// Checklist 8.15
#[test]
fn a_space_is_walked_depth_first_in_the_order_of_its_children() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let (root, _) = tree(&alice);
    let all = ["Root", "Sub", "Deep", "Pit", "Two", "One"];
    for user in [&alice, &bob] {
        assert_eq!(names(hierarchy(user, &root, "")), all, "each once, although there is a loop");
    }
    let first = hierarchy(&bob, &root, "max_depth=0").ok();
    let [about] = &first["rooms"].as_array().unwrap()[..] else { panic!("{}", first.body) };
    assert_eq!((&about["room_type"], &about["num_joined_members"]), (&json!("m.space"), &json!(1)));
    let children = about["children_state"].as_array().unwrap();
    let orders: Vec<_> = children.iter().map(|child| &child["content"]["order"]).collect();
    assert_eq!(orders, [&json!("a"), &json!("b"), &Value::Null]);
    let keys: Vec<_> = children[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["content", "origin_server_ts", "sender", "state_key", "type"]);
    for (parameters, expected) in [
        ("max_depth=1", &["Root", "Sub", "One", "Two"][..]),
        ("max_depth=2", &["Root", "Sub", "Deep", "Two", "One"]),
        ("suggested_only=true", &["Root", "Sub", "Two", "One"]),
        ("suggested_only=true&max_depth=1", &["Root", "Sub", "One"]),
        ("limit=2", &["Root", "Sub"]),
    ] {
        assert_eq!(names(hierarchy(&bob, &root, parameters)), expected, "{parameters}");
    }
    let old = path("/_matrix/client/unstable/org.matrix.msc2946/rooms/{}/hierarchy", &[&root]);
    assert_eq!(names(bob.http.get(&old)), all);
}

// Checklist 8.15
#[test]
fn pages_go_on_where_the_last_one_ended_on_the_same_terms() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let (root, pit) = tree(&alice);
    let terms = "limit=2&max_depth=9&suggested_only=false";
    let page = |user: &User, terms: &str, token: &str| {
        hierarchy(user, &root, &format!("{terms}&{}", path("from={}", &[token])))
    };
    let first = hierarchy(&bob, &root, terms).ok();
    let token = first.clone().text("next_batch");
    // What happens to the rooms meanwhile counts, and a token can be used again.
    assert_eq!(names(page(&bob, terms, &token)), ["Deep", "Pit"]);
    alice.membership(&pit, "ban", json!({ "user_id": bob.id })).ok();
    let second = page(&bob, terms, &token).ok();
    assert_eq!(names(second.clone()), ["Deep", "Two"]);
    let third = page(&bob, "max_depth=9", &second.text("next_batch")).ok();
    assert_eq!(names(third.clone()), ["One"]);
    assert!(third["next_batch"].is_null());
    for terms in ["max_depth=8", "suggested_only=true&max_depth=9", ""] {
        page(&bob, terms, &token).refused(400, "M_INVALID_PARAM");
    }
    page(&alice, terms, &token).refused(400, "M_INVALID_PARAM");
    page(&bob, terms, "nonsense").refused(400, "M_INVALID_PARAM");
    let at = |room: &str| hierarchy(&bob, room, &format!("{terms}&from={token}"));
    at(&room(&alice, "Other")).refused(400, "M_INVALID_PARAM");
    for parameters in ["limit=0", "limit=x", "max_depth=-1", "suggested_only=perhaps"] {
        hierarchy(&bob, &root, parameters).refused(400, "M_INVALID_PARAM");
    }
    server.restart();
    let bob = server.again(&bob);
    page(&bob, terms, &token).refused(400, "M_INVALID_PARAM");
}

// Checklist 8.15
#[test]
fn everybody_sees_the_rooms_that_are_open_to_them() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let root = space(&alice, "Root");
    bob.join(&root).ok();
    let allow = json!([{ "type": "m.room_membership", "room_id": root }]);
    let readable = json!([{ "type": "m.room.history_visibility",
        "content": { "history_visibility": "world_readable" } }]);
    let rooms = [
        ("Closed", json!({ "join_rule": "invite" }), json!({})),
        ("Invited", json!({ "join_rule": "invite" }), json!({ "invite": [bob.id] })),
        ("Restricted", json!({ "join_rule": "restricted", "allow": allow }), json!({})),
        ("Knock", json!({ "join_rule": "knock" }), json!({})),
        ("Readable", json!({ "join_rule": "invite" }), json!({ "initial_state": readable })),
    ];
    let mut last = String::new();
    for (order, (name, rule, mut more)) in rooms.into_iter().enumerate() {
        more["name"] = json!(name);
        last = room_with_rule(&alice, rule, more);
        add(&alice, &root, &last, json!({ "order": order.to_string() }));
    }
    let all = ["Root", "Closed", "Invited", "Restricted", "Knock", "Readable"];
    assert_eq!(names(hierarchy(&alice, &root, "")), all);
    assert_eq!(
        names(hierarchy(&bob, &root, "")),
        ["Root", "Invited", "Restricted", "Knock", "Readable"]
    );
    assert_eq!(names(hierarchy(&carol, &root, "")), ["Root", "Knock", "Readable"]);
    // Children that are unknown, no rooms, or taken out again.
    add(&alice, &root, "!unknown:elsewhere.example", json!({ "order": " " }));
    alice.set_state(&root, "m.space.child", "no room", json!({ "via": ["localhost"] })).ok();
    alice.set_state(&root, "m.space.child", &last, json!({})).ok();
    let found = hierarchy(&carol, &root, "").ok();
    assert_eq!(names(found.clone()), ["Root", "Knock"]);
    let children = each(&found["rooms"][0]["children_state"], "state_key");
    assert_eq!((children.len(), &*children[0]), (5, "!unknown:elsewhere.example"));
    // The first room must be one that the user may see.
    let closed = alice.create_room(json!({ "creation_content": { "type": "m.space" } })).room_id();
    hierarchy(&carol, &closed, "").refused(403, "M_FORBIDDEN");
    hierarchy(&carol, "!nothing:localhost", "").refused(403, "M_FORBIDDEN");
    alice.membership(&root, "ban", json!({ "user_id": carol.id })).ok();
    hierarchy(&carol, &root, "").refused(403, "M_FORBIDDEN");
    // Only spaces have children.
    let plain = room(&alice, "Plain");
    add(&alice, &plain, &root, json!({}));
    let found = hierarchy(&alice, &plain, "").ok();
    assert_eq!(
        (names(found.clone()), &found["rooms"][0]["children_state"]),
        (vec!["Plain".to_owned()], &json!([]))
    );
}
