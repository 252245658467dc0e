//! Backups of keys.

use serde_json::{Value, json};

use crate::common::{Answer, Server, User, path};

const VERSION: &str = "/_matrix/client/v3/room_keys/version";
const KEYS: &str = "/_matrix/client/v3/room_keys/keys";

fn about(name: &str) -> Value {
    json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {
        "public_key": "YWJjZGVm", "signatures": {}, "own": name } })
}

fn key(is_verified: bool, first: u32, forwarded: u32) -> Value {
    json!({ "is_verified": is_verified, "first_message_index": first, "forwarded_count": forwarded,
        "session_data": { "ephemeral": "YQ", "ciphertext": "Yg", "mac": "Yw" } })
}

fn at(place: &[&str], version: &str) -> String {
    let template = KEYS.to_owned() + &"/{}".repeat(place.len()) + "?version={}";
    path(&template, &[place, &[version]].concat())
}

fn put(user: &User, place: &[&str], version: &str, body: Value) -> Answer {
    user.http.put(&at(place, version), &body)
}

fn get(user: &User, place: &[&str], version: &str) -> Answer {
    user.http.get(&at(place, version))
}

fn create(user: &User, name: &str) -> String {
    user.http.post(VERSION, &about(name)).text("version")
}

fn of(version: &str) -> String {
    path(&format!("{VERSION}/{{}}"), &[version])
}

// Checklist 5.13
#[test]
fn a_backup_keeps_the_better_key() {
    let mut server = Server::start();
    let alice = server.user("alice");
    alice.http.get(VERSION).refused(404, "M_NOT_FOUND");
    let version = create(&alice, "first");
    let [room, other] = ["!one:localhost", "!two:localhost"];
    assert_eq!(get(&alice, &[], &version).ok().body, json!({ "rooms": {} }));
    assert_eq!(get(&alice, &[room], &version).ok().body, json!({ "sessions": {} }));
    get(&alice, &[room, "s"], &version).refused(404, "M_NOT_FOUND");
    let mut etags = vec![alice.http.get(VERSION).ok()["etag"].clone()];
    let keep = |kept: &Value, sent: Value, etags: &mut Vec<Value>| {
        let answer = put(&alice, &[room, "s"], &version, sent).ok();
        assert_eq!(answer["count"], 1);
        etags.push(answer["etag"].clone());
        assert_eq!(get(&alice, &[room, "s"], &version).ok().body, *kept);
    };
    // Each is better than the one before.
    let rising = [
        key(false, 9, 0),
        key(false, 9, 0),
        key(false, 5, 7),
        key(false, 5, 3),
        key(true, 8, 8),
        key(true, 2, 9),
    ];
    for better in &rising {
        keep(better, better.clone(), &mut etags);
    }
    for worse in [key(false, 0, 0), key(true, 3, 0), key(true, 2, 9), key(true, 2, 10)] {
        keep(&key(true, 2, 9), worse, &mut etags);
    }
    let changes = etags.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 5, "{etags:?}");
    let rooms = json!({ "rooms": { room: { "sessions": { "t": key(false, 1, 1) } },
        other: { "sessions": { "s": key(false, 0, 0), "a/b": key(true, 0, 0) } } } });
    assert_eq!(put(&alice, &[], &version, rooms).ok()["count"], 4);
    let sessions = json!({ "sessions": { "u": key(false, 1, 1) } });
    assert_eq!(put(&alice, &[room], &version, sessions).ok()["count"], 5);
    server.restart();
    let alice = server.again(&alice);
    let all = get(&alice, &[], &version).ok();
    let of_one = json!({ "s": key(true, 2, 9), "t": key(false, 1, 1), "u": key(false, 1, 1) });
    let of_two = json!({ "s": key(false, 0, 0), "a/b": key(true, 0, 0) });
    assert_eq!(
        all["rooms"],
        json!({ room: { "sessions": of_one }, other: { "sessions": of_two } })
    );
    assert_eq!(get(&alice, &[other], &version).ok()["sessions"], of_two);
    assert_eq!(get(&alice, &[other, "a/b"], &version).ok().body, key(true, 0, 0));
    // Deleted one by one.
    let delete = |place: &[&str]| alice.http.send("DELETE", &at(place, &version), b"").ok();
    let gone = delete(&[other, "a/b"]);
    assert_eq!(gone["count"], 4);
    assert_eq!(delete(&[other, "a/b"])["etag"], gone["etag"]);
    assert_eq!(delete(&[room])["count"], 1);
    assert_eq!(delete(&[])["count"], 0);
    assert_eq!(get(&alice, &[], &version).ok().body, json!({ "rooms": {} }));
}

// Checklist 5.13
#[test]
fn only_the_newest_version_takes_keys() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let first = create(&alice, "first");
    put(&alice, &["!r:x", "s"], &first, key(true, 0, 0)).ok();
    let second = create(&alice, "second");
    assert_ne!(first, second);
    let newest = alice.http.get(VERSION).ok();
    let mut expected = about("second");
    expected["version"] = json!(second);
    expected["count"] = json!(0);
    expected["etag"] = newest["etag"].clone();
    assert_eq!(newest.body, expected);
    let sessions = json!({ "sessions": {} });
    for (place, body) in [
        (&["!r:x", "s"][..], key(true, 0, 0)),
        (&["!r:x"], sessions.clone()),
        (&[], json!({ "rooms": {} })),
    ] {
        let wrong = put(&alice, place, &first, body.clone());
        let wrong = wrong.refused(403, "M_WRONG_ROOM_KEYS_VERSION");
        assert_eq!(wrong["current_version"], second);
        if place.len() < 2 {
            put(&alice, place, "77", body).refused(404, "M_NOT_FOUND");
        }
    }
    // The older one is still there to be read.
    assert_eq!(alice.http.get(&of(&first)).ok()["count"], 1);
    assert_eq!(get(&alice, &["!r:x", "s"], &first).ok().body, key(true, 0, 0));
    // Others have backups of their own.
    bob.http.get(&of(&first)).refused(404, "M_NOT_FOUND");
    get(&bob, &[], &first).refused(404, "M_NOT_FOUND");
    // What is said about it can change, its algorithm cannot.
    alice.http.put(&of(&second), &about("changed")).ok();
    assert_eq!(alice.http.get(VERSION).ok()["auth_data"]["own"], "changed");
    let mut named = about("again");
    named["version"] = json!(second);
    alice.http.put(&of(&second), &named).ok();
    alice.http.put(&of(&first), &named).refused(400, "M_INVALID_PARAM");
    let other = json!({ "algorithm": "other", "auth_data": {} });
    alice.http.put(&of(&second), &other).refused(400, "M_INVALID_PARAM");
    alice.http.put(&of("77"), &about("x")).refused(404, "M_NOT_FOUND");
    // Deleted: the one before is the newest, its number is never given again.
    for _ in 0..2 {
        alice.http.send("DELETE", &of(&second), b"").ok();
    }
    alice.http.send("DELETE", &of("77"), b"").refused(404, "M_NOT_FOUND");
    alice.http.get(&of(&second)).refused(404, "M_NOT_FOUND");
    alice.http.put(&of(&second), &about("x")).refused(404, "M_NOT_FOUND");
    for place in [&[][..], &["!r:x"], &["!r:x", "s"]] {
        get(&alice, place, &second).refused(404, "M_NOT_FOUND");
        let deleted = alice.http.send("DELETE", &at(place, &second), b"");
        deleted.refused(404, "M_NOT_FOUND");
    }
    assert_eq!(alice.http.get(VERSION).ok()["version"], first);
    put(&alice, &["!r:x"], &first, sessions).ok();
    let third = create(&alice, "third");
    assert!(![first, second].contains(&third));
}

#[test]
fn a_large_backup_comes_whole() {
    let server = Server::start();
    let alice = server.user("alice");
    let version = create(&alice, "large");
    let mut rooms = json!({});
    for room in 0..3 {
        for session in 0..400 {
            let (room, name) = (format!("!r{room}:x"), format!("\"s{session}\""));
            rooms[room]["sessions"][name] = key(true, session, 0);
        }
    }
    put(&alice, &[], &version, json!({ "rooms": rooms })).ok();
    assert_eq!(get(&alice, &[], &version).ok()["rooms"], rooms);
    assert_eq!(get(&alice, &["!r1:x"], &version).ok()["sessions"], rooms["!r1:x"]["sessions"]);
    alice.http.send("DELETE", &of(&version), b"").ok();
    alice.http.get(VERSION).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_backup_need_not_be_signed() {
    let server = Server::start();
    let alice = server.user("alice");
    let mut unsigned = about("first");
    unsigned["auth_data"].as_object_mut().unwrap().remove("signatures");
    let version = alice.http.post(VERSION, &unsigned).text("version");
    assert_eq!(alice.http.get(VERSION).ok()["auth_data"], unsigned["auth_data"]);
    unsigned["auth_data"]["own"] = json!("changed");
    alice.http.put(&of(&version), &unsigned).ok();
    assert_eq!(alice.http.get(&of(&version)).ok()["auth_data"], unsigned["auth_data"]);
    for data in [json!({}), json!({ "public_key": 1 }), json!([])] {
        unsigned["auth_data"] = data;
        alice.http.post(VERSION, &unsigned).refused(400, "M_BAD_JSON");
    }
}

#[test]
fn what_is_no_backup_is_refused() {
    let server = Server::start();
    let alice = server.user("alice");
    let version = create(&alice, "x");
    for body in [json!({}), json!({ "algorithm": "x" }), json!({ "algorithm": 1, "auth_data": {} })]
    {
        alice.http.post(VERSION, &body).refused(400, "M_BAD_JSON");
        alice.http.put(&of(&version), &body).refused(400, "M_BAD_JSON");
    }
    let mut bad = key(true, 0, 0);
    bad["first_message_index"] = json!(-1);
    let mut without = key(true, 0, 0);
    without.as_object_mut().unwrap().remove("session_data");
    for body in [bad, without, json!({})] {
        put(&alice, &["!r:x", "s"], &version, body).refused(400, "M_BAD_JSON");
    }
    let mut large = key(true, 0, 0);
    large["session_data"]["ciphertext"] = json!("x".repeat(70_000));
    put(&alice, &["!r:x", "s"], &version, large).refused(413, "M_TOO_LARGE");
    server.http.get(VERSION).refused(401, "M_MISSING_TOKEN");
    for place in [&[][..], &["!r:x"], &["!r:x", "s"]] {
        server.http.get(&at(place, &version)).refused(401, "M_MISSING_TOKEN");
    }
}
