//! What a client gets for what the server refuses. The harness checks CORS and the shape of
//! every answer besides.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;

use crate::common::{Server, path};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

// Checklist 1.2
#[test]
fn unknown_paths_are_not_found() {
    let server = Server::start();
    let alice = server.user("alice");
    for path in [
        "/_matrix/client/v3/nothing/here",
        "/_matrix/client/v99/sync",
        "/_matrix/client",
        "/_matrix/nothing",
        "/_matrix/key/v9/server",
        "/_synapse/nothing",
    ] {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            server.http.send(method, path, b"").refused(404, "M_UNRECOGNIZED");
            alice.http.send(method, path, b"{}").refused(404, "M_UNRECOGNIZED");
        }
    }
}

// Checklist 1.2
#[test]
fn known_paths_refuse_wrong_methods() {
    let server = Server::start();
    for (method, path) in [
        ("POST", "/_matrix/client/versions"),
        ("PUT", "/_matrix/client/v3/sync"),
        ("GET", "/_matrix/client/v3/createRoom"),
        ("DELETE", "/_matrix/client/v3/login"),
        ("GET", "/_matrix/client/r0/logout"),
        ("POST", "/_matrix/client/v3/rooms/%21a%3Ab/send/m.room.message/1"),
    ] {
        server.http.send(method, path, b"").refused(405, "M_UNRECOGNIZED");
    }
}

// Checklist 1.6
#[test]
fn preflights_are_answered_everywhere() {
    let server = Server::start();
    let send = "/_matrix/client/v3/rooms/%21a%3Ab/send/m.room.message/1";
    for path in ["/_matrix/client/versions", WHOAMI, send] {
        let answer = server.http.send("OPTIONS", path, b"");
        assert!(matches!(answer.status, 200 | 204), "{path}: {}", answer.status);
    }
}

// Checklist 1.3, 1.12
#[test]
fn tokens_are_asked_for_and_looked_up() {
    let server = Server::start();
    let alice = server.user("alice");
    server.http.get(WHOAMI).refused(401, "M_MISSING_TOKEN");
    server.http.with_token("forged").get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    server.http.get("/_matrix/client/v3/sync").refused(401, "M_MISSING_TOKEN");
    server.http.post("/_matrix/client/v3/createRoom", &json!({})).refused(401, "M_MISSING_TOKEN");
    let in_query = path("/_matrix/client/v3/account/whoami?access_token={}", &[&alice.token]);
    assert_eq!(server.http.get(&in_query).ok()["user_id"], alice.id.as_str());
}

// Checklist 1.1, 1.5
#[test]
fn bodies_that_are_not_json_are_told_from_bad_json() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let create = "/_matrix/client/v3/createRoom";
    let send = path("/_matrix/client/v3/rooms/{}/send/m.room.message/1", &[&room]);
    for (method, at) in [("POST", create), ("PUT", send.as_str())] {
        for garbage in ["{", "nonsense", "{\"a\":}", "{\"a\":1}}", "\u{0}"] {
            alice.http.send(method, at, garbage.as_bytes()).refused(400, "M_NOT_JSON");
        }
        alice.http.send(method, at, b"{\"a\":\"\xff\"}").refused(400, "M_NOT_JSON");
        for wrong in ["[]", "\"text\"", "1", "null"] {
            alice.http.send(method, at, wrong.as_bytes()).refused(400, "M_BAD_JSON");
        }
    }
    for wrong in [json!({ "invite": "alice" }), json!({ "preset": 1 }), json!({ "name": [] })] {
        alice.http.post(create, &wrong).refused(400, "M_BAD_JSON");
    }
    assert_eq!(server.http.post("/_matrix/client/v3/login", &json!({})).status, 400);
}

#[test]
fn hostile_json_is_refused_and_the_server_lives_on() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let deep = "[".repeat(50_000) + &"]".repeat(50_000);
    let put = |txn: &str, body: &str| {
        let at = path("/_matrix/client/v3/rooms/{}/send/org.example/{}", &[&room, txn]);
        alice.http.send("PUT", &at, body.as_bytes())
    };
    let bodies = [
        format!("{{\"a\":{deep}}}"),
        "{\"a\":1e400}".to_owned(),
        "{\"a\":1.5}".to_owned(),
        "{\"a\":9007199254740992}".to_owned(),
        "{\"a\":-9007199254740993}".to_owned(),
        "{\"a\":123456789012345678901234567890}".to_owned(),
        "{\"a\":\"\\ud800\"}".to_owned(),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let answer = put(&format!("bad{number}"), body);
        assert_eq!(answer.status, 400, "{number}: {}", answer.body);
    }
    put("big", &json!({ "a": "x".repeat(70_000) }).to_string()).refused(413, "M_TOO_LARGE");
    alice.say(&room, "still there").ok();
}

#[test]
fn parameters_are_checked() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let wrong_dir = alice.room(&room, "messages?dir=sideways");
    assert_eq!(wrong_dir.status, 400);
    for since in ["garbage", "", "s-1", "99999999999999999999"] {
        let at = path("/_matrix/client/v3/sync?since={}", &[since]);
        let answer = alice.http.get(&at);
        assert!(matches!(answer.status, 200 | 400), "since={since}: {}", answer.body);
    }
    alice.http.get("/_matrix/client/v3/sync?since=garbage").refused(400, "M_INVALID_PARAM");
    let not_a_room = path("/_matrix/client/v3/rooms/{}/joined_members", &["no room id"]);
    assert!(matches!(alice.http.get(&not_a_room).status, 400 | 403 | 404));
}

// Checklist 6.4
#[test]
fn strangers_learn_nothing_about_rooms() {
    let server = Server::start();
    let alice = server.user("alice");
    let mallory = server.user("mallory");
    let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    let event = alice.say(&room, "secret").event_id();
    mallory.join(&room).refused(403, "M_FORBIDDEN");
    mallory.say(&room, "hello?").refused(403, "M_FORBIDDEN");
    for what in ["state", "members", "joined_members", "messages?dir=b"] {
        mallory.room(&room, what).refused(403, "M_FORBIDDEN");
    }
    let at = path("event/{}", &[&event]);
    mallory.room(&room, &at).refused(404, "M_NOT_FOUND");
    alice.room(&room, &at).ok();
}

#[test]
fn a_body_in_which_everything_is_optional_may_be_left_out() {
    let server = Server::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    let room = alice.public_room();
    for path in [
        path("/_matrix/client/v3/join/{}", &[&room]),
        path("/_matrix/client/v3/rooms/{}/leave", &[&room]),
        path("/_matrix/client/v3/rooms/{}/join", &[&room]),
        "/_matrix/client/v3/createRoom".to_owned(),
        "/_matrix/client/v3/logout".to_owned(),
    ] {
        bob.http.send("POST", &path, b"").ok();
    }
}

// Checklist 1.4
#[test]
fn json_is_read_without_a_content_type_and_logouts_have_no_body() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let mut connection = TcpStream::connect(server.base().trim_start_matches("http://")).unwrap();
    let body = r#"{"name":"Untyped"}"#;
    let request = format!(
        "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        alice.token,
        body.len(),
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("room_id"), "{answer}");
    alice.http.send("POST", "/_matrix/client/v3/logout", b"").ok();
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    bob.http.send("POST", "/_matrix/client/v3/logout/all", b"").ok();
    bob.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
}

// Checklist 1.9
#[test]
fn versions_are_told_to_everybody() {
    let server = Server::start();
    let alice = server.user("alice");
    for client in [&server.http, &alice.http] {
        let versions = client.get("/_matrix/client/versions").ok();
        assert!(versions["versions"].as_array().unwrap().contains(&json!("v1.19")));
    }
}

// Checklist 1.11
#[test]
fn segments_of_a_path_are_decoded_once() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.create_room(json!({ "room_version": "3" })).room_id();
    // Event ids of this version are in the alphabet of base64 that has these two.
    for odd in ['/', '+'] {
        let id = (0..100).map(|n| alice.say(&room, &n.to_string()).event_id());
        let id = id.into_iter().find(|id| id.contains(odd)).unwrap();
        assert_eq!(alice.room(&room, &path("event/{}", &[&id])).ok()["event_id"], id.as_str());
    }
    for key in ["a/b", "a%2Fb", "50%", "#+ ?", "\u{e9}"] {
        alice.set_state(&room, "org.example", key, json!({ "key": key })).ok();
        assert_eq!(alice.state(&room, "org.example", key).ok()["key"], key);
    }
    let alias = "#odd/+%25:localhost";
    let at = path("/_matrix/client/v3/directory/room/{}", &[alias]);
    alice.http.put(&at, &json!({ "room_id": room })).ok();
    assert_eq!(server.http.get(&at).ok()["room_id"], room.as_str());
}

#[test]
fn the_well_known_file_is_there_if_the_server_knows_its_address() {
    let well_known = "/.well-known/matrix/client";
    Server::start().http.get(well_known).refused(404, "M_NOT_FOUND");
    let url = "https://matrix.example.org";
    let server = Server::start_with(&[("PARLOUR_SERVER__PUBLIC_URL", url)]);
    assert_eq!(server.http.get(well_known).ok()["m.homeserver"]["base_url"], url);
}

#[test]
fn an_alias_that_is_none_is_named() {
    let server = Server::start();
    let at = path("/_matrix/client/v3/directory/room/{}", &["no alias"]);
    server.http.get(&at).refused(400, "M_INVALID_PARAM");
}
