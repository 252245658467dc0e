//! The list of published rooms, and aliases.

use serde_json::{Value, json};

use super::{each, list_path, publish};
use crate::common::{Answer, Client, Server, User, path};

const LIST: &str = "/_matrix/client/v3/publicRooms";

fn listed(http: &Client) -> Vec<String> {
    each(&http.get(LIST).ok()["chunk"], "room_id")
}

fn search(user: &User, body: Value) -> Answer {
    user.http.post(LIST, &body)
}

// Checklist 8.14
#[test]
fn a_published_room_is_listed_as_it_is_now() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    assert_eq!(server.http.get(LIST).ok()["total_room_count_estimate"], 0);
    let room = alice.create_room(json!({
        "visibility": "public", "name": "Tea", "topic": "All about tea",
        "room_alias_name": "tea", "creation_content": { "type": "org.example.kitchen" },
        "initial_state": [
            { "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" } },
            { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
            { "type": "m.room.avatar", "content": { "url": "mxc://localhost/tea" } },
        ],
    }));
    let room = room.room_id();
    let expected = json!([{
        "room_id": room, "name": "Tea", "topic": "All about tea", "num_joined_members": 1,
        "canonical_alias": "#tea:localhost", "avatar_url": "mxc://localhost/tea",
        "world_readable": true, "guest_can_join": true, "room_type": "org.example.kitchen",
    }]);
    assert_eq!(server.http.get(LIST).ok()["chunk"], expected);
    // Whether it is listed has nothing to do with who may join or read.
    let secret = alice.create_room(json!({ "visibility": "public", "preset": "private_chat" }));
    let secret = secret.room_id();
    let of = |answer: &Answer, room: &str| {
        let rooms = answer["chunk"].as_array().unwrap().clone();
        rooms.into_iter().find(|listed| listed["room_id"] == room)
    };
    let entry = of(&server.http.get(LIST).ok(), &secret).unwrap();
    assert_eq!((&entry["join_rule"], &entry["world_readable"]), (&json!("invite"), &json!(false)));
    // What changes in the room changes in the list.
    bob.join(&room).ok();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Coffee" })).ok();
    let html = json!({ "topic": "T", "m.topic": { "m.text": [{ "mimetype": "text/html", "body": "<b>" }] } });
    alice.set_state(&room, "m.room.topic", "", html).ok();
    let check = |answer: &Answer| {
        let entry = of(answer, &room).unwrap();
        assert_eq!((&entry["name"], &entry["num_joined_members"]), (&json!("Coffee"), &json!(2)));
        assert!(entry["topic"].is_null(), "there is none in plain text: {entry}");
    };
    check(&server.http.get(LIST).ok());
    server.restart();
    check(&server.http.get(LIST).ok());
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    let odd = json!({ "topic": "T", "m.topic": "which is no block of text" });
    alice.set_state(&room, "m.room.topic", "", odd).ok();
    assert_eq!(of(&server.http.get(LIST).ok(), &room).unwrap()["topic"], "T");
    // A room that everybody has left is of no use to anybody.
    alice.leave(&room).ok();
    bob.leave(&room).ok();
    assert_eq!(listed(&server.http), [secret]);
}

#[test]
fn members_with_power_publish_a_room() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let is = |visibility: &str| {
        assert_eq!(server.http.get(&list_path(&room)).ok()["visibility"], visibility);
    };
    is("private");
    publish(&alice, &room, "public").ok();
    publish(&alice, &room, "public").ok();
    is("public");
    assert_eq!(listed(&server.http), [&*room]);
    publish(&bob, &room, "private").refused(403, "M_FORBIDDEN");
    publish(&carol, &room, "private").refused(403, "M_FORBIDDEN");
    is("public");
    publish(&alice, &room, "private").ok();
    is("private");
    assert!(listed(&server.http).is_empty());
    // Public is what is meant if nothing is said.
    alice.http.put(&list_path(&room), &json!({})).ok();
    is("public");
    alice.leave(&room).ok();
    publish(&alice, &room, "private").refused(403, "M_FORBIDDEN");
    publish(&alice, &room, "hidden").refused(400, "M_INVALID_PARAM");
    alice.http.put(&list_path(&room), &json!({ "visibility": 1 })).refused(400, "M_BAD_JSON");
    server.http.put(&list_path(&room), &json!({})).refused(401, "M_MISSING_TOKEN");
    publish(&alice, "!nothing:localhost", "public").refused(404, "M_NOT_FOUND");
    server.http.get(&list_path("!nothing:localhost")).refused(404, "M_NOT_FOUND");
}

#[test]
fn the_list_is_paged_in_both_directions() {
    let server = Server::start();
    let users: Vec<_> = (0..3).map(|n| server.user(&format!("user{n}"))).collect();
    let mut rooms: Vec<_> = (0..7)
        .map(|n| {
            let body = json!({ "visibility": "public", "name": format!("Room {n}") });
            let room = users[0].create_room(body).room_id();
            let members = n % 3;
            users[1..=members].iter().for_each(|user| drop(user.join(&room).ok()));
            (members, room)
        })
        .collect();
    rooms.sort_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.cmp(right)));
    let rooms: Vec<_> = rooms.into_iter().map(|(_, room)| room).collect();
    assert_eq!(listed(&server.http), rooms, "most members first, then by id");
    let page = |since: &Value| {
        let since = since.as_str().map(|token| path("&since={}", &[token])).unwrap_or_default();
        server.http.get(&format!("{LIST}?limit=3{since}")).ok()
    };
    let ids = |page: &Answer| each(&page["chunk"], "room_id");
    let first = page(&Value::Null);
    assert_eq!((ids(&first), &first["prev_batch"]), (rooms[..3].to_vec(), &Value::Null));
    assert_eq!(first["total_room_count_estimate"], 7);
    let second = page(&first["next_batch"]);
    assert_eq!(ids(&second), rooms[3..6]);
    let third = page(&second["next_batch"]);
    assert_eq!((ids(&third), &third["next_batch"]), (rooms[6..].to_vec(), &Value::Null));
    assert_eq!(ids(&page(&third["prev_batch"])), rooms[3..6]);
    let back = page(&second["prev_batch"]);
    assert_eq!((ids(&back), &back["prev_batch"]), (rooms[..3].to_vec(), &Value::Null));
    assert_eq!(ids(&page(&back["next_batch"])), rooms[3..6]);
    // A room that goes does not move the others.
    publish(&users[0], &rooms[2], "private").ok();
    assert_eq!(ids(&page(&first["next_batch"])), rooms[3..6]);
    // The same with a filter.
    let body = json!({ "limit": 2, "since": first["next_batch"], "filter": { "generic_search_term": "room" } });
    let found = search(&users[0], body).ok();
    assert_eq!(ids(&found), rooms[3..5]);
    for since in ["nonsense", "p1_a_x_!a:b", "s1_1_1"] {
        server.http.get(&format!("{LIST}?since={since}")).refused(400, "M_INVALID_PARAM");
        search(&users[0], json!({ "since": since })).refused(400, "M_INVALID_PARAM");
    }
}

#[test]
fn the_list_is_searched() {
    let server = Server::start();
    let alice = server.user("alice");
    let make = |name: &str, more: Value| {
        let mut body = json!({ "visibility": "public", "name": name });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        alice.create_room(body).ok();
    };
    make("Gardening", json!({ "topic": "Roses and Tulips" }));
    make("Space", json!({ "creation_content": { "type": "m.space" } }));
    make(
        "Other",
        json!({ "creation_content": { "type": "org.example" }, "room_alias_name": "rosebud" }),
    );
    let names = |filter: Value| {
        let mut found = each(&search(&alice, json!({ "filter": filter })).ok()["chunk"], "name");
        found.sort();
        found
    };
    for (filter, expected) in [
        (json!({}), &["Gardening", "Other", "Space"][..]),
        (json!({ "generic_search_term": "GARDEN" }), &["Gardening"]),
        (json!({ "generic_search_term": "rose" }), &["Gardening", "Other"]),
        (json!({ "generic_search_term": " and tulips " }), &["Gardening"]),
        (json!({ "generic_search_term": "nothing" }), &[]),
        (json!({ "room_types": ["m.space"] }), &["Space"]),
        (json!({ "room_types": [null] }), &["Gardening"]),
        (json!({ "room_types": [null, "org.example"] }), &["Gardening", "Other"]),
        (json!({ "room_types": [null], "generic_search_term": "space" }), &[]),
    ] {
        assert_eq!(names(filter.clone()), expected, "{filter}");
    }
    let count = |body: Value| search(&alice, body).ok()["chunk"].as_array().unwrap().len();
    assert_eq!(count(json!({ "include_all_networks": true })), 3);
    assert_eq!(count(json!({ "third_party_instance_id": "irc-1" })), 0);
    let both = json!({ "include_all_networks": true, "third_party_instance_id": "irc-1" });
    search(&alice, both).refused(400, "M_BAD_JSON");
    server.http.post(LIST, &json!({})).refused(401, "M_MISSING_TOKEN");
    let at = |name: &str| format!("{LIST}?server={name}");
    assert_eq!(server.http.get(&at("localhost")).ok()["chunk"].as_array().unwrap().len(), 3);
    // Strangers have nobody asked.
    server.http.get(&at("elsewhere.example")).refused(403, "M_FORBIDDEN");
    server.http.post(&at("elsewhere.example"), &json!({})).refused(401, "M_MISSING_TOKEN");
}

fn put_alias(user: &User, alias: &str, room: &str) -> Answer {
    let at = path("/_matrix/client/v3/directory/room/{}", &[alias]);
    user.http.put(&at, &json!({ "room_id": room }))
}

#[test]
fn an_alias_that_is_removed_is_no_canonical_alias_any_more() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    for alias in ["#main:localhost", "#other:localhost"] {
        put_alias(&alice, alias, &room).ok();
    }
    put_alias(&bob, "#bobs:localhost", &room).ok();
    let set = |content: Value| alice.set_state(&room, "m.room.canonical_alias", "", content);
    let all = ["#main:localhost", "#other:localhost", "#bobs:localhost"];
    set(json!({ "alias": all[0], "alt_aliases": all, "org.example": 1 })).ok();
    let delete = |user: &User, alias: &str| {
        let at = path("/_matrix/client/v3/directory/room/{}", &[alias]);
        user.http.send("DELETE", &at, b"").ok();
    };
    let canonical = || alice.state(&room, "m.room.canonical_alias", "").ok().body;
    delete(&alice, all[0]);
    assert_eq!(canonical(), json!({ "alt_aliases": all[1..], "org.example": 1 }));
    // Bob may remove his alias, and not change what the room says of it.
    delete(&bob, all[2]);
    assert_eq!(canonical(), json!({ "alt_aliases": all[1..], "org.example": 1 }));
}
