//! Server notices.

use serde_json::{Value, json};

use super::for_administrators;
use crate::common::{Answer, Ask, PASSWORD, Server, User, path};

const SEND: &str = "/_synapse/admin/v1/send_server_notice";

fn server() -> Server {
    Server::start_with(&[
        ("PARLOUR_SERVER_NOTICES__LOCALPART", "server"),
        ("PARLOUR_SERVER_NOTICES__DISPLAY_NAME", "The server"),
        ("PARLOUR_SERVER_NOTICES__AVATAR_URL", "mxc://localhost/server"),
        ("PARLOUR_SERVER_NOTICES__ROOM_NAME", "From the server"),
    ])
}

fn notice(user: &str, text: &str) -> Value {
    json!({ "user_id": user, "content": { "msgtype": "m.text", "body": text } })
}

/// The room to which a user is invited.
fn invited(user: &User) -> (String, Answer) {
    let sync = user.sync(Ask::initial()).ok();
    let rooms = sync["rooms"]["invite"].as_object().unwrap();
    assert_eq!(rooms.len(), 1, "{}", sync.body);
    (rooms.keys().next().unwrap().clone(), sync)
}

fn messages(user: &User, room: &str) -> Vec<Value> {
    let all = user.room(room, "messages?dir=f&limit=100").chunk();
    all.into_iter().filter(|event| event["type"] == "m.room.message").collect()
}

// Checklist 8.12
#[test]
fn every_user_has_one_room_for_notices_and_cannot_refuse_it() {
    let mut server = server();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    root.http.post(SEND, &notice(&alice.id, "first")).event_id();
    let (room, sync) = invited(&alice);
    let stripped = sync["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap();
    assert!(stripped.iter().any(|event| event["content"]["name"] == "From the server"));
    alice.leave(&room).refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    alice.join(&room).ok();
    alice.leave(&room).refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    let leave = json!({ "membership": "leave" });
    let left = alice.set_state(&room, "m.room.member", &alice.id, leave);
    left.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    let sync = alice.sync(Ask::initial()).ok();
    let data = sync["rooms"]["join"][&room]["account_data"]["events"].clone();
    let tag = json!({ "type": "m.tag", "content": { "tags": { "m.server_notice": {} } } });
    assert!(data.as_array().unwrap().contains(&tag), "{data}");
    server.restart();
    let (root, alice, bob) = (server.again(&root), server.again(&alice), server.again(&bob));
    root.http.post(SEND, &notice(&alice.id, "second")).event_id();
    root.http.post(SEND, &notice(&bob.id, "for bob")).event_id();
    let said = messages(&alice, &room);
    let texts: Vec<_> = said.iter().map(|event| event["content"]["body"].clone()).collect();
    assert_eq!(texts, ["first", "second"]);
    assert_eq!(said[0]["sender"], "@server:localhost");
    let joined = alice.http.get("/_matrix/client/v3/joined_rooms").ok();
    assert_eq!(joined["joined_rooms"], json!([room]));
    let (other, _) = invited(&bob);
    assert_ne!(other, room);
    bob.join(&room).refused(403, "M_FORBIDDEN");
    let profile =
        alice.http.get(&path("/_matrix/client/v3/profile/{}", &["@server:localhost"])).ok();
    assert_eq!(
        profile.body,
        json!({ "displayname": "The server", "avatar_url": "mxc://localhost/server" })
    );
}

#[test]
fn a_notice_is_sent_once_per_transaction_and_may_be_state() {
    let mut server = server();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let at = format!("{SEND}/txn");
    let first = root.http.put(&at, &notice(&alice.id, "once")).event_id();
    assert_eq!(root.http.put(&at, &notice(&alice.id, "once")).event_id(), first);
    server.restart();
    let (root, alice, bob) = (server.again(&root), server.again(&alice), server.again(&bob));
    assert_eq!(root.http.put(&at, &notice(&alice.id, "once")).event_id(), first);
    let (room, _) = invited(&alice);
    alice.join(&room).ok();
    assert_eq!(messages(&alice, &room).len(), 1);
    let mut state = notice(&alice.id, "pinned");
    state["type"] = json!("m.room.topic");
    state["state_key"] = json!("");
    state["content"] = json!({ "topic": "What the server says" });
    root.http.post(SEND, &state).event_id();
    assert_eq!(alice.state(&room, "m.room.topic", "").ok()["topic"], "What the server says");
    for (body, status, errcode) in [
        (notice("@nobody:localhost", "x"), 404, "M_NOT_FOUND"),
        (notice("@a:elsewhere.example", "x"), 400, "M_UNKNOWN"),
        (notice("nonsense", "x"), 400, "M_INVALID_PARAM"),
        (json!({ "user_id": alice.id }), 400, "M_MISSING_PARAM"),
        (json!({ "content": {} }), 400, "M_MISSING_PARAM"),
        (json!({ "user_id": 1, "content": {} }), 400, "M_BAD_JSON"),
    ] {
        root.http.post(SEND, &body).refused(status, errcode);
        root.http.put(&format!("{SEND}/other"), &body).refused(status, errcode);
    }
    for_administrators(&server, &bob, "POST", SEND);
    for_administrators(&server, &bob, "PUT", &at);
}

// Checklist 3.7, 8.12
#[test]
fn who_is_suspended_can_answer_the_server() {
    let server = server();
    let root = server.admin("root");
    let alice = server.user("alice");
    let other = alice.public_room();
    root.http.post(SEND, &notice(&alice.id, "you are suspended")).event_id();
    let suspend = path("/_synapse/admin/v1/suspend/{}", &[&alice.id]);
    root.http.put(&suspend, &json!({ "suspend": true })).ok();
    let (room, _) = invited(&alice);
    alice.join(&room).ok();
    alice.say(&room, "why?").ok();
    alice.say(&other, "why?").refused(403, "M_USER_SUSPENDED");
}

#[test]
fn nobody_is_the_server_but_the_server() {
    let server = server();
    let root = server.admin("root");
    let body = json!({ "username": "server", "password": PASSWORD,
        "auth": { "type": "m.login.dummy" } });
    server.http.post("/_matrix/client/v3/register", &body).refused(400, "M_USER_IN_USE");
    let login = json!({ "type": "m.login.password", "password": "",
        "identifier": { "type": "m.id.user", "user": "server" } });
    server.http.post("/_matrix/client/v3/login", &login).refused(403, "M_FORBIDDEN");
    let at = |template: &str| path(&format!("/_synapse/admin/{template}"), &["@server:localhost"]);
    let password = json!({ "new_password": PASSWORD });
    root.http.post(&at("v1/reset_password/{}"), &password).refused(400, "M_UNKNOWN");
    root.http.put(&at("v2/users/{}"), &json!({ "password": PASSWORD })).refused(400, "M_UNKNOWN");
    root.http.put(&at("v1/users/{}/admin"), &json!({ "admin": true })).refused(400, "M_UNKNOWN");
    root.http.put(&at("v1/suspend/{}"), &json!({ "suspend": true })).refused(400, "M_UNKNOWN");
    root.http.get(&at("v2/users/{}")).ok();
}

#[test]
fn without_a_name_there_are_no_notices() {
    let server = Server::start();
    let (root, alice) = (server.admin("root"), server.user("alice"));
    root.http.post(SEND, &notice(&alice.id, "x")).refused(400, "M_UNKNOWN");
    root.http.put(&format!("{SEND}/t"), &notice(&alice.id, "x")).refused(400, "M_UNKNOWN");
}

#[test]
fn a_persons_name_is_not_taken_for_the_server() {
    let mut server = Server::start();
    server.user("alice");
    assert!(server.terminate().success());
    let ran = server.run_with(&["serve"], &[("PARLOUR_SERVER_NOTICES__LOCALPART", "alice")]);
    assert!(ran.failed().contains("server_notices.localpart"), "{ran:?}");
}
