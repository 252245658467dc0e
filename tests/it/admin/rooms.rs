//! `/_synapse/admin/v1/rooms` and what belongs to it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{for_administrators, has_keys};
use crate::common::{Answer, Ask, Server, User, deadline, path};

const ROOMS: &str = "/_synapse/admin/v1/rooms";

const SUMMARY: [&str; 15] = [
    "room_id",
    "name",
    "canonical_alias",
    "joined_members",
    "joined_local_members",
    "version",
    "creator",
    "encryption",
    "federatable",
    "public",
    "join_rules",
    "guest_access",
    "history_visibility",
    "state_events",
    "room_type",
];

const SHUTDOWN: [&str; 4] =
    ["kicked_users", "failed_to_kick_users", "local_aliases", "new_room_id"];

fn v1(room: &str, what: &str) -> String {
    path("/_synapse/admin/v1/rooms/{}", &[room]) + what
}

fn v2(room: &str, what: &str) -> String {
    path("/_synapse/admin/v2/rooms/{}", &[room]) + what
}

fn delete(user: &User, at: &str, body: &Value) -> Answer {
    user.http.send("DELETE", at, body.to_string().as_bytes())
}

/// Waits until a deletion is over.
fn over(root: &User, id: &str) -> Value {
    let until = deadline(Duration::from_secs(30));
    let at = path("/_synapse/admin/v2/rooms/delete_status/{}", &[id]);
    loop {
        let status = root.http.get(&at).ok();
        if ["complete", "failed"].contains(&status["status"].as_str().unwrap()) {
            return status.body;
        }
        assert!(!until.passed(), "{}", status.body);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn rooms_are_listed_searched_and_sorted() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let new = |body: Value| alice.create_room(body).room_id();
    let attic = new(json!({ "name": "Attic", "preset": "private_chat", "room_version": "9" }));
    let cellar = new(json!({ "name": "Cellar", "preset": "public_chat", "visibility": "public",
        "room_alias_name": "wine", "topic": "Wine" }));
    let hall = new(json!({ "name": "Great hall", "preset": "public_chat",
        "creation_content": { "type": "m.space", "m.federate": false } }));
    bob.join(&cellar).ok();
    let all = root.http.get(ROOMS).ok();
    has_keys(&all.body, &["rooms", "offset", "total_rooms"]);
    let rooms = all["rooms"].as_array().unwrap().clone();
    rooms.iter().for_each(|room| has_keys(room, &SUMMARY));
    let ids: Vec<_> = rooms.iter().map(|room| room["room_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&attic, &cellar, &hall]);
    assert_eq!(rooms[1]["canonical_alias"], "#wine:localhost");
    assert_eq!(
        (&rooms[1]["joined_members"], &rooms[1]["joined_local_members"]),
        (&json!(2), &json!(2))
    );
    assert_eq!((&rooms[0]["version"], &rooms[0]["creator"]), (&json!("9"), &json!(alice.id)));
    assert_eq!((&rooms[1]["public"], &rooms[0]["public"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&rooms[2]["federatable"], &rooms[2]["room_type"]),
        (&json!(false), &json!("m.space"))
    );
    assert_eq!(
        (&rooms[0]["join_rules"], &rooms[0]["encryption"]),
        (&json!("invite"), &Value::Null)
    );
    assert_eq!(rooms[0]["history_visibility"], "shared");
    let listed = |query: &str| -> Vec<String> {
        let answer = root.http.get(&format!("{ROOMS}?{query}")).ok();
        let rooms = answer["rooms"].as_array().unwrap().clone();
        rooms.iter().map(|room| room["room_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed("search_term=ATT"), [&attic[..]]);
    assert_eq!(listed("search_term=wine"), [&cellar[..]]);
    assert_eq!(listed(&path("search_term={}", &[&hall])), [&hall[..]]);
    // In room ids of old versions, but not behind the colon of aliases.
    assert_eq!(listed("search_term=localhost"), [&attic[..]]);
    assert_eq!(listed("dir=b"), [hall.clone(), cellar.clone(), attic.clone()]);
    assert_eq!(listed("order_by=joined_members&limit=1"), [&cellar[..]]);
    assert_eq!(listed("order_by=size&dir=b").last(), Some(&cellar));
    assert_eq!(listed("order_by=version").last(), Some(&attic));
    for by in [
        "alphabetical",
        "canonical_alias",
        "joined_local_members",
        "creator",
        "encryption",
        "federatable",
        "public",
        "join_rules",
        "guest_access",
        "history_visibility",
        "state_events",
        "name",
    ] {
        assert_eq!(listed(&format!("order_by={by}")).len(), 3, "{by}");
    }
    assert_eq!(listed("public_rooms=true"), [&cellar[..]]);
    assert_eq!(listed("public_rooms=false").len(), 2);
    alice.leave(&attic).ok();
    assert_eq!(listed("empty_rooms=true"), [&attic[..]]);
    assert_eq!(listed("empty_rooms=false").len(), 2);
    let page = root.http.get(&format!("{ROOMS}?limit=1&from=1")).ok();
    assert_eq!((&page["offset"], &page["total_rooms"]), (&json!(1), &json!(3)));
    assert_eq!((&page["next_batch"], &page["prev_batch"]), (&json!(2), &json!(0)));
    for wrong in ["order_by=x", "search_term=", "limit=x", "dir=x"] {
        root.http.get(&format!("{ROOMS}?{wrong}")).refused(400, "M_INVALID_PARAM");
    }
    for_administrators(&server, &alice, "GET", ROOMS);
}

#[test]
fn a_room_is_looked_at_from_all_sides() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    server.login("bob");
    let room = alice.create_room(json!({ "preset": "public_chat", "topic": "Wine" })).room_id();
    bob.join(&room).ok();
    let details = root.http.get(&v1(&room, "")).ok();
    let more =
        ["avatar", "topic", "joined_local_devices", "forgotten", "tombstoned", "replacement_room"];
    has_keys(&details.body, &[&SUMMARY[..], &more].concat());
    assert_eq!((&details["topic"], &details["joined_local_devices"]), (&json!("Wine"), &json!(3)));
    assert_eq!((&details["forgotten"], &details["tombstoned"]), (&json!(false), &json!(false)));
    let members = root.http.get(&v1(&room, "/members")).ok();
    has_keys(&members.body, &["members", "total"]);
    assert_eq!(members["total"], 2);
    let mut names: Vec<_> = members["members"].as_array().unwrap().clone();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, [json!(alice.id), json!(bob.id)]);
    let state = root.http.get(&v1(&room, "/state")).ok();
    assert_eq!(
        state["state"].as_array().unwrap().len() as u64,
        details["state_events"].as_u64().unwrap()
    );
    let topic = root.http.get(&v1(&room, "/state?type=m.room.topic")).ok();
    assert_eq!(topic["state"].as_array().unwrap().len(), 1);
    assert_eq!(topic["state"][0]["content"]["topic"], "Wine");
    assert_eq!(topic["state"][0]["room_id"], json!(room));
    alice
        .set_state(
            &room,
            "m.room.tombstone",
            "",
            json!({ "body": "gone",
        "replacement_room": "!other:localhost" }),
        )
        .ok();
    let details = root.http.get(&v1(&room, "")).ok();
    assert_eq!(details["replacement_room"], "!other:localhost");
    for what in ["", "/members", "/state"] {
        root.http.get(&v1("!nowhere:localhost", what)).refused(404, "M_NOT_FOUND");
        root.http.get(&v1("nonsense", what)).refused(400, "M_UNKNOWN");
        for_administrators(&server, &alice, "GET", &v1(&room, what));
    }
}

#[test]
fn nobody_enters_a_blocked_room() {
    let mut server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let room = alice.public_room();
    let at = v1(&room, "/block");
    assert_eq!(root.http.get(&at).ok().body, json!({ "block": false }));
    assert_eq!(root.http.put(&at, &json!({ "block": true })).ok().body, json!({ "block": true }));
    server.restart();
    let (root, alice, bob) = (server.again(&root), server.again(&alice), server.again(&bob));
    assert_eq!(root.http.get(&at).ok().body, json!({ "block": true, "user_id": root.id }));
    bob.join(&room).refused(403, "M_FORBIDDEN");
    alice.invite(&room, &bob).refused(403, "M_FORBIDDEN");
    alice.say(&room, "who is in it stays").ok();
    root.http.put(&at, &json!({ "block": false })).ok();
    bob.join(&room).ok();
    let unknown = v1("!elsewhere:example.org", "/block");
    root.http.put(&unknown, &json!({ "block": true })).ok();
    assert_eq!(root.http.get(&unknown).ok()["block"], true);
    root.http.put(&at, &json!({})).refused(400, "M_BAD_JSON");
    root.http.put(&v1("nonsense", "/block"), &json!({ "block": true })).refused(400, "M_UNKNOWN");
    for method in ["GET", "PUT"] {
        for_administrators(&server, &alice, method, &at);
    }
}

#[test]
fn a_deleted_room_is_gone_and_its_people_are_elsewhere() {
    let mut server = Server::start();
    let root = server.admin("root");
    let (alice, bob, carol) = (server.user("alice"), server.user("bob"), server.user("carol"));
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "bad",
        "visibility": "public" }))
        .room_id();
    let other = alice.public_room();
    bob.join(&room).ok();
    bob.join(&other).ok();
    alice.invite(&room, &carol).ok();
    let event = bob.say(&room, "something bad").event_id();
    let kept = bob.say(&other, "something good").event_id();
    let tags =
        path("/_matrix/client/v3/user/{}/rooms/{}/account_data/org.example", &[&bob.id, &room]);
    bob.http.put(&tags, &json!({ "a": 1 })).ok();
    for n in 0..120 {
        bob.say(&room, &format!("and more of it: {n}")).ok();
    }
    let body = json!({ "new_room_user_id": root.id, "room_name": "Closed", "block": true,
        "message": "It was bad." });
    let done = delete(&root, &v1(&room, ""), &body).ok();
    has_keys(&done.body, &SHUTDOWN);
    let mut kicked = done["kicked_users"].as_array().unwrap().clone();
    kicked.sort_by_key(ToString::to_string);
    assert_eq!(kicked, [json!(alice.id), json!(bob.id), json!(carol.id)]);
    assert_eq!(done["failed_to_kick_users"], json!([]));
    assert_eq!(done["local_aliases"], json!(["#bad:localhost"]));
    let new = done["new_room_id"].as_str().unwrap().to_owned();
    for restarted in [false, true] {
        if restarted {
            server.restart();
        }
        let again = |user: &User| server.again(user);
        let (root, alice, bob, carol) = (again(&root), again(&alice), again(&bob), again(&carol));
        root.http.get(&v1(&room, "")).refused(404, "M_NOT_FOUND");
        assert_eq!(root.http.get(ROOMS).ok()["total_rooms"], 2);
        assert_eq!(root.http.get(&v1(&room, "/block")).ok()["block"], true);
        bob.join(&room).refused(403, "M_FORBIDDEN");
        bob.room(&room, &path("event/{}", &[&event])).refused(404, "M_NOT_FOUND");
        bob.room(&room, "messages?dir=b").refused(403, "M_FORBIDDEN");
        bob.http.get(&tags).refused(404, "M_NOT_FOUND");
        bob.say(&room, "and still").refused(403, "M_FORBIDDEN");
        let alias =
            alice.http.get(&path("/_matrix/client/v3/directory/room/{}", &["#bad:localhost"]));
        assert_eq!(alias.ok()["room_id"], json!(new));
        let sync = bob.sync(Ask::initial()).ok();
        let joined = sync["rooms"]["join"].as_object().unwrap();
        assert_eq!(joined.keys().len(), 2);
        assert!(joined.contains_key(&new) && joined.contains_key(&other), "{}", sync.body);
        assert_eq!(bob.state(&new, "m.room.name", "").ok()["name"], "Closed");
        assert_eq!(
            bob.room(&new, "messages?dir=b&filter=%7B%22types%22%3A%5B%22m.room.message%22%5D%7D")
                .chunk()[0]["content"]["body"],
            "It was bad."
        );
        bob.say(&new, "unfair").refused(403, "M_FORBIDDEN");
        carol.state(&new, "m.room.name", "").refused(403, "M_FORBIDDEN");
        bob.room(&other, &path("event/{}", &[&kept])).ok();
        // Numbers of what is gone are not given out again.
        let fresh = alice.public_room();
        alice.say(&fresh, "new").ok();
        alice.leave(&fresh).ok();
        delete(&root, &v1(&fresh, ""), &json!({})).ok();
    }
}

#[test]
fn a_deletion_in_the_background_goes_on_after_a_kill() {
    let mut server = Server::start();
    let root = server.admin("root");
    let alice = server.user("alice");
    let room = alice.public_room();
    for n in 0..400 {
        alice.set_state(&room, "org.example", &n.to_string(), json!({ "n": n })).ok();
    }
    root.http.get(&v2(&room, "/delete_status")).refused(404, "M_NOT_FOUND");
    let id = delete(&root, &v2(&room, ""), &json!({ "block": false })).text("delete_id");
    server.restart();
    let (root, alice) = (server.again(&root), server.again(&alice));
    let status = over(&root, &id);
    has_keys(&status, &["delete_id", "room_id", "status", "shutdown_room"]);
    has_keys(&status["shutdown_room"], &SHUTDOWN);
    assert_eq!((&status["status"], &status["room_id"]), (&json!("complete"), &json!(room)));
    assert_eq!(status["shutdown_room"]["new_room_id"], Value::Null);
    let of_room = root.http.get(&v2(&room, "/delete_status")).ok();
    assert_eq!(of_room.body, json!({ "results": [status] }));
    root.http.get(&v1(&room, "")).refused(404, "M_NOT_FOUND");
    alice.join(&room).refused(404, "M_UNKNOWN");
    assert_eq!(alice.http.get("/_matrix/client/v3/joined_rooms").ok()["joined_rooms"], json!([]));
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

#[test]
fn a_room_can_be_emptied_and_kept() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let room = alice.public_room();
    bob.join(&room).ok();
    let since = bob.sync(Ask::initial()).next_batch();
    let done = delete(&root, &v1(&room, ""), &json!({ "purge": false })).ok();
    assert_eq!(done["new_room_id"], Value::Null);
    assert_eq!(root.http.get(&v1(&room, "")).ok()["joined_members"], 0);
    assert_eq!(root.http.get(&v1(&room, "")).ok()["forgotten"], true);
    let gone = bob.sync(Ask::since(&since)).ok();
    assert!(gone["rooms"]["leave"][&room].is_object(), "{}", gone.body);
    bob.join(&room).ok();
    for wrong in [json!({ "block": 1 }), json!({ "new_room_user_id": "x" }), json!([])] {
        delete(&root, &v1(&room, ""), &wrong).refused(400, "M_BAD_JSON");
        delete(&root, &v2(&room, ""), &wrong).refused(400, "M_BAD_JSON");
    }
    let foreign = json!({ "new_room_user_id": "@a:elsewhere.example" });
    delete(&root, &v1(&room, ""), &foreign).refused(400, "M_UNKNOWN");
    for at in [v1("!nowhere:localhost", ""), v2("!nowhere:localhost", "")] {
        delete(&root, &at, &json!({})).refused(404, "M_NOT_FOUND");
    }
    let ahead = delete(&root, &v1("!nowhere:localhost", ""), &json!({ "block": true })).ok();
    assert_eq!(ahead["kicked_users"], json!([]));
    assert_eq!(root.http.get(&v1("!nowhere:localhost", "/block")).ok()["block"], true);
    let status = "/_synapse/admin/v2/rooms/delete_status/none";
    root.http.get(status).refused(404, "M_NOT_FOUND");
    for (method, at) in [
        ("DELETE", v1(&room, "")),
        ("DELETE", v2(&room, "")),
        ("GET", v2(&room, "/delete_status")),
        ("GET", status.to_owned()),
    ] {
        for_administrators(&server, &alice, method, &at);
    }
}
