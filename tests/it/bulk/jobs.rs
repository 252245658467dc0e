//! Jobs: who may order them, how they end, and what is left of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BULK, begin, done, job, logins, named, said, wait_for};
use crate::common::{Server, User, path};

/// Checks that a room is whole: its members, told in two ways, and its history without a hole. Says
/// how many messages there are.
#[track_caller]
fn is_whole(root: &User, user: &User, room: &str) -> usize {
    let members = user.room(room, "joined_members").ok();
    let members: BTreeSet<_> = members["joined"].as_object().unwrap().keys().cloned().collect();
    let about = path("/_synapse/admin/v1/rooms/{}", &[room]);
    assert_eq!(root.http.get(&about).ok()["joined_members"], members.len());
    let messages = said(user, room);
    let numbers = messages.iter().map(|text| text.split(' ').next().unwrap().parse().unwrap());
    let numbers: Vec<usize> = numbers.collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    user.say(room, &format!("{} and on", numbers.len())).event_id();
    numbers.len()
}

/// All rooms that there are.
fn rooms(root: &User) -> Vec<String> {
    let all = root.http.get("/_synapse/admin/v1/rooms?limit=1000").ok();
    let ids = all["rooms"].as_array().unwrap().iter().map(|room| room["room_id"].as_str());
    ids.map(|id| id.unwrap().to_owned()).collect()
}

#[test]
fn a_kill_in_the_middle_leaves_whole_rooms() {
    let mut server = Server::start();
    let root = server.admin("root");
    let order = json!({ "users": 60, "rooms": 3, "members": 50, "messages": 20_000 });
    let id = begin(&root, &order);
    let seen = wait_for(&root, &id, |job| job["messages"]["done"].as_u64() > Some(300));
    server.restart();
    let root = server.again(&root);
    root.http.get(&path("/_parlour/test/v1/bulk/{}", &[&id])).refused(404, "M_NOT_FOUND");
    let found = rooms(&root);
    assert_eq!(found.len(), 3);
    let mut messages = 0;
    for room in &found {
        let creator = root.http.get(&path("/_synapse/admin/v1/rooms/{}", &[room])).ok();
        let creator = creator["creator"].as_str().unwrap().to_owned();
        let creator = logins(&server, &root, &[creator]).remove(0);
        messages += is_whole(&root, &creator, room) as u64;
    }
    let told = seen["messages"]["done"].as_u64().unwrap();
    assert!(messages >= told, "{messages} are left of {told} that were told of");
    // The same users, and further rooms.
    let order = json!({ "users": 80, "rooms": 1, "members": 80, "messages": 10 });
    assert_eq!(done(&root, &order)["members"]["done"], 80);
    assert_eq!(rooms(&root).len(), 4);
}

#[test]
fn a_job_can_be_ended_and_ends_with_the_server() {
    let mut server = Server::start();
    let root = server.admin("root");
    let order = json!({ "users": 20, "rooms": 1, "members": 20, "messages": 1_000_000 });
    let id = begin(&root, &order);
    wait_for(&root, &id, |job| job["messages"]["done"].as_u64() > Some(64));
    let at = path("/_parlour/test/v1/bulk/{}", &[&id]);
    let ended = root.http.send("DELETE", &at, b"").ok().body;
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert_eq!(job(&root, &id), ended, "nothing more comes of it");
    let first = logins(&server, &root, &named(&server, "bulk", [0])).remove(0);
    let room = ended["room_ids"][0].as_str().unwrap();
    let counted = ended["messages"]["done"].as_u64().unwrap() as usize;
    let here = is_whole(&root, &first, room);
    assert!(here >= counted, "{here} of {counted}");
    // Again, until the server is stopped.
    let id = begin(&root, &order);
    wait_for(&root, &id, |job| job["messages"]["done"].as_u64() > Some(64));
    assert!(server.terminate().success());
    server.restart();
    let (root, first) = (server.again(&root), server.again(&first));
    for room in rooms(&root).iter().filter(|other| *other != room) {
        assert!(is_whole(&root, &first, room) > 64);
    }
}

#[test]
fn jobs_are_for_administrators_and_must_make_sense() {
    let server = Server::start();
    let (root, alice) = (server.admin("root"), server.user("alice"));
    let one = "/_parlour/test/v1/bulk/x";
    let logins = "/_parlour/test/v1/logins";
    let faults = "/_parlour/test/v1/faults";
    for (method, at) in [
        ("POST", BULK),
        ("GET", one),
        ("DELETE", one),
        ("POST", logins),
        ("GET", faults),
        ("PUT", faults),
    ] {
        server.http.send(method, at, b"{}").refused(401, "M_MISSING_TOKEN");
        alice.http.send(method, at, b"{}").refused(403, "M_FORBIDDEN");
    }
    root.http.get(one).refused(404, "M_NOT_FOUND");
    root.http.send("DELETE", one, b"").refused(404, "M_NOT_FOUND");
    let wrong = |order: Value| root.http.post(BULK, &order).refused(400, "M_INVALID_PARAM");
    wrong(json!({ "users": -1 }));
    wrong(json!({ "members": 1 }));
    wrong(json!({ "unknown": 1 }));
    wrong(json!({ "rooms": 1, "users": 1 }));
    wrong(json!({ "rooms": 1, "users": 1, "members": 2 }));
    wrong(json!({ "users": 2_000_000_000_u64 }));
    wrong(json!({ "users": 1, "rooms": u64::MAX, "members": 1, "messages": 3 }));
    wrong(json!({ "users": 1, "prefix": "Capital" }));
    wrong(json!({ "users": 1, "rooms": 1, "members": 1, "room_version": "x-none" }));
    let many = vec![&alice.id; 100_001];
    let too_many = json!({ "joins": [{ "room_id": "!a:localhost", "users": many }] });
    root.http.post(BULK, &too_many).refused(400, "M_INVALID_PARAM");
    let order = json!({ "users": 1, "prefix": "with blank" });
    root.http.post(BULK, &order).refused(400, "M_INVALID_USERNAME");
    let order = json!({ "users": 1, "password": "" });
    root.http.post(BULK, &order).refused(400, "M_WEAK_PASSWORD");
    let order = json!({ "joins": [{ "room_id": "!gone:localhost", "users": [] }] });
    root.http.post(BULK, &order).refused(404, "M_NOT_FOUND");
    let nobody = json!({ "users": ["@nobody:localhost"] });
    root.http.post(logins, &nobody).refused(404, "M_NOT_FOUND");
    let many = json!({ "users": vec![&alice.id; 1_001] });
    root.http.post(logins, &many).refused(400, "M_INVALID_PARAM");
    // More than a few at once are too many.
    let order = json!({ "users": 1, "rooms": 1, "members": 1, "messages": 1_000_000 });
    let jobs: Vec<_> = (0..4).map(|_| begin(&root, &order)).collect();
    root.http.post(BULK, &order).refused(429, "M_LIMIT_EXCEEDED");
    for id in jobs {
        root.http.send("DELETE", &path("/_parlour/test/v1/bulk/{}", &[&id]), b"").ok();
    }
    assert_eq!(done(&root, &json!({}))["status"], "complete", "nothing is soon done");
}

#[test]
fn no_other_server_has_these_endpoints() {
    let server = Server::start_with(&[("PARLOUR_SERVER__TEST_MODE", "false")]);
    let root = server.admin("root");
    root.http.post(BULK, &json!({ "users": 1 })).refused(404, "M_UNRECOGNIZED");
    root.http.get("/_parlour/test/v1/bulk/x").refused(404, "M_UNRECOGNIZED");
    root.http.get("/_parlour/test/v1/faults").refused(404, "M_UNRECOGNIZED");
    root.http.post("/_parlour/test/v1/logins", &json!({})).refused(404, "M_UNRECOGNIZED");
}

#[test]
fn a_job_on_a_disk_that_refuses_fails_and_says_why() {
    let mut server = Server::start();
    let root = server.admin("root");
    let faults = |writes: i64| {
        root.http.put("/_parlour/test/v1/faults", &json!({ "failing_writes": writes })).ok();
    };
    let order = json!({ "users": 10, "rooms": 2, "members": 10, "messages": 1_000_000 });
    let id = begin(&root, &order);
    wait_for(&root, &id, |job| job["messages"]["done"].as_u64() > Some(64));
    faults(-1);
    let failed = loop {
        let job = job(&root, &id);
        if job["status"] != "active" {
            break job;
        }
    };
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("disk is full"), "{failed}");
    faults(0);
    let first = logins(&server, &root, &named(&server, "bulk", [0])).remove(0);
    let rooms = rooms(&root);
    assert_eq!(rooms.len(), 2);
    let counts: Vec<_> = rooms.iter().map(|room| is_whole(&root, &first, room)).collect();
    assert!(counts.iter().sum::<usize>() as u64 >= failed["messages"]["done"].as_u64().unwrap());
    server.restart();
    let (root, first) = (server.again(&root), server.again(&first));
    for (room, count) in rooms.iter().zip(counts) {
        assert_eq!(is_whole(&root, &first, room), count + 1);
    }
}
