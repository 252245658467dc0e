//! `/_synapse/admin/v1/registration_tokens`

use serde_json::{Value, json};

use super::{for_administrators, has_keys};
use crate::common::{PASSWORD, Server};

const TOKENS: &str = "/_synapse/admin/v1/registration_tokens";
const NEW: &str = "/_synapse/admin/v1/registration_tokens/new";
const REGISTER: &str = "/_matrix/client/v3/register";

/// A time that tests do not live to see.
const FAR: u64 = 4_781_243_146_000;

fn one(token: &str) -> String {
    format!("{TOKENS}/{token}")
}

fn register(server: &Server, name: &str, token: &str) -> u16 {
    let mut body = json!({ "username": name, "password": PASSWORD });
    let session = server.http.post(REGISTER, &body)["session"].clone();
    body["auth"] =
        json!({ "type": "m.login.registration_token", "token": token, "session": session });
    server.http.post(REGISTER, &body).status
}

#[test]
fn tokens_are_made_changed_and_removed() {
    let mut server = Server::start();
    let root = server.admin("root");
    let alice = server.user("alice");
    assert_eq!(root.http.get(TOKENS).ok().body, json!({ "registration_tokens": [] }));
    let body = json!({ "token": "ticket", "uses_allowed": 2, "expiry_time": FAR });
    let made = root.http.post(NEW, &body).ok();
    assert_eq!(
        made.body,
        json!({ "token": "ticket", "uses_allowed": 2, "pending": 0,
        "completed": 0, "expiry_time": FAR })
    );
    root.http.post(NEW, &body).refused(400, "M_INVALID_PARAM");
    let drawn = root.http.post(NEW, &json!({})).ok();
    has_keys(&drawn.body, &["token", "uses_allowed", "pending", "completed", "expiry_time"]);
    assert_eq!(drawn["token"].as_str().unwrap().len(), 16);
    assert_eq!((&drawn["uses_allowed"], &drawn["expiry_time"]), (&Value::Null, &Value::Null));
    let long = root.http.post(NEW, &json!({ "length": 64 })).text("token");
    assert_eq!(long.len(), 64);
    for wrong in [
        json!({ "token": "" }),
        json!({ "token": "white space" }),
        json!({ "token": "x".repeat(65) }),
        json!({ "token": 1 }),
        json!({ "length": 0 }),
        json!({ "length": 65 }),
        json!({ "uses_allowed": -1 }),
        json!({ "expiry_time": 1 }),
        json!({ "expiry_time": "tomorrow" }),
    ] {
        root.http.post(NEW, &wrong).refused(400, "M_INVALID_PARAM");
    }
    server.restart();
    let root = server.again(&root);
    assert_eq!(root.http.get(&one("ticket")).ok().body, made.body);
    let changed = root.http.put(&one("ticket"), &json!({ "uses_allowed": 0 })).ok();
    assert_eq!((&changed["uses_allowed"], &changed["expiry_time"]), (&json!(0), &json!(FAR)));
    let valid = |query: &str| {
        let answer = root.http.get(&format!("{TOKENS}{query}")).ok();
        answer["registration_tokens"].as_array().unwrap().len()
    };
    assert_eq!((valid(""), valid("?valid=true"), valid("?valid=false")), (3, 2, 1));
    let lifted = json!({ "uses_allowed": null, "expiry_time": null });
    let lifted = root.http.put(&one("ticket"), &lifted).ok();
    assert_eq!((&lifted["uses_allowed"], &lifted["expiry_time"]), (&Value::Null, &Value::Null));
    root.http.put(&one("ticket"), &json!({ "expiry_time": 1 })).refused(400, "M_INVALID_PARAM");
    root.http.get(&format!("{TOKENS}?valid=perhaps")).refused(400, "M_INVALID_PARAM");
    assert_eq!(root.http.send("DELETE", &one("ticket"), b"").ok().body, json!({}));
    for (method, body) in [("GET", ""), ("PUT", "{}"), ("DELETE", "")] {
        root.http.send(method, &one("ticket"), body.as_bytes()).refused(404, "M_NOT_FOUND");
        for_administrators(&server, &server.again(&alice), method, &one("ticket"));
    }
    for_administrators(&server, &server.again(&alice), "POST", NEW);
    for_administrators(&server, &server.again(&alice), "GET", TOKENS);
}

#[test]
fn tokens_of_administrators_need_none_of_the_configuration() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__MODE", "token")]);
    let root = server.admin("root");
    root.http.post(NEW, &json!({ "token": "ticket" })).ok();
    assert_eq!(register(&server, "alice", "forged"), 401);
    assert_eq!(register(&server, "alice", "ticket"), 200);
}

#[test]
fn a_token_opens_the_registration_as_often_as_it_may() {
    let mut server = Server::start_with(&[
        ("PARLOUR_REGISTRATION__MODE", "token"),
        ("PARLOUR_REGISTRATION__TOKENS", r#"["from-the-file"]"#),
    ]);
    let root = server.admin("root");
    root.http.post(NEW, &json!({ "token": "twice", "uses_allowed": 2 })).ok();
    root.http.post(NEW, &json!({ "token": "closed", "uses_allowed": 0 })).ok();
    let is_valid = |server: &Server, token: &str| {
        let path = "/_matrix/client/v1/register/m.login.registration_token/validity?token=";
        server.http.get(&format!("{path}{token}")).ok()["valid"].clone()
    };
    for (token, valid) in
        [("twice", true), ("closed", false), ("from-the-file", true), ("x", false)]
    {
        assert_eq!(is_valid(&server, token), valid, "{token}");
    }
    assert_eq!(register(&server, "alice", "twice"), 200);
    assert_eq!(root.http.get(&one("twice")).ok()["completed"], 1);
    assert_eq!(register(&server, "nobody", "closed"), 401);
    assert_eq!(register(&server, "alice", "twice"), 400, "the name is taken");
    assert_eq!(root.http.get(&one("twice")).ok()["completed"], 1);
    server.restart();
    assert_eq!(register(&server, "bob", "twice"), 200);
    assert_eq!(register(&server, "carol", "twice"), 401);
    assert_eq!(is_valid(&server, "twice"), false);
    assert_eq!(register(&server, "carol", "from-the-file"), 200);
    let root = server.again(&root);
    let used = root.http.get(&one("twice")).ok();
    assert_eq!((&used["completed"], &used["pending"]), (&json!(2), &json!(0)));
}

#[test]
fn of_many_at_once_no_more_come_in_than_may() {
    let server = Server::start_with(&[
        ("PARLOUR_REGISTRATION__MODE", "token"),
        ("PARLOUR_REGISTRATION__TOKENS", r#"["from-the-file"]"#),
    ]);
    let root = server.admin("root");
    root.http.post(NEW, &json!({ "token": "five", "uses_allowed": 5 })).ok();
    let came_in = std::thread::scope(|scope| {
        let server = &server;
        let tries: Vec<_> = (0..16)
            .map(|n| scope.spawn(move || register(server, &format!("guest{n}"), "five")))
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).filter(|status| *status == 200).count()
    });
    assert_eq!(came_in, 5);
    assert_eq!(root.http.get(&one("five")).ok()["completed"], 5);
}
