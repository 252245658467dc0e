//! Logins: passwords, login tokens, and tokens that are refreshed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Answer, PASSWORD, Server, User, deadline};

const LOGIN: &str = "/_matrix/client/v3/login";
const REFRESH: &str = "/_matrix/client/v3/refresh";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const CHANGE: &str = "/_matrix/client/v3/account/password";
const GET_TOKEN: &str = "/_matrix/client/v1/login/get_token";

fn password_login(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": user } })
}

fn refreshable(server: &Server, user: &str) -> Answer {
    let mut body = password_login(user, PASSWORD);
    body["refresh_token"] = json!(true);
    server.http.post(LOGIN, &body).ok()
}

#[track_caller]
fn refresh(server: &Server, token: &Value) -> Answer {
    server.http.post(REFRESH, &json!({ "refresh_token": token }))
}

fn whoami(server: &Server, answer: &Answer) -> Answer {
    server.http.with_token(answer["access_token"].as_str().unwrap()).get(WHOAMI)
}

// Checklist 3.3
#[test]
fn an_old_refresh_token_is_good_until_a_new_token_is_used() {
    let mut server = Server::start();
    server.user("alice");
    let first = refreshable(&server, "alice");
    assert!(first["expires_in_ms"].is_u64(), "{}", first.body);
    let lost = refresh(&server, &first["refresh_token"]).ok();
    server.restart();
    // The answer was lost: the same again. What it gave is gone, the old tokens are not.
    let second = refresh(&server, &first["refresh_token"]).ok();
    assert_ne!(second["refresh_token"], lost["refresh_token"]);
    assert!(second["expires_in_ms"].is_u64(), "{}", second.body);
    whoami(&server, &lost).refused(401, "M_UNKNOWN_TOKEN");
    refresh(&server, &lost["refresh_token"]).refused(401, "M_UNKNOWN_TOKEN");
    whoami(&server, &first).ok();
    // Used: now the old ones have ended, and the session has not.
    assert_eq!(whoami(&server, &second).ok()["device_id"], first["device_id"]);
    let ended = whoami(&server, &first).refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(ended["soft_logout"], true);
    let used = refresh(&server, &first["refresh_token"]).refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(used["soft_logout"], true);
    // A refresh uses the refresh token, too.
    let third = refresh(&server, &second["refresh_token"]).ok();
    let fourth = refresh(&server, &third["refresh_token"]).ok();
    refresh(&server, &second["refresh_token"]).refused(401, "M_UNKNOWN_TOKEN");
    server.restart();
    whoami(&server, &third).ok();
    whoami(&server, &fourth).ok();
    whoami(&server, &third).refused(401, "M_UNKNOWN_TOKEN");
    // An access token refreshes nothing, a refresh token opens nothing.
    refresh(&server, &fourth["access_token"]).refused(401, "M_UNKNOWN_TOKEN");
    let wrong = server.http.with_token(fourth["refresh_token"].as_str().unwrap());
    wrong.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    server.http.post(REFRESH, &json!({})).refused(400, "M_BAD_JSON");
    let unknown = refresh(&server, &json!("parr_x")).refused(401, "M_UNKNOWN_TOKEN");
    assert_ne!(unknown["soft_logout"], true);
}

// Checklist 3.1, 3.2, 3.4
#[test]
fn tokens_end_with_their_time_their_device_or_a_new_login() {
    let server = Server::start_with(&[
        ("PARLOUR_SESSIONS__ACCESS_TOKEN_LIFETIME_SECONDS", "2"),
        ("PARLOUR_SESSIONS__REFRESHABLE_TOKEN_LIFETIME_SECONDS", "1"),
    ]);
    let alice = server.user("alice");
    let login = refreshable(&server, "alice");
    assert_eq!(login["expires_in_ms"], 1000);
    let plain = server.http.post(LOGIN, &password_login("alice", PASSWORD)).ok();
    assert_eq!((&plain["expires_in_ms"], &plain["refresh_token"]), (&json!(2000), &Value::Null));
    for expiring in [&login, &plain] {
        let until = deadline(Duration::from_secs(30));
        while whoami(&server, expiring).status == 200 {
            assert!(!until.passed(), "the token never expires");
        }
        let expired = whoami(&server, expiring).refused(401, "M_UNKNOWN_TOKEN");
        assert_eq!(expired["soft_logout"], true);
    }
    // The refresh token of an expired access token is as good as ever.
    let fresh = refresh(&server, &login["refresh_token"]).ok();
    assert_eq!(fresh["expires_in_ms"], 1000);
    // A new login on the device ends all its tokens.
    let mut body = password_login("alice", PASSWORD);
    body["device_id"] = login["device_id"].clone();
    body["refresh_token"] = json!(true);
    let again = server.http.post(LOGIN, &body).ok();
    for token in [&login["refresh_token"], &fresh["refresh_token"]] {
        let refused = refresh(&server, token).refused(401, "M_UNKNOWN_TOKEN");
        assert_ne!(refused["soft_logout"], true);
    }
    let once_more = refresh(&server, &again["refresh_token"]).ok();
    let http = server.http.with_token(once_more["access_token"].as_str().unwrap());
    http.post("/_matrix/client/v3/logout", &json!({})).ok();
    for token in [&again["refresh_token"], &once_more["refresh_token"]] {
        refresh(&server, token).refused(401, "M_UNKNOWN_TOKEN");
    }
    drop(alice);
}

#[test]
fn a_registration_can_ask_for_a_refresh_token_and_transactions_survive_it() {
    let server = Server::start();
    let body = json!({ "username": "alice", "password": PASSWORD, "refresh_token": true,
        "auth": { "type": "m.login.dummy" } });
    let first = server.http.post("/_matrix/client/v3/register", &body).ok();
    assert!(first["expires_in_ms"].is_u64(), "{}", first.body);
    let alice = User::from_login(&server.http, &first);
    let room = alice.public_room();
    let message = json!({ "msgtype": "m.text", "body": "hello" });
    let event = alice.send_as(&room, "m.room.message", "txn", message.clone()).event_id();
    let second = refresh(&server, &first["refresh_token"]).ok();
    let token = second["access_token"].as_str().unwrap().to_owned();
    let alice = User { http: server.http.with_token(&token), token, ..alice };
    assert_eq!(alice.send_as(&room, "m.room.message", "txn", message).event_id(), event);
    let mut quiet = body.clone();
    quiet["username"] = json!("bob");
    quiet["inhibit_login"] = json!(true);
    let quiet = server.http.post("/_matrix/client/v3/register", &quiet).ok();
    assert!(quiet["refresh_token"].is_null() && quiet["expires_in_ms"].is_null());
}

// Checklist 3.5
#[test]
fn a_new_password_ends_the_other_logins_unless_they_are_to_stay() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let other = server.login("alice");
    alice.http.post(CHANGE, &json!({})).refused(400, "M_BAD_JSON");
    alice.http.post(CHANGE, &json!({ "new_password": "" })).refused(400, "M_WEAK_PASSWORD");
    let long = json!({ "new_password": "x".repeat(5_000) });
    alice.http.post(CHANGE, &long).refused(400, "M_INVALID_PARAM");
    server
        .http
        .with_token("x")
        .post(CHANGE, &json!({ "new_password": "y" }))
        .refused(401, "M_UNKNOWN_TOKEN");
    let keep = json!({ "new_password": PASSWORD, "logout_devices": false });
    alice.confirmed("POST", CHANGE, keep).ok();
    other.http.get(WHOAMI).ok();
    alice.confirmed("POST", CHANGE, json!({ "new_password": "second" })).ok();
    alice.http.get(WHOAMI).ok();
    other.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    server.restart();
    server.http.post(LOGIN, &password_login("alice", PASSWORD)).refused(403, "M_FORBIDDEN");
    server.http.post(LOGIN, &password_login("alice", "second")).ok();
    // Without a token the password itself says who it is, and every login ends.
    let mut body = json!({ "new_password": "third" });
    let asked = server.http.post(CHANGE, &body);
    assert_eq!(asked.status, 401);
    body["auth"] = json!({ "type": "m.login.password", "user": "alice", "password": "second",
        "session": asked["session"] });
    server.http.post(CHANGE, &body).ok();
    server.again(&alice).http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    server.http.post(LOGIN, &password_login("alice", "third")).ok();
}

// Checklist 3.9
#[test]
fn a_login_token_lets_one_more_device_in() {
    let server = Server::start();
    let alice = server.user("alice");
    let flows = server.http.get(LOGIN).ok()["flows"].clone();
    assert_eq!(flows[1], json!({ "type": "m.login.token", "get_login_token": true }));
    let given = alice.confirmed("POST", GET_TOKEN, json!({})).ok();
    assert_eq!(given["expires_in_ms"], 120_000);
    // One authentication, one token.
    let next = alice.confirmed("POST", GET_TOKEN, json!({})).ok();
    assert_ne!(next["login_token"], given["login_token"]);
    let login = json!({ "type": "m.login.token", "token": given["login_token"],
        "device_id": "TABLET", "initial_device_display_name": "A tablet", "refresh_token": true });
    let answer = server.http.post(LOGIN, &login).ok();
    assert!(answer["refresh_token"].is_string(), "{}", answer.body);
    let tablet = User::from_login(&server.http, &answer);
    assert_eq!((&*tablet.id, &*tablet.device), ("@alice:localhost", "TABLET"));
    server.http.post(LOGIN, &login).refused(403, "M_FORBIDDEN");
    let made_up = json!({ "type": "m.login.token", "token": "x" });
    server.http.post(LOGIN, &made_up).refused(403, "M_FORBIDDEN");
    server.http.post(LOGIN, &json!({ "type": "m.login.token" })).refused(400, "M_BAD_JSON");
    server.http.post(GET_TOKEN, &json!({})).refused(401, "M_MISSING_TOKEN");
}

#[test]
fn what_takes_a_password_is_slowed_down() {
    let server = Server::start_with(&[
        ("PARLOUR_SERVER__TEST_MODE", "false"),
        ("PARLOUR_LIMITS__LOGIN", "{ per_second = 0.001, burst = 6 }"),
    ]);
    let alice = server.user("alice");
    for (path, body) in [
        (CHANGE, json!({ "new_password": "x" })),
        (GET_TOKEN, json!({})),
        ("/_matrix/client/v3/delete_devices", json!({ "devices": [] })),
        ("/_matrix/client/v3/account/deactivate", json!({})),
        (REFRESH, json!({ "refresh_token": "x" })),
        (LOGIN, password_login("alice", "wrong")),
    ] {
        assert_ne!(alice.http.post(path, &body).status, 429, "{path}");
    }
    alice.http.post(CHANGE, &json!({ "new_password": "x" })).refused(429, "M_LIMIT_EXCEEDED");
    alice.http.post(GET_TOKEN, &json!({})).refused(429, "M_LIMIT_EXCEEDED");
    let refused = server.http.post(REFRESH, &json!({ "refresh_token": "x" }));
    refused.refused(429, "M_LIMIT_EXCEEDED");
    let deactivate = "/_matrix/client/v3/account/deactivate";
    alice.http.post(deactivate, &json!({})).refused(429, "M_LIMIT_EXCEEDED");
}
