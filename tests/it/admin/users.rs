//! `/_synapse/admin/v2/users` and what belongs to it.

use serde_json::{Value, json};

use super::{for_administrators, has_keys};
use crate::common::{PASSWORD, Server, User, path};

const USERS: &str = "/_synapse/admin/v2/users";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const LOGIN: &str = "/_matrix/client/v3/login";

const SUMMARY: [&str; 13] = [
    "name",
    "is_guest",
    "admin",
    "user_type",
    "deactivated",
    "erased",
    "shadow_banned",
    "displayname",
    "avatar_url",
    "creation_ts",
    "last_seen_ts",
    "locked",
    "suspended",
];

fn one(user: &str) -> String {
    path("/_synapse/admin/v2/users/{}", &[user])
}

fn v1(template: &str, user: &str) -> String {
    path(&format!("/_synapse/admin/v1/{template}"), &[user])
}

fn login(server: &Server, user: &str, password: &str) -> crate::common::Answer {
    server.http.post(
        LOGIN,
        &json!({ "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": user } }),
    )
}

fn names(user: &User, query: &str) -> Vec<String> {
    let answer = user.http.get(query).ok();
    let users = answer["users"].as_array().unwrap();
    users.iter().map(|user| user["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn accounts_are_listed_filtered_and_sorted() {
    let server = Server::start();
    let root = server.admin("root");
    for (name, body) in [
        ("@alice:localhost", json!({ "displayname": "Zoe", "password": PASSWORD })),
        ("@bob:localhost", json!({ "displayname": "Alicia", "avatar_url": "mxc://localhost/b" })),
        ("@carol:localhost", json!({ "locked": true })),
    ] {
        assert_eq!(root.http.put(&one(name), &body).status, 201);
    }
    let all = root.http.get(USERS).ok();
    has_keys(&all.body, &["users", "total"]);
    assert_eq!(all["total"], 3);
    for user in all["users"].as_array().unwrap() {
        has_keys(user, &SUMMARY);
    }
    let (alice, bob, carol) = ("@alice:localhost", "@bob:localhost", "@carol:localhost");
    let me = "@root:localhost";
    let listed = |query: &str| names(&root, &format!("{USERS}?{query}"));
    let listed_v3 = |query: &str| names(&root, &format!("/_synapse/admin/v3/users?{query}"));
    assert_eq!(listed(""), [alice, bob, me]);
    assert_eq!(listed("guests=false"), [alice, bob, me]);
    assert_eq!(listed("locked=true"), [alice, bob, carol, me]);
    assert_eq!(listed("deactivated=true"), [alice, bob, me]);
    assert_eq!(listed("deactivated=false"), [alice, bob, me]);
    assert_eq!(listed_v3(""), [alice, bob, me]);
    assert_eq!(listed_v3("deactivated=true"), [""; 0]);
    assert_eq!(listed_v3("deactivated=false"), [alice, bob, me]);
    assert_eq!(listed("admins=true"), [me]);
    assert_eq!(listed("admins=false"), [alice, bob]);
    assert_eq!(listed("name=ALI"), [alice, bob], "a name or a display name");
    assert_eq!(listed("user_id=localhost&name=bo"), [bob], "the name counts");
    assert_eq!(listed("user_id=ro"), [me]);
    assert_eq!(listed("dir=b"), [me, bob, alice]);
    assert_eq!(listed("order_by=displayname"), [me, bob, alice]);
    assert_eq!(listed("order_by=admin&dir=b"), [me, alice, bob]);
    assert_eq!(listed("order_by=creation_ts"), [me, alice, bob]);
    for by in ["is_guest", "user_type", "shadow_banned", "last_seen_ts"] {
        assert_eq!(listed(&format!("order_by={by}")).len(), 3, "{by}");
    }
    for by in ["avatar_url", "deactivated", "locked", "name"] {
        assert_eq!(listed(&format!("order_by={by}")).len(), 3, "{by}");
    }
    let page = root.http.get(&format!("{USERS}?limit=2")).ok();
    assert_eq!((&page["next_token"], &page["total"]), (&json!("2"), &json!(3)));
    assert_eq!(listed("limit=2&from=2"), [me]);
    assert_eq!(listed("from=99"), [""; 0]);
    for wrong in ["order_by=shoe_size", "dir=x", "limit=-1", "from=a", "admins=maybe"] {
        root.http.get(&format!("{USERS}?{wrong}")).refused(400, "M_INVALID_PARAM");
    }
    login(&server, "alice", PASSWORD).ok();
    let alice = server.login("alice");
    for at in [USERS, "/_synapse/admin/v3/users"] {
        for_administrators(&server, &alice, "GET", at);
    }
}

#[test]
fn accounts_are_made_looked_at_and_changed() {
    let server = Server::start();
    let root = server.admin("root");
    let at = one("@alice:localhost");
    root.http.get(&at).refused(404, "M_NOT_FOUND");
    let made = root.http.put(
        &at,
        &json!({ "password": PASSWORD, "displayname": "Alice",
        "admin": false, "threepids": [], "external_ids": [], "user_type": null }),
    );
    assert_eq!(made.status, 201);
    let more = [
        "threepids",
        "external_ids",
        "appservice_id",
        "consent_server_notice_sent",
        "consent_version",
        "consent_ts",
    ];
    has_keys(&made.body, &[&SUMMARY[..], &more].concat());
    assert_eq!(
        (&made["name"], &made["displayname"]),
        (&json!("@alice:localhost"), &json!("Alice"))
    );
    assert_eq!((&made["threepids"], &made["is_guest"]), (&json!([]), &json!(false)));
    assert_eq!(root.http.get(&at).ok().body, made.body);
    let alice = server.login("alice");
    let room = alice.public_room();
    // A new password ends the logins, unless they are to be kept.
    let changed = json!({ "password": "another one", "logout_devices": false, "displayname": "",
        "avatar_url": "mxc://localhost/a" });
    let changed = root.http.put(&at, &changed).ok();
    assert_eq!(
        (&changed["displayname"], &changed["avatar_url"]),
        (&Value::Null, &json!("mxc://localhost/a"))
    );
    alice.http.get(WHOAMI).ok();
    login(&server, "alice", PASSWORD).refused(403, "M_FORBIDDEN");
    root.http.put(&at, &json!({ "password": PASSWORD })).ok();
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    let alice = server.login("alice");
    root.http.put(&at, &json!({ "locked": true, "avatar_url": "" })).ok();
    alice.http.get(WHOAMI).refused(401, "M_USER_LOCKED");
    let unlocked = root.http.put(&at, &json!({ "locked": false })).ok();
    assert_eq!((&unlocked["locked"], &unlocked["avatar_url"]), (&json!(false), &Value::Null));
    alice.http.get(WHOAMI).ok();
    let rooms = root.http.get(&v1("users/{}/joined_rooms", &alice.id)).ok();
    assert_eq!(rooms.body, json!({ "joined_rooms": [room], "total": 1 }));

    for wrong in [
        json!({ "threepids": [{ "medium": "email", "address": "a@b.example" }] }),
        json!({ "external_ids": [{ "auth_provider": "a", "external_id": "b" }] }),
        json!({ "user_type": "bot" }),
    ] {
        root.http.put(&at, &wrong).refused(400, "M_UNKNOWN");
    }
    root.http.put(&at, &json!({ "avatar_url": "http://a/b" })).refused(400, "M_INVALID_PARAM");
    root.http.put(&at, &json!({ "password": "" })).refused(400, "M_WEAK_PASSWORD");
    for wrong in [json!({ "admin": "yes" }), json!({ "password": 1 }), json!([])] {
        root.http.put(&at, &wrong).refused(400, "M_BAD_JSON");
    }
    root.http.put(&one("@a:elsewhere.example"), &json!({})).refused(400, "M_UNKNOWN");
    root.http.put(&one("nonsense"), &json!({})).refused(400, "M_INVALID_PARAM");
    root.http.put(&one("@white space:localhost"), &json!({})).refused(400, "M_INVALID_USERNAME");
    let me = one(&root.id);
    for wrong in [json!({ "admin": false }), json!({ "locked": true })] {
        root.http.put(&me, &wrong).refused(400, "M_UNKNOWN");
    }
    for method in ["GET", "PUT"] {
        for_administrators(&server, &alice, method, &at);
    }
}

#[test]
fn accounts_are_ended() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let at = v1("deactivate/{}", &alice.id);
    let ended = root.http.post(&at, &json!({ "erase": true })).ok();
    assert_eq!(ended.body, json!({ "id_server_unbind_result": "no-support" }));
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    let shown = root.http.get(&one(&alice.id)).ok();
    assert_eq!((&shown["deactivated"], &shown["erased"]), (&json!(true), &json!(true)));
    bob.http.get(WHOAMI).ok();
    assert!(root.http.get(&one(&bob.id)).ok()["last_seen_ts"].is_u64());
    let ended = root.http.put(&one(&bob.id), &json!({ "deactivated": true })).ok();
    assert_eq!((&ended["deactivated"], &ended["erased"]), (&json!(true), &json!(false)));
    bob.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    login(&server, "bob", PASSWORD).refused(403, "M_USER_DEACTIVATED");
    // Who is active again has no password but a new one.
    root.http.put(&one(&bob.id), &json!({ "deactivated": false, "password": PASSWORD })).ok();
    login(&server, "bob", PASSWORD).ok();
    root.http
        .post(&v1("deactivate/{}", "@nobody:localhost"), &json!({}))
        .refused(404, "M_NOT_FOUND");
    for wrong in [json!({ "erase": "yes" }), json!([])] {
        root.http.post(&at, &wrong).refused(400, "M_BAD_JSON");
    }
    let carol = server.user("carol");
    for_administrators(&server, &carol, "POST", &at);
}

#[test]
fn administrators_are_made_and_unmade() {
    let server = Server::start();
    let root = server.admin("root");
    let alice = server.user("alice");
    let at = v1("users/{}/admin", &alice.id);
    assert_eq!(root.http.get(&at).ok().body, json!({ "admin": false }));
    alice.http.get(USERS).refused(403, "M_FORBIDDEN");
    assert_eq!(root.http.put(&at, &json!({ "admin": true })).ok().body, json!({}));
    alice.http.get(USERS).ok();
    assert_eq!(root.http.get(&at).ok().body, json!({ "admin": true }));
    alice.http.put(&at, &json!({ "admin": false })).refused(400, "M_UNKNOWN");
    root.http.put(&at, &json!({ "admin": false })).ok();
    for method in ["GET", "PUT"] {
        for_administrators(&server, &alice, method, &at);
    }
    root.http.put(&at, &json!({})).refused(400, "M_BAD_JSON");
    root.http.get(&v1("users/{}/admin", "@nobody:localhost")).refused(404, "M_NOT_FOUND");
}

#[test]
fn passwords_are_reset_and_accounts_suspended() {
    let server = Server::start();
    let root = server.admin("root");
    let alice = server.user("alice");
    let at = v1("reset_password/{}", &alice.id);
    let body = json!({ "new_password": "new", "logout_devices": false });
    assert_eq!(root.http.post(&at, &body).ok().body, json!({}));
    alice.http.get(WHOAMI).ok();
    login(&server, "alice", "new").ok();
    root.http.post(&at, &json!({ "new_password": PASSWORD })).ok();
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    let alice = server.login("alice");
    root.http.post(&at, &json!({})).refused(400, "M_BAD_JSON");
    root.http.post(&at, &json!({ "new_password": "" })).refused(400, "M_WEAK_PASSWORD");
    let nobody = v1("reset_password/{}", "@nobody:localhost");
    root.http.post(&nobody, &body).refused(404, "M_NOT_FOUND");
    for_administrators(&server, &alice, "POST", &at);

    let at = v1("suspend/{}", &alice.id);
    let answer = root.http.put(&at, &json!({ "suspend": true })).ok();
    assert_eq!(answer.body, json!({ "user_@alice:localhost_suspended": true }));
    alice.create_room(json!({})).refused(403, "M_USER_SUSPENDED");
    assert_eq!(root.http.get(&one(&alice.id)).ok()["suspended"], true);
    root.http.put(&at, &json!({ "suspend": false })).ok();
    alice.create_room(json!({})).ok();
    root.http.put(&at, &json!({})).refused(400, "M_BAD_JSON");
    let me = v1("suspend/{}", &root.id);
    root.http.put(&me, &json!({ "suspend": true })).refused(400, "M_UNKNOWN");
    for_administrators(&server, &alice, "PUT", &at);
}
