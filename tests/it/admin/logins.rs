//! Devices of users, logins in their name, and who was when where.

use serde_json::{Value, json};

use super::{for_administrators, has_keys};
use crate::common::{Server, User, path};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const KEYS: [&str; 6] = [
    "device_id",
    "display_name",
    "last_seen_ip",
    "last_seen_user_agent",
    "last_seen_ts",
    "user_id",
];

fn devices(user: &str) -> String {
    path("/_synapse/admin/v2/users/{}/devices", &[user])
}

fn device(user: &str, device: &str) -> String {
    path("/_synapse/admin/v2/users/{}/devices/{}", &[user, device])
}

fn log_in_as(user: &str) -> String {
    path("/_synapse/admin/v1/users/{}/login", &[user])
}

#[test]
fn devices_are_listed_named_and_deleted() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, tablet, phone) =
        (server.user("alice"), server.login("alice"), server.login("alice"));
    alice.http.with_header("User-Agent", "Element/1.0").get(WHOAMI).ok();
    let all = root.http.get(&devices(&alice.id)).ok();
    has_keys(&all.body, &["devices", "total"]);
    assert_eq!(all["total"], 3);
    all["devices"].as_array().unwrap().iter().for_each(|device| has_keys(device, &KEYS));
    let one = device(&alice.id, &alice.device);
    let shown = root.http.get(&one).ok();
    has_keys(&shown.body, &KEYS);
    assert_eq!((&shown["device_id"], &shown["user_id"]), (&json!(alice.device), &json!(alice.id)));
    assert_eq!(shown["last_seen_user_agent"], "Element/1.0");
    assert_eq!(shown["last_seen_ip"], "127.0.0.1");
    assert!(all["devices"].as_array().unwrap().contains(&shown.body), "{}", all.body);
    assert_eq!(root.http.put(&one, &json!({ "display_name": "Laptop" })).ok().body, json!({}));
    root.http.put(&one, &json!({})).ok();
    assert_eq!(root.http.get(&one).ok()["display_name"], "Laptop");
    root.http.put(&one, &json!({ "display_name": 1 })).refused(400, "M_BAD_JSON");
    let long = json!({ "display_name": "x".repeat(256) });
    root.http.put(&one, &long).refused(400, "M_INVALID_PARAM");
    assert_eq!(root.http.send("DELETE", &one, b"").ok().body, json!({}));
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    root.http.get(&one).refused(404, "M_NOT_FOUND");
    for body in [json!({}), json!({ "display_name": "x" })] {
        root.http.put(&one, &body).refused(404, "M_NOT_FOUND");
    }
    let several = path("/_synapse/admin/v2/users/{}/delete_devices", &[&alice.id]);
    let body = json!({ "devices": [tablet.device, "NONE"] });
    assert_eq!(root.http.post(&several, &body).ok().body, json!({}));
    tablet.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    phone.http.get(WHOAMI).ok();
    root.http.post(&several, &json!({})).refused(400, "M_BAD_JSON");
    let many = json!({ "devices": vec!["X"; 501] });
    root.http.post(&several, &many).refused(400, "M_UNKNOWN");
    root.http.get(&devices("@nobody:localhost")).refused(404, "M_NOT_FOUND");
    root.http.get(&devices("@a:elsewhere.example")).refused(400, "M_UNKNOWN");
    for (method, at) in [
        ("GET", devices(&alice.id)),
        ("GET", one.clone()),
        ("PUT", one.clone()),
        ("DELETE", one),
        ("POST", several),
    ] {
        for_administrators(&server, &phone, method, &at);
    }
}

#[test]
fn administrators_log_in_as_users_who_can_see_it() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let as_alice = |body: Value| {
        let answer = root.http.post(&log_in_as(&alice.id), &body).ok();
        has_keys(&answer.body, &["access_token"]);
        server.http.with_token(answer["access_token"].as_str().unwrap())
    };
    let token = as_alice(json!({}));
    let me = token.get(WHOAMI).ok();
    assert_eq!(me["user_id"], alice.id);
    let own = path("/_matrix/client/v3/devices/{}", &[me["device_id"].as_str().unwrap()]);
    assert_eq!(alice.http.get(&own).ok()["display_name"], "Server administration");
    as_alice(json!({ "valid_until_ms": 9_999_999_999_999_u64 })).get(WHOAMI).ok();
    let at = log_in_as(&alice.id);
    root.http.post(&at, &json!({ "valid_until_ms": 1 })).refused(400, "M_INVALID_PARAM");
    root.http.post(&at, &json!({ "valid_until_ms": "soon" })).refused(400, "M_BAD_JSON");
    root.http.post(&log_in_as(&root.id), &json!({})).refused(400, "M_UNKNOWN");
    root.http.post(&log_in_as("@nobody:localhost"), &json!({})).refused(404, "M_NOT_FOUND");
    let gone = path("/_synapse/admin/v1/deactivate/{}", &[&bob.id]);
    root.http.post(&gone, &json!({})).ok();
    root.http.post(&log_in_as(&bob.id), &json!({})).refused(400, "M_UNKNOWN");
    for_administrators(&server, &alice, "POST", &at);
    alice.http.post("/_matrix/client/v3/logout/all", &json!({})).ok();
    token.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
}

/// What is known of the user's device.
fn connection(answer: &Value, user: &User) -> Value {
    let sessions = answer["devices"][&user.device]["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{answer}");
    let connections = sessions[0]["connections"].as_array().unwrap();
    assert_eq!(connections.len(), 1, "{answer}");
    connections[0].clone()
}

#[test]
fn who_was_when_where_is_told_to_administrators_and_to_oneself() {
    let mut server =
        Server::start_with(&[("PARLOUR_SERVER__TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#)]);
    let root = server.admin("root");
    let (alice, phone, bob) = (server.user("alice"), server.login("alice"), server.user("bob"));
    let far = alice.http.with_header("X-Forwarded-For", "192.0.2.7");
    far.with_header("User-Agent", "Element/1.0").get(WHOAMI).ok();
    let whois = |user: &str| path("/_matrix/client/v3/admin/whois/{}", &[user]);
    let answer = root.http.get(&whois(&alice.id)).ok();
    assert_eq!(answer["user_id"], alice.id);
    assert_eq!(answer["devices"].as_object().unwrap().len(), 2, "{}", answer.body);
    let seen = connection(&answer.body, &alice);
    assert_eq!((&seen["ip"], &seen["user_agent"]), (&json!("192.0.2.7"), &json!("Element/1.0")));
    assert!(seen["last_seen"].as_u64().unwrap() > 1_600_000_000_000, "{seen}");
    assert_eq!(connection(&answer.body, &phone)["ip"], "127.0.0.1");
    let operators = path("/_synapse/admin/v1/whois/{}", &[&alice.id]);
    assert_eq!(root.http.get(&operators).ok().body, answer.body);
    assert_eq!(far.get(&whois(&alice.id)).ok()["user_id"], alice.id);
    bob.http.get(&whois(&alice.id)).refused(403, "M_FORBIDDEN");
    bob.http.get(&whois("@nobody:localhost")).refused(403, "M_FORBIDDEN");
    root.http.get(&whois("@nobody:localhost")).refused(404, "M_NOT_FOUND");
    root.http.get(&whois("@a:elsewhere.example")).refused(400, "M_INVALID_PARAM");
    for_administrators(&server, &bob, "GET", &operators);
    // A stop in peace keeps it.
    phone.http.with_header("User-Agent", "Phone/2").get(WHOAMI).ok();
    assert!(server.terminate().success());
    server.restart();
    let answer = server.again(&root).http.get(&whois(&alice.id)).ok();
    assert_eq!(connection(&answer.body, &phone)["user_agent"], "Phone/2");
}
