//! Accounts and devices: registering, logging in and out, and who is who.

use serde_json::{Value, json};

use crate::common::{PASSWORD, Server, User};

const REGISTER: &str = "/_matrix/client/v3/register";
const LOGIN: &str = "/_matrix/client/v3/login";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn dummy(username: &str) -> Value {
    json!({ "username": username, "password": PASSWORD, "auth": { "type": "m.login.dummy" } })
}

#[test]
fn registering_in_one_request_logs_in() {
    let server = Server::start();
    let alice = server.user("alice");
    assert_eq!(alice.id, "@alice:localhost");
    let me = alice.http.get(WHOAMI).ok();
    assert_eq!(me["user_id"], "@alice:localhost");
    assert_eq!(me["device_id"], alice.device.as_str());
}

#[test]
fn registering_in_two_rounds_goes_through_a_session() {
    let server = Server::start();
    let mut body = json!({ "username": "alice", "password": PASSWORD });
    let first = server.http.post(REGISTER, &body);
    assert_eq!(first.status, 401);
    let flows = first["flows"].as_array().unwrap();
    assert!(flows.iter().any(|flow| flow["stages"] == json!(["m.login.dummy"])), "{flows:?}");
    body["auth"] = json!({ "type": "m.login.dummy", "session": first["session"] });
    assert_eq!(server.http.post(REGISTER, &body).ok()["user_id"], "@alice:localhost");
}

#[test]
fn a_registration_may_leave_out_the_login_and_name_its_device() {
    let server = Server::start();
    let mut body = dummy("alice");
    body["inhibit_login"] = json!(true);
    let answer = server.http.post(REGISTER, &body).ok();
    assert!(answer["access_token"].is_null() && answer["device_id"].is_null(), "{}", answer.body);
    let mut body = dummy("bob");
    body["device_id"] = json!("PHONE");
    assert_eq!(server.http.post(REGISTER, &body).ok()["device_id"], "PHONE");
}

#[test]
fn names_are_unique_and_well_formed() {
    let server = Server::start();
    server.user("alice");
    server.http.post(REGISTER, &dummy("alice")).refused(400, "M_USER_IN_USE");
    server.http.post(REGISTER, &dummy("white space")).refused(400, "M_INVALID_USERNAME");
    let long = "a".repeat(255);
    server.http.post(REGISTER, &dummy(&long)).refused(400, "M_INVALID_USERNAME");
    let available = "/_matrix/client/v3/register/available?username=";
    let ask = |name: &str| server.http.get(&format!("{available}{name}"));
    assert_eq!(ask("bob").ok()["available"], true);
    ask("alice").refused(400, "M_USER_IN_USE");
    ask("white%20space").refused(400, "M_INVALID_USERNAME");
}

#[test]
fn a_name_is_chosen_for_who_gives_none() {
    let server = Server::start();
    let body = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    let first = User::from_login(&server.http, &server.http.post(REGISTER, &body).ok());
    let second = User::from_login(&server.http, &server.http.post(REGISTER, &body).ok());
    assert_ne!(first.id, second.id);
}

#[test]
fn logging_in_makes_another_device() {
    let server = Server::start();
    let first = server.user("alice");
    let second = server.login("alice");
    assert_ne!(first.device, second.device);
    assert_ne!(first.token, second.token);
    assert_eq!(first.http.get(WHOAMI).ok()["device_id"], first.device.as_str());
    assert_eq!(second.http.get(WHOAMI).ok()["device_id"], second.device.as_str());
}

#[test]
fn the_login_accepts_the_full_id_and_the_old_form() {
    let server = Server::start();
    server.user("alice");
    let flows = server.http.get(LOGIN).ok();
    let flows = flows["flows"].as_array().unwrap();
    assert!(flows.iter().any(|flow| flow["type"] == "m.login.password"), "{flows:?}");
    for body in [
        json!({ "type": "m.login.password", "password": PASSWORD,
            "identifier": { "type": "m.id.user", "user": "@alice:localhost" } }),
        json!({ "type": "m.login.password", "password": PASSWORD, "user": "alice" }),
    ] {
        assert_eq!(server.http.post(LOGIN, &body).ok()["user_id"], "@alice:localhost");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let server = Server::start();
    server.user("alice");
    let login = |user: &str, password: &str| {
        let body = json!({ "type": "m.login.password", "password": password,
            "identifier": { "type": "m.id.user", "user": user } });
        server.http.post(LOGIN, &body).refused(403, "M_FORBIDDEN").body
    };
    assert_eq!(login("alice", "wrong"), login("nobody", "wrong"));
    let body = json!({ "type": "org.example.unknown" });
    assert_eq!(server.http.post(LOGIN, &body).status, 400);
}

#[test]
fn logging_out_ends_one_device_and_logout_all_ends_every_one() {
    let server = Server::start();
    let first = server.user("alice");
    let second = server.login("alice");
    let third = server.login("alice");
    first.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    let gone = first.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    assert_ne!(gone["soft_logout"], true);
    second.http.get(WHOAMI).ok();
    second.http.post("/_matrix/client/v3/logout/all", &json!({})).ok();
    second.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    third.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn accounts_and_devices_outlive_a_kill() {
    let mut server = Server::start();
    let alice = server.user("alice");
    server.restart();
    let alice = server.again(&alice);
    assert_eq!(alice.http.get(WHOAMI).ok()["device_id"], alice.device.as_str());
    let fresh = server.login("alice");
    assert_ne!(fresh.token, alice.token);
    assert_ne!(fresh.device, alice.device);
    server.http.post(REGISTER, &dummy("alice")).refused(400, "M_USER_IN_USE");
    let bob = server.user("bob");
    assert_ne!(bob.token, alice.token, "a token was given out twice");
}

#[test]
fn a_closed_server_registers_nobody() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__MODE", "closed")]);
    server.http.post(REGISTER, &dummy("alice")).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_token_opens_the_registration() {
    let server = Server::start_with(&[
        ("PARLOUR_REGISTRATION__MODE", "token"),
        ("PARLOUR_REGISTRATION__TOKENS", r#"["ticket"]"#),
    ]);
    let ask = |token: &str| {
        let path = "/_matrix/client/v1/register/m.login.registration_token/validity?token=";
        server.http.get(&format!("{path}{token}")).ok()["valid"].clone()
    };
    assert_eq!((ask("ticket"), ask("forged")), (json!(true), json!(false)));
    let mut body = json!({ "username": "alice", "password": PASSWORD });
    let session = server.http.post(REGISTER, &body)["session"].clone();
    body["auth"] = json!({ "type": "m.login.registration_token", "token": "forged",
        "session": session });
    assert_eq!(server.http.post(REGISTER, &body).status, 401);
    body["auth"]["token"] = json!("ticket");
    assert_eq!(server.http.post(REGISTER, &body).ok()["user_id"], "@alice:localhost");
    assert_eq!(server.http.post(REGISTER, &dummy("bob")).status, 401);
}
