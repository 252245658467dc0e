//! What users know of each other: looking profiles up, the user directory; and room tags.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, deadline, path};

fn set_name(user: &User, name: &str) {
    let at = path("/_matrix/client/v3/profile/{}/displayname", &[&user.id]);
    user.http.put(&at, &json!({ "displayname": name })).ok();
}

fn search(user: &User, body: Value) -> Answer {
    user.http.post("/_matrix/client/v3/user_directory/search", &body)
}

/// The user names that a search gives, in its order.
#[track_caller]
fn found(user: &User, text: &str) -> Vec<String> {
    let answer = search(user, json!({ "search_term": text })).ok();
    assert_eq!(answer["limited"], false);
    let results = answer["results"].as_array().unwrap().iter();
    let name = |id: &str| id.split_once(':').unwrap().0.to_owned();
    results.map(|person| name(person["user_id"].as_str().unwrap())).collect()
}

// Checklist 6.10
#[test]
fn the_directory_shows_who_shares_a_room_or_is_in_an_open_one() {
    let server = Server::start();
    let [alice, bob, carol, dave, erin] =
        ["alice", "bob", "carol", "dave", "erin"].map(|name| server.user(name));
    for user in [&alice, &bob, &carol, &dave, &erin] {
        set_name(user, &format!("Zoe {}", &user.id[1..3]));
    }
    // Nobody is anywhere.
    assert_eq!(found(&alice, "zoe"), ["@alice"]);
    // Bob shares a private room, Carol is in a public one, Dave's can be read by the world.
    let private = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    alice.invite(&private, &bob).ok();
    assert_eq!(found(&alice, "zoe"), ["@alice"]);
    bob.join(&private).ok();
    carol.public_room();
    let readable = dave.create_room(json!({ "preset": "private_chat" })).room_id();
    let world = json!({ "history_visibility": "world_readable" });
    dave.set_state(&readable, "m.room.history_visibility", "", world).ok();
    erin.create_room(json!({ "preset": "private_chat" })).room_id();
    // Those with whom a room is shared come first.
    assert_eq!(found(&alice, "zoe"), ["@alice", "@bob", "@carol", "@dave"]);
    assert_eq!(found(&erin, "zoe"), ["@erin", "@carol", "@dave"]);
    let shared = json!({ "history_visibility": "shared" });
    dave.set_state(&readable, "m.room.history_visibility", "", shared).ok();
    bob.leave(&private).ok();
    assert_eq!(found(&alice, "zoe"), ["@alice", "@carol"]);
    // Ignored users are not offered.
    let list = path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&alice.id]);
    alice.http.put(&list, &json!({ "ignored_users": { &carol.id: {} } })).ok();
    assert_eq!(found(&alice, "zoe"), ["@alice"]);
}

#[test]
fn the_directory_is_made_again_with_the_index() {
    let mut server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    [&bob, &carol].iter().for_each(|user| set_name(user, "Zoe"));
    let room = bob.public_room();
    carol.public_room();
    let open_to = |bob: &User, rule: &str| {
        bob.set_state(&room, "m.room.join_rules", "", json!({ "join_rule": rule })).ok();
    };
    let make_again = |server: &mut Server| {
        assert!(server.terminate().success());
        std::fs::remove_dir_all(server.data().join("index")).unwrap();
        server.launch();
    };
    assert_eq!(found(&alice, "zoe"), ["@bob", "@carol"]);
    open_to(&bob, "invite");
    make_again(&mut server);
    let [alice, bob, carol] = [alice, bob, carol].map(|user| server.again(&user));
    assert_eq!(found(&alice, "zoe"), ["@carol"]);
    open_to(&bob, "public");
    set_name(&carol, "Yves");
    assert_eq!(found(&alice, "zoe"), ["@bob"]);
    make_again(&mut server);
    assert_eq!(found(&server.again(&alice), "zoe"), ["@bob"]);
}

#[test]
fn people_are_found_by_the_beginnings_of_words() {
    let mut server = Server::start_with(&[("PARLOUR_USERS__DIRECTORY", "users")]);
    let [alice, jane, asa] = ["alice", "jane.doe", "asa"].map(|name| server.user(name));
    set_name(&jane, "Jané O'Brien");
    set_name(&asa, "Åsa 李小龍");
    server.restart();
    let [alice, jane, asa] = [alice, jane, asa].map(|user| server.again(&user));
    for (text, expected) in [
        ("jane", vec!["@jane.doe"]),
        ("JANÉ BRI", vec!["@jane.doe"]),
        ("doe", vec!["@jane.doe"]),
        ("@jane.doe:localhost", vec!["@jane.doe"]),
        ("@jane.d:local", vec!["@jane.doe"]),
        ("@jane.doe:elsewhere", vec![]),
        ("ÅSA", vec!["@asa"]),
        ("小", vec!["@asa"]),
        ("as al", vec![]),
        ("a", vec!["@alice", "@asa"]),
        ("rien", vec![]),
        ("localhost", vec![]),
        ("", vec![]),
        ("!?", vec![]),
    ] {
        assert_eq!(found(&alice, text), expected, "{text}");
    }
    let avatar = path("/_matrix/client/v3/profile/{}/avatar_url", &[&jane.id]);
    jane.http.put(&avatar, &json!({ "avatar_url": "mxc://localhost/jane" })).ok();
    let answer = search(&asa, json!({ "search_term": "brien" })).ok();
    let person = json!({ "user_id": jane.id, "display_name": "Jané O'Brien",
        "avatar_url": "mxc://localhost/jane" });
    assert_eq!(answer["results"], json!([person]));
    // An old name leads nowhere.
    set_name(&jane, "Joan");
    assert_eq!(found(&alice, "brien"), [""; 0]);
    assert_eq!(found(&alice, "joan"), ["@jane.doe"]);
}

#[test]
fn locked_accounts_are_not_found() {
    let server = Server::start();
    let root = server.admin("root");
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let lock = |locked: bool| {
        let at = path("/_matrix/client/v1/admin/lock/{}", &[&alice.id]);
        root.http.put(&at, &json!({ "locked": locked })).ok();
    };
    for locked in [false, true, false] {
        lock(locked);
        assert_eq!(found(&bob, "alice").is_empty(), locked);
    }
}

#[test]
fn a_search_has_a_limit_and_says_so() {
    let server = Server::start_with(&[("PARLOUR_USERS__DIRECTORY", "users")]);
    let alice = server.user("alice");
    for number in 0..12 {
        server.user(&format!("zed{number}"));
    }
    let count = |body: Value| {
        let answer = search(&alice, body).ok();
        (answer["results"].as_array().unwrap().len(), answer["limited"] == true)
    };
    assert_eq!(count(json!({ "search_term": "zed" })), (10, true));
    assert_eq!(count(json!({ "search_term": "zed", "limit": 12 })), (12, false));
    assert_eq!(count(json!({ "search_term": "zed", "limit": 11 })), (11, true));
    assert_eq!(count(json!({ "search_term": "zed", "limit": 0 })), (0, true));
    assert_eq!(count(json!({ "search_term": "zed1", "limit": 9_000 })), (3, false));
    // The exact one comes first.
    let answer = search(&alice, json!({ "search_term": "ZED1", "limit": 1 })).ok();
    assert_eq!(answer["results"][0]["user_id"], "@zed1:localhost");
    let german = alice.http.with_header("Accept-Language", "de");
    let body = json!({ "search_term": "zed1" });
    german.post("/_matrix/client/v3/user_directory/search", &body).ok();
    search(&alice, json!({})).refused(400, "M_BAD_JSON");
    search(&alice, json!({ "search_term": "a", "limit": -1 })).refused(400, "M_BAD_JSON");
    let stranger = User { http: server.http.clone(), ..alice };
    search(&stranger, json!({ "search_term": "a" })).refused(401, "M_MISSING_TOKEN");
}

// Checklist 6.9
#[test]
fn profiles_are_shown_to_whom_the_operator_wants() {
    let setting = "PARLOUR_USERS__PROFILE_LOOKUP";
    for (mode, without_login, to_stranger) in
        [("everybody", true, true), ("users", false, true), ("acquaintances", false, false)]
    {
        let server = Server::start_with(&[(setting, mode)]);
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
        set_name(&alice, "Alice");
        let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
        alice.invite(&room, &bob).ok();
        bob.join(&room).ok();
        let whole = path("/_matrix/client/v3/profile/{}", &[&alice.id]);
        for at in [whole.clone(), format!("{whole}/displayname")] {
            let expect = |answer: Answer, shown: bool| match shown {
                true => assert_eq!(answer.ok()["displayname"], "Alice"),
                false => drop(answer.refused(403, "M_FORBIDDEN")),
            };
            expect(server.http.get(&at), without_login);
            expect(carol.http.get(&at), to_stranger);
            expect(bob.http.get(&at), true);
            expect(alice.http.get(&at), true);
        }
        // A token that is none is never taken for no token.
        server.http.with_token("nonsense").get(&whole).refused(401, "M_UNKNOWN_TOKEN");
        // In a public room everybody can meet her.
        alice.public_room();
        assert_eq!(carol.http.get(&whole).ok()["displayname"], "Alice");
        // Whether there is such a user is not told to those who may not know.
        let nobody = "/_matrix/client/v3/profile/@nobody:localhost";
        match to_stranger {
            true => carol.http.get(nobody).refused(404, "M_NOT_FOUND"),
            false => carol.http.get(nobody).refused(403, "M_FORBIDDEN"),
        };
    }
}

// Checklist 7.11
#[test]
fn rooms_are_tagged() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    let tags = path("/_matrix/client/v3/user/{}/rooms/{}/tags", &[&alice.id, &room]);
    let tag = |name: &str| tags.clone() + &path("/{}", &[name]);
    assert_eq!(alice.http.get(&tags).ok()["tags"], json!({}));
    let token = alice.sync(Ask::initial()).ok().next_batch();
    alice.http.put(&tag("m.favourite"), &json!({ "order": 0.25 })).ok();
    alice.http.put(&tag("u.Wörk & more"), &json!({ "org.example": [1] })).ok();
    alice.http.send("PUT", &tag("u.bare"), b"").ok();
    let all = json!({ "m.favourite": { "order": 0.25 }, "u.Wörk & more": { "org.example": [1] },
        "u.bare": {} });
    assert_eq!(alice.http.get(&tags).ok()["tags"], all);
    let told = |answer: &Answer| {
        let events = answer["rooms"]["join"][&room]["account_data"]["events"].as_array();
        let event = events.and_then(|all| all.iter().find(|event| event["type"] == "m.tag"));
        event.map(|event| event["content"]["tags"].clone())
    };
    let answer = alice.sync(Ask::since(&token)).ok();
    let content = told(&answer).unwrap();
    assert_eq!(content["m.favourite"], json!({ "order": 0.25 }));
    assert_eq!(content["u.Wörk & more"], json!({ "org.example": [1] }));
    server.restart();
    let [alice, bob] = [alice, bob].map(|user| server.again(&user));
    alice.http.put(&tag("m.favourite"), &json!({ "order": 1 })).ok();
    alice.http.send("DELETE", &tag("u.bare"), b"").ok();
    let content = told(&alice.sync(Ask::since(&answer.next_batch())).ok()).unwrap();
    assert_eq!(content["m.favourite"]["order"].as_f64(), Some(1.0));
    assert_eq!(content.as_object().unwrap().len(), 2);
    // What changes nothing is no news.
    let token = alice.sync(Ask::initial()).ok().next_batch();
    alice.http.put(&tag("m.favourite"), &json!({ "order": 1 })).ok();
    alice.http.send("DELETE", &tag("u.bare"), b"").ok();
    assert_eq!(told(&alice.sync(Ask::since(&token)).ok()), None);
    for body in [json!({ "order": 1.5 }), json!({ "order": -0.1 })] {
        alice.http.put(&tag("u.a"), &body).refused(400, "M_INVALID_PARAM");
    }
    for body in [json!({ "order": "high" }), json!({ "order": [] }), json!([])] {
        alice.http.put(&tag("u.a"), &body).refused(400, "M_BAD_JSON");
    }
    let longest = "é".repeat(127) + "x";
    alice.http.put(&tag(&longest), &json!({})).ok();
    alice.http.put(&tag(&(longest + "x")), &json!({})).refused(400, "M_INVALID_PARAM");
    let big = json!({ "org.example": "x".repeat(70_000) });
    alice.http.put(&tag("u.big"), &big).refused(413, "M_TOO_LARGE");
    bob.http.get(&tags).refused(403, "M_FORBIDDEN");
    bob.http.put(&tag("u.a"), &json!({})).refused(403, "M_FORBIDDEN");
    bob.http.send("DELETE", &tag("u.a"), b"").refused(403, "M_FORBIDDEN");
    let elsewhere = path("/_matrix/client/v3/user/{}/rooms/{}/tags", &[&bob.id, &room]);
    bob.http.get(&elsewhere).refused(404, "M_NOT_FOUND");
    bob.http.put(&(elsewhere.clone() + "/u.a"), &json!({})).refused(404, "M_NOT_FOUND");
    bob.http.send("DELETE", &(elsewhere + "/u.a"), b"").refused(404, "M_NOT_FOUND");
}

/// Joins a room through a server.
#[track_caller]
fn join_via(user: &User, room: &str, via: &Server) {
    let at = path("/_matrix/client/v3/join/{}?via={}", &[room, &via.name()]);
    user.http.post(&at, &json!({})).ok();
}

// Checklist 6.10
#[test]
fn people_of_other_servers_are_found_where_one_may_meet_them() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let [alice, carol] = ["alice", "carol"].map(|name| near.user(name));
    let [bob, dave] = ["bob", "dave"].map(|name| far.user(name));
    set_name(&bob, "Zoe Far");
    let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    // Waits until alice has seen what somebody does.
    let sees = |action: &dyn Fn(), field: &str, expected: &str| {
        let since = alice.sync(Ask::initial()).ok().next_batch();
        action();
        alice.sync_until(&since, |sync| {
            let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
            let mut events = events.as_array().into_iter().flatten();
            events.any(|event| event["content"][field] == expected)
        });
    };
    alice.invite(&room, &bob).ok();
    assert_eq!(found(&alice, "zoe"), [""; 0], "an invited user is nobody's neighbour yet");
    join_via(&bob, &room, &near);
    let person = json!({ "user_id": bob.id, "display_name": "Zoe Far" });
    for text in ["zoe", "bob", &bob.id] {
        let answer = search(&alice, json!({ "search_term": text })).ok();
        assert_eq!(answer["results"], json!([person]), "{text}");
    }
    assert_eq!(found(&carol, "zoe"), [""; 0], "it is a private room");
    assert_eq!(found(&bob, "alice"), ["@alice"]);
    // Who is called otherwise is found under the new name alone.
    sees(&|| set_name(&bob, "Yves"), "displayname", "Yves");
    assert_eq!(found(&alice, "zoe"), [""; 0]);
    assert_eq!(found(&alice, "yves"), ["@bob"]);
    // In a room that is open to all anybody meets anybody.
    let open = carol.public_room();
    join_via(&dave, &open, &near);
    assert_eq!(found(&alice, "dave"), ["@dave"]);
    set_name(&dave, "Xenia");
    let within = deadline(Duration::from_secs(30));
    while found(&alice, "xenia").is_empty() {
        assert!(!within.passed(), "the new name has not come");
    }
    assert_eq!(found(&alice, "xenia"), ["@dave"]);
    carol.set_state(&open, "m.room.join_rules", "", json!({ "join_rule": "invite" })).ok();
    assert_eq!(found(&alice, "dave"), [""; 0]);
    assert_eq!(found(&carol, "dave"), ["@dave"]);
    sees(&|| drop(bob.leave(&room).ok()), "membership", "leave");
    assert_eq!(found(&alice, "yves"), [""; 0]);
}
