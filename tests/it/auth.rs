//! User-interactive authentication: sessions, stages, and the pages for web browsers.

use serde_json::{Value, json};

use crate::common::{Answer, Client, PASSWORD, Server, User};

const REGISTER: &str = "/_matrix/client/v3/register";
const CHANGE: &str = "/_matrix/client/v3/account/password";
const DELETE: &str = "/_matrix/client/v3/delete_devices";

const TERMS: &str = r#"[
    { id = "privacy", version = "1.2", languages = { en = { name = "Privacy & <you>", url = "http://x/?a=1&b=2" }, fr = { name = "Vie privée", url = "https://example.org/fr" } } },
    { id = "terms", version = "3", languages = { en = { name = "Terms", url = "http://x/" } } },
]"#;

fn fallback(stage: &str, session: &Value) -> String {
    format!("/_matrix/client/v3/auth/{stage}/fallback/web?session={}", session.as_str().unwrap())
}

/// A browser that sends a page's form.
fn submit(http: &Client, page: &str, form: &str) -> Answer {
    http.with_header("X-Form", "1").send("POST", page, form.as_bytes())
}

#[track_caller]
fn asks_for(answer: &Answer, errcode: Option<&str>) -> Value {
    let got = (answer.status, answer["errcode"].as_str());
    assert_eq!(got, (401, errcode), "{}: {}", answer.asked, answer.body);
    assert!(answer["flows"].is_array() && answer["params"].is_object(), "{}", answer.body);
    answer["session"].clone()
}

// Checklist 3.13, 3.14, 3.16
#[test]
fn a_session_is_for_one_request_of_one_user() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let asked = alice.http.post(DELETE, &json!({ "devices": ["A"] }));
    let session = asks_for(&asked, None);
    assert_eq!(asked["flows"], json!([{ "stages": ["m.login.password"] }]));
    assert!(asked["completed"].is_null(), "{}", asked.body);
    let with = |devices: Value, auth: Value| json!({ "devices": devices, "auth": auth });
    // Other devices, another endpoint, another user: other requests.
    let auth = alice.password_stage(&session);
    let other = alice.http.post(DELETE, &with(json!(["B"]), auth.clone()));
    assert_ne!(asks_for(&other, Some("M_FORBIDDEN")), session);
    let change = json!({ "new_password": "new", "auth": auth.clone() });
    asks_for(&alice.http.post(CHANGE, &change), Some("M_FORBIDDEN"));
    asks_for(&bob.http.post(DELETE, &with(json!(["A"]), auth.clone())), Some("M_FORBIDDEN"));
    // A failed stage says so, and leaves the session open.
    for (key, value) in [
        ("password", json!("wrong")),
        ("identifier", json!({ "type": "m.id.user", "user": "bob" })),
        ("identifier", json!({ "type": "m.id.user", "user": "@nobody:localhost" })),
        ("identifier", json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b" })),
        ("identifier", json!({ "type": "m.id.phone", "country": "GB", "phone": "1" })),
        ("identifier", json!({ "type": "org.example.id" })),
    ] {
        let mut wrong = auth.clone();
        wrong[key] = value;
        let refused = alice.http.post(DELETE, &with(json!(["A"]), wrong));
        assert_eq!(asks_for(&refused, Some("M_FORBIDDEN")), session);
    }
    for stage in ["m.login.dummy", "m.login.terms", "m.login.sso", "org.example.stage"] {
        let wrong = json!({ "type": stage, "session": session });
        let refused = alice.http.post(DELETE, &with(json!(["A"]), wrong));
        assert_eq!(asks_for(&refused, Some("M_UNRECOGNIZED")), session);
    }
    // Only the session: nothing was done elsewhere.
    let poll = json!({ "session": session });
    assert_eq!(asks_for(&alice.http.post(DELETE, &with(json!(["A"]), poll)), None), session);
    alice.http.post(DELETE, &with(json!(["A"]), auth.clone())).ok();
    // It was for one request, which is done.
    let again = alice.http.post(DELETE, &with(json!(["A"]), auth));
    assert_ne!(asks_for(&again, Some("M_UNKNOWN")), session);
    for auth in [json!("text"), json!({ "type": 1 }), json!({ "session": 1 })] {
        alice.http.post(DELETE, &with(json!(["A"]), auth)).refused(400, "M_BAD_JSON");
    }
    let nobody = json!({ "type": "m.login.password", "password": PASSWORD });
    alice.http.post(DELETE, &with(json!([]), nobody)).refused(400, "M_MISSING_PARAM");
    let nothing = json!({ "type": "m.login.password", "user": "alice" });
    alice.http.post(DELETE, &with(json!([]), nothing)).refused(400, "M_MISSING_PARAM");
}

#[test]
fn users_are_named_in_any_of_the_old_and_new_ways() {
    let server = Server::start();
    let alice = server.user("alice");
    for who in [
        json!({ "identifier": { "type": "m.id.user", "user": "alice" } }),
        json!({ "identifier": { "type": "m.id.user", "user": "@alice:localhost" } }),
        json!({ "user": "@alice:localhost" }),
        json!({ "user": "Alice" }),
    ] {
        let mut auth = who;
        auth["type"] = json!("m.login.password");
        auth["password"] = json!(PASSWORD);
        // The only stage may be done in the first round.
        alice.http.post(DELETE, &json!({ "devices": [], "auth": auth })).ok();
    }
}

#[test]
fn terms_are_shown_accepted_and_not_taken_twice() {
    let server = Server::start_with(&[
        ("PARLOUR_REGISTRATION__MODE", "token"),
        ("PARLOUR_REGISTRATION__TOKENS", r#"["ticket"]"#),
        ("PARLOUR_REGISTRATION__TERMS", TERMS),
    ]);
    let mut body = json!({ "username": "alice", "password": PASSWORD });
    let asked = server.http.post(REGISTER, &body);
    let session = asks_for(&asked, None);
    let stages = json!([{ "stages": ["m.login.registration_token", "m.login.terms"] }]);
    assert_eq!(asked["flows"], stages);
    let privacy = &asked["params"]["m.login.terms"]["policies"]["privacy"];
    assert_eq!(privacy["version"], "1.2");
    assert_eq!(privacy["fr"]["url"], "https://example.org/fr");
    // In order: the terms are second.
    body["auth"] = json!({ "type": "m.login.terms", "session": session });
    asks_for(&server.http.post(REGISTER, &body), Some("M_UNRECOGNIZED"));
    let token = |token: &str| json!({ "type": "m.login.registration_token", "token": token, "session": session });
    body["auth"] = token("ticket");
    let half = server.http.post(REGISTER, &body);
    asks_for(&half, None);
    assert_eq!(half["completed"], json!(["m.login.registration_token"]));
    body["auth"] = token("forged");
    asks_for(&server.http.post(REGISTER, &body), None);
    body["auth"] = json!({ "type": "m.login.terms", "session": session });
    assert_eq!(server.http.post(REGISTER, &body).ok()["user_id"], "@alice:localhost");
}

// Checklist 3.15
#[test]
fn stages_can_be_done_in_a_web_browser() {
    let server = Server::start_with(&[
        ("PARLOUR_REGISTRATION__MODE", "token"),
        ("PARLOUR_REGISTRATION__TOKENS", r#"["ticket"]"#),
        ("PARLOUR_REGISTRATION__TERMS", TERMS),
    ]);
    let mut body = json!({ "username": "alice", "password": PASSWORD });
    let session = asks_for(&server.http.post(REGISTER, &body), None);
    let (token, terms) =
        (fallback("m.login.registration_token", &session), fallback("m.login.terms", &session));
    server.http.get(&terms).refused(400, "M_UNRECOGNIZED");
    let page = server.http.get(&token).ok();
    assert!(page.page.contains("name=\"token\""), "{}", page.page);
    assert!(!page.page.contains("<script"), "{}", page.page);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].contains("frame-ancestors 'none'"));
    let wrong = submit(&server.http, &token, "token=forged");
    assert!(wrong.status == 401 && wrong.page.contains("not valid"), "{}", wrong.page);
    submit(&server.http, &token, "nothing=1").refused(400, "M_MISSING_PARAM");
    let done = submit(&server.http, &token, "token=ticket").ok();
    assert!(done.page.contains("window.onAuthDone()"), "{}", done.page);
    assert!(done.page.contains("postMessage(\"authDone\", \"*\")"), "{}", done.page);
    // Once more is no harm.
    assert!(server.http.get(&token).ok().page.contains("onAuthDone"));
    submit(&server.http, &token, "token=forged").ok();
    body["auth"] = json!({ "session": session });
    let half = server.http.post(REGISTER, &body);
    asks_for(&half, None);
    assert_eq!(half["completed"], json!(["m.login.registration_token"]));
    let page = server.http.get(&terms).ok().page;
    assert!(page.contains("Privacy &amp; &lt;you&gt;") && page.contains("a=1&amp;b=2"), "{page}");
    submit(&server.http, &terms, "").ok();
    assert_eq!(server.http.post(REGISTER, &body).ok()["user_id"], "@alice:localhost");
    server.http.get(&terms).refused(400, "M_UNKNOWN");
    server
        .http
        .get("/_matrix/client/v3/auth/m.login.terms/fallback/web")
        .refused(400, "M_MISSING_PARAM");
}

#[test]
fn a_password_can_be_given_in_a_web_browser() {
    let server = Server::start();
    let alice = server.user("alice");
    let mut body = json!({ "devices": [alice.device] });
    let session = asks_for(&alice.http.post(DELETE, &body), None);
    let page = fallback("m.login.password", &session);
    let shown = server.http.get(&page).ok().page;
    assert!(shown.contains("@alice:localhost") && !shown.contains("name=\"user\""), "{shown}");
    assert_eq!(submit(&server.http, &page, "password=wrong").status, 401);
    let form = format!("password={}", PASSWORD.replace(' ', "+"));
    submit(&server.http, &page, &form).ok();
    body["auth"] = json!({ "session": session });
    alice.http.post(DELETE, &body).ok();
    alice.http.get("/_matrix/client/v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    // Who is not logged in says who it is.
    let body = json!({ "new_password": "another one" });
    let session = asks_for(&server.http.post(CHANGE, &body), None);
    let page = fallback("m.login.password", &session);
    assert!(server.http.get(&page).ok().page.contains("name=\"user\""));
    assert_eq!(submit(&server.http, &page, &format!("{form}&user=bob")).status, 401);
    submit(&server.http, &page, &format!("{form}&user=alice")).ok();
    let body = json!({ "new_password": "another one", "auth": { "session": session } });
    server.http.post(CHANGE, &body).ok();
    server
        .http
        .post(
            "/_matrix/client/v3/login",
            &json!({ "type": "m.login.password",
        "user": "alice", "password": "another one" }),
        )
        .ok();
}

#[test]
fn who_registers_may_say_later_as_whom() {
    let server = Server::start();
    let session = asks_for(&server.http.post(REGISTER, &json!({})), None);
    let page = fallback("m.login.dummy", &session).replace("/v3/", "/r0/");
    assert!(server.http.get(&page).ok().page.contains("<button>"));
    submit(&server.http, &page, "").ok();
    let body = json!({ "username": "alice", "auth": { "session": session } });
    let alice = User::from_login(&server.http, &server.http.post(REGISTER, &body).ok());
    assert_eq!(alice.id, "@alice:localhost");
    // Without a password nothing can be confirmed with one.
    let all = alice.http.get("/_matrix/client/v3/capabilities").ok()["capabilities"].clone();
    assert_eq!(all["m.change_password"]["enabled"], false);
    assert_ne!(all["m.get_login_token"]["enabled"], true);
    let at = "/_matrix/client/v1/login/get_token";
    alice.http.post(at, &json!({})).refused(400, "M_FORBIDDEN");
}
