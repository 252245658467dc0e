//! Accounts, beyond what `registration` tells: odd names, sessions, odd logins, and the endpoint
//! for operators' tools.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::common::{PASSWORD, SHARED_SECRET, Server, User, path};

const REGISTER: &str = "/_matrix/client/v3/register";
const LOGIN: &str = "/_matrix/client/v3/login";
const LOGOUT: &str = "/_matrix/client/v3/logout";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const ADMIN_REGISTER: &str = "/_synapse/admin/v1/register";

fn dummy(username: &str) -> Value {
    json!({ "username": username, "password": PASSWORD, "auth": { "type": "m.login.dummy" } })
}

fn password_login(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": user } })
}

// Checklist 3.11
#[test]
fn every_letter_of_the_grammar_is_welcome_and_no_other() {
    let server = Server::start();
    for name in ["q", "3", "a.b", "_x", "=", "-", "/", "+", "a1_=-./+"] {
        let answer = server.http.post(REGISTER, &dummy(name)).ok();
        assert_eq!(answer["user_id"], format!("@{name}:localhost"));
    }
    let answer = server.http.post(REGISTER, &dummy("CapItals")).ok();
    assert_eq!(answer["user_id"], "@capitals:localhost");
    for name in ["", "a:b", "a b", "é", "a\nb", "a\0b", "\"", "$", "a:localhost", "@a", "[", "~"] {
        server.http.post(REGISTER, &dummy(name)).refused(400, "M_INVALID_USERNAME");
        let ask = path("/_matrix/client/r0/register/available?username={}", &[name]);
        server.http.get(&ask).refused(400, "M_INVALID_USERNAME");
    }
    // 255 bytes for the whole id, `@` and `:localhost` included.
    let longest = "n".repeat(255 - "@:localhost".len());
    server.http.post(REGISTER, &dummy(&longest)).ok();
    let too_long = longest + "n";
    server.http.post(REGISTER, &dummy(&too_long)).refused(400, "M_INVALID_USERNAME");
    server.http.get("/_matrix/client/v3/register/available").refused(400, "M_MISSING_PARAM");
}

#[test]
fn a_registration_that_cannot_succeed_is_refused_before_the_authentication() {
    let server = Server::start();
    server.user("alice");
    for (body, errcode) in [
        (json!({ "username": "alice", "password": PASSWORD }), "M_USER_IN_USE"),
        (json!({ "username": "ALICE", "password": PASSWORD }), "M_USER_IN_USE"),
        (json!({ "username": "white space" }), "M_INVALID_USERNAME"),
        (json!({ "username": "bob", "password": "" }), "M_WEAK_PASSWORD"),
        (json!({ "username": "bob", "password": "x".repeat(5_000) }), "M_INVALID_PARAM"),
        (json!({ "username": "bob", "device_id": "" }), "M_INVALID_PARAM"),
        (json!({ "username": "bob", "device_id": "x".repeat(256) }), "M_INVALID_PARAM"),
        (json!({ "username": 1 }), "M_BAD_JSON"),
        (json!({ "auth": "m.login.dummy" }), "M_BAD_JSON"),
    ] {
        server.http.post(REGISTER, &body).refused(400, errcode);
    }
    let guest = format!("{REGISTER}?kind=guest");
    server.http.post(&guest, &json!({})).refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    let bridge = json!({ "type": "m.login.application_service", "username": "bridge" });
    server.http.post(REGISTER, &bridge).refused(401, "M_MISSING_TOKEN");
}

#[test]
fn a_session_is_for_one_request() {
    let server = Server::start();
    let mut body = json!({ "username": "alice", "password": PASSWORD });
    let first = server.http.post(REGISTER, &body);
    assert_eq!(first.status, 401);
    assert_eq!(first["params"], json!({}));
    assert!(first["errcode"].is_null() && first["completed"].is_null(), "{}", first.body);
    let auth = json!({ "type": "m.login.dummy", "session": first["session"] });
    let other = json!({ "username": "bob", "password": PASSWORD, "auth": auth });
    let refused = server.http.post(REGISTER, &other);
    assert_eq!((refused.status, &refused["errcode"]), (401, &json!("M_FORBIDDEN")));
    assert_ne!(refused["session"], first["session"]);
    assert!(refused["flows"].is_array(), "{}", refused.body);
    let made_up = json!({ "type": "m.login.dummy", "session": "made up" });
    let body_with = |auth: &Value| {
        let mut body = body.clone();
        body["auth"] = auth.clone();
        body
    };
    let refused = server.http.post(REGISTER, &body_with(&made_up));
    assert_eq!((refused.status, &refused["errcode"]), (401, &json!("M_UNKNOWN")));
    let wrong_stage = json!({ "type": "m.login.recaptcha", "response": "x",
        "session": first["session"] });
    let refused = server.http.post(REGISTER, &body_with(&wrong_stage));
    assert_eq!((refused.status, &refused["errcode"]), (401, &json!("M_UNRECOGNIZED")));
    assert_eq!(refused["session"], first["session"]);
    // Only the session: nothing was done elsewhere, so nothing is done.
    let poll = json!({ "session": first["session"] });
    let refused = server.http.post(REGISTER, &body_with(&poll));
    assert_eq!(refused.status, 401);
    body["auth"] = auth;
    assert_eq!(server.http.post(REGISTER, &body).ok()["user_id"], "@alice:localhost");
}

#[test]
fn a_failed_token_can_be_mended_in_the_same_session() {
    let server = Server::start_with(&[
        ("PARLOUR_REGISTRATION__MODE", "token"),
        ("PARLOUR_REGISTRATION__TOKENS", r#"["ticket"]"#),
    ]);
    let probe = server.http.post(REGISTER, &json!({}));
    let flows = json!([{ "stages": ["m.login.registration_token"] }]);
    assert_eq!((probe.status, &probe["flows"]), (401, &flows));
    let with = |token: &str| {
        json!({ "username": "alice", "password": PASSWORD, "auth": { "token": token,
            "type": "m.login.registration_token", "session": probe["session"] } })
    };
    let refused = server.http.post(REGISTER, &with("forged"));
    assert_eq!((refused.status, &refused["errcode"]), (401, &json!("M_FORBIDDEN")));
    assert_eq!((&refused["session"], &refused["flows"]), (&probe["session"], &flows));
    server.http.post(REGISTER, &with("ticket")).ok();
}

#[test]
fn a_closed_server_knows_no_token() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__MODE", "closed")]);
    let at = "/_matrix/client/v1/register/m.login.registration_token/validity?token=x";
    server.http.get(at).refused(403, "M_FORBIDDEN");
}

#[test]
fn local_registration_is_for_this_machine() {
    let server = Server::start_with(&[
        ("PARLOUR_REGISTRATION__MODE", "local"),
        ("PARLOUR_SERVER__TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#),
    ]);
    server.user("alice");
    let body = dummy("bob");
    let from_elsewhere = server.http.with_header("X-Forwarded-For", "192.0.2.1");
    from_elsewhere.post(REGISTER, &body).refused(403, "M_FORBIDDEN");
    let unreadable = server.http.with_header("X-Forwarded-For", "192.0.2.1, nonsense");
    unreadable.post(REGISTER, &body).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_login_on_a_known_device_ends_its_old_token() {
    let server = Server::start();
    let alice = server.user("alice");
    let mut body = password_login("alice", PASSWORD);
    body["device_id"] = json!(alice.device);
    body["initial_device_display_name"] = json!("A phone");
    let again = User::from_login(&server.http, &server.http.post(LOGIN, &body).ok());
    assert_eq!(again.device, alice.device);
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    again.http.get(WHOAMI).ok();
    body["device_id"] = json!("");
    server.http.post(LOGIN, &body).refused(400, "M_INVALID_PARAM");
    again.http.send("POST", LOGOUT, b"").ok();
    again.http.post(LOGOUT, &json!({})).refused(401, "M_UNKNOWN_TOKEN");
    server.http.send("POST", LOGOUT, b"").refused(401, "M_MISSING_TOKEN");
}

#[test]
fn whoever_cannot_be_meant_is_refused_alike() {
    let server = Server::start();
    server.user("alice");
    let wrong = server.http.post(LOGIN, &password_login("alice", "wrong"));
    let wrong = wrong.refused(403, "M_FORBIDDEN").body;
    let third_party = json!({ "type": "m.login.password", "password": PASSWORD, "identifier":
        { "type": "m.id.thirdparty", "medium": "email", "address": "alice@localhost" } });
    for body in [
        password_login("nobody", PASSWORD),
        password_login("", PASSWORD),
        password_login("@", PASSWORD),
        password_login("@alice:elsewhere.example", PASSWORD),
        password_login("@alice", PASSWORD),
        password_login("alice:localhost", PASSWORD),
        password_login("alice", ""),
        password_login("alice", &"x".repeat(5_000)),
        third_party,
    ] {
        assert_eq!(server.http.post(LOGIN, &body).refused(403, "M_FORBIDDEN").body, wrong);
    }
    server.http.post(LOGIN, &password_login("Alice", PASSWORD)).ok();
    server.http.post(LOGIN, &password_login("@Alice:localhost", PASSWORD)).ok();
    for (body, errcode) in [
        (json!({}), "M_BAD_JSON"),
        (json!({ "type": 1 }), "M_BAD_JSON"),
        (json!({ "type": "m.login.password" }), "M_BAD_JSON"),
        (json!({ "type": "m.login.password", "password": PASSWORD }), "M_MISSING_PARAM"),
        (json!({ "type": "org.example.unknown" }), "M_UNKNOWN"),
    ] {
        server.http.post(LOGIN, &body).refused(400, errcode);
    }
}

#[test]
fn an_account_without_a_password_cannot_log_in_again() {
    let server = Server::start();
    let body = json!({ "username": "alice", "auth": { "type": "m.login.dummy" } });
    let alice = User::from_login(&server.http, &server.http.post(REGISTER, &body).ok());
    alice.http.get(WHOAMI).ok();
    server.http.post(LOGIN, &password_login("alice", "")).refused(403, "M_FORBIDDEN");
}

#[test]
fn strangers_are_slowed_down() {
    let server = Server::start_with(&[
        ("PARLOUR_SERVER__TEST_MODE", "false"),
        ("PARLOUR_LIMITS__LOGIN", "{ per_second = 0.001, burst = 2 }"),
    ]);
    let body = json!({ "type": "org.example.unknown" });
    for _ in 0..2 {
        server.http.post(LOGIN, &body).refused(400, "M_UNKNOWN");
    }
    server.http.post(LOGIN, &body).refused(429, "M_LIMIT_EXCEEDED");
}

/// The body of an operator's registration, with a MAC over it.
fn signed(nonce: &str, name: &str, admin: bool, secret: &str) -> Value {
    let role = if admin { "admin" } else { "notadmin" };
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{nonce}\0{name}\0{PASSWORD}\0{role}").as_bytes());
    let mac: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "nonce": nonce, "username": name, "password": PASSWORD, "admin": admin, "mac": mac })
}

#[test]
fn operators_tools_make_accounts_with_the_shared_secret() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__MODE", "closed")]);
    let nonce = || server.http.get(ADMIN_REGISTER).text("nonce");
    let mut body = signed(&nonce(), "root", true, SHARED_SECRET);
    body["displayname"] = json!("The root");
    let answer = server.http.post(ADMIN_REGISTER, &body).ok();
    assert_eq!(answer["home_server"], "localhost");
    let root = User::from_login(&server.http, &answer);
    assert_eq!(root.http.get(WHOAMI).ok()["user_id"], "@root:localhost");
    let name =
        server.http.get(&path("/_matrix/client/v3/profile/{}/displayname", &[&root.id])).ok();
    assert_eq!(name["displayname"], "The root");
    server.login("root");
    server.http.post(ADMIN_REGISTER, &body).refused(400, "M_UNKNOWN");
    let forged = signed(&nonce(), "mallory", false, "guess");
    server.http.post(ADMIN_REGISTER, &forged).refused(403, "M_FORBIDDEN");
    let mut promoted = signed(&nonce(), "mallory", false, SHARED_SECRET);
    promoted["admin"] = json!(true);
    server.http.post(ADMIN_REGISTER, &promoted).refused(403, "M_FORBIDDEN");
    let own_nonce = signed("made up", "mallory", false, SHARED_SECRET);
    server.http.post(ADMIN_REGISTER, &own_nonce).refused(400, "M_UNKNOWN");
    let again = signed(&nonce(), "root", false, SHARED_SECRET);
    server.http.post(ADMIN_REGISTER, &again).refused(400, "M_USER_IN_USE");
    let odd = signed(&nonce(), "white space", false, SHARED_SECRET);
    server.http.post(ADMIN_REGISTER, &odd).refused(400, "M_INVALID_USERNAME");
    server.http.post(ADMIN_REGISTER, &json!({ "nonce": nonce() })).refused(400, "M_BAD_JSON");
    let mut quiet = signed(&nonce(), "quiet", false, SHARED_SECRET);
    quiet["inhibit_login"] = json!(true);
    assert!(server.http.post(ADMIN_REGISTER, &quiet).ok()["access_token"].is_null());
}

#[test]
fn without_a_shared_secret_nobody_makes_accounts_for_others() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__SHARED_SECRET", "")]);
    server.http.get(ADMIN_REGISTER).refused(400, "M_UNKNOWN");
    let body = signed("x", "mallory", false, "");
    server.http.post(ADMIN_REGISTER, &body).refused(400, "M_UNKNOWN");
}
