//! What a server in test mode does, and what it doesn't give up for that. Data in bulk have a file of
//! their own.

use std::thread;

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, path};

const FAULTS: &str = "/_parlour/test/v1/faults";

#[track_caller]
fn set(root: &User, faults: Value) -> Value {
    root.http.put(FAULTS, &faults).ok().body
}

/// A counter of the server's metrics.
fn metric(server: &Server, name: &str) -> f64 {
    let url = format!("{}/metrics", server.base());
    let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[track_caller]
fn is_there(user: &User, room: &str, event: &str) -> Answer {
    user.room(room, &path("event/{}", &[event]))
}

#[test]
fn a_full_disk_refuses_and_all_goes_on_when_there_is_room_again() {
    let mut server = Server::start();
    let (root, alice) = (server.admin("root"), server.user("alice"));
    // Of an open one the user directory would have something to write, too, and meet the faults.
    let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    let before = alice.say(&room, "before").event_id();
    let since = alice.sync(Ask::initial()).ok().next_batch();
    set(&root, json!({ "failing_writes": 2 }));
    alice.say(&room, "first").refused(503, "M_UNKNOWN");
    let body = json!({ "username": "bob", "password": "x", "auth": { "type": "m.login.dummy" } });
    server.http.post("/_matrix/client/v3/register", &body).refused(503, "M_UNKNOWN");
    let left = json!({ "flush_delay_ms": 0, "failing_flushes": 0, "failing_writes": 0 });
    assert_eq!(root.http.get(FAULTS).ok().body, left);
    let after = alice.say(&room, "after").event_id();
    let told = alice.sync(Ask::since(&since)).ok();
    let texts: Vec<_> =
        told.timeline(&room).into_iter().map(|e| e["content"]["body"].clone()).collect();
    assert_eq!(texts, ["after"]);
    // Until somebody says otherwise.
    set(&root, json!({ "failing_writes": -1 }));
    for _ in 0..3 {
        alice.say(&room, "never").refused(503, "M_UNKNOWN");
    }
    set(&root, json!({ "failing_writes": 0 }));
    alice.say(&room, "at last").event_id();
    server.restart();
    let alice = server.again(&alice);
    is_there(&alice, &room, &before).ok();
    is_there(&alice, &room, &after).ok();
    server.user("bob");
}

#[test]
fn after_a_flush_that_fails_nothing_is_taken_until_the_next_start() {
    let mut server = Server::start();
    let (root, alice) = (server.admin("root"), server.user("alice"));
    let rooms = [alice.public_room(), alice.public_room()];
    let before = alice.say(&rooms[0], "before").event_id();
    set(&root, json!({ "failing_flushes": 1 }));
    // All who wait for it are told, whatever room they are in.
    thread::scope(|scope| {
        let saying = |number: usize| alice.say(&rooms[number % 2], "lost").status;
        let saying: Vec<_> = (0..8).map(|number| scope.spawn(move || saying(number))).collect();
        saying.into_iter().for_each(|said| assert_eq!(said.join().unwrap(), 503));
    });
    // The disk is well again, but nobody knows what became of the last flush.
    assert_eq!(root.http.get(FAULTS).ok()["failing_flushes"], 0);
    let message = json!({ "msgtype": "m.text", "body": "again" });
    alice.send_as(&rooms[0], "m.room.message", "once", message.clone()).refused(503, "M_UNKNOWN");
    is_there(&alice, &rooms[0], &before).ok();
    assert_eq!(alice.sync(Ask::initial()).ok().timeline(&rooms[0]).len(), 7, "reading goes on");
    server.restart();
    let alice = server.again(&alice);
    is_there(&alice, &rooms[0], &before).ok();
    let again = alice.send_as(&rooms[0], "m.room.message", "once", message.clone()).event_id();
    assert_eq!(alice.send_as(&rooms[0], "m.room.message", "once", message).event_id(), again);
    let sync = alice.sync(Ask::initial()).ok();
    let texts = |room: &str| -> Vec<_> {
        let all = sync.timeline(room).into_iter().filter(|event| event["type"] == "m.room.message");
        all.map(|event| event["content"]["body"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (texts(&rooms[0]), texts(&rooms[1])),
        (vec!["before".into(), "again".into()], vec![])
    );
}

#[test]
fn a_slow_disk_makes_groups_grow_and_nobody_waits_for_long() {
    let server = Server::start_with(&[("PARLOUR_TEST__FLUSH_DELAY_MS", "30")]);
    let root = server.admin("root");
    assert_eq!(root.http.get(FAULTS).ok()["flush_delay_ms"], 30);
    let alice = server.user("alice");
    let room = alice.public_room();
    set(&root, json!({ "flush_delay_ms": 100 }));
    let flushes = || metric(&server, "parlour_flush_seconds_count");
    let waited = || metric(&server, "parlour_flush_seconds_sum");
    let before = (flushes(), waited());
    const WRITERS: usize = 12;
    const EACH: usize = 4;
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| (0..EACH).for_each(|_| drop(alice.say(&room, "patience").event_id())));
        }
    });
    let (count, seconds) = (flushes() - before.0, waited() - before.1);
    // One may have begun before the disk became as slow as that.
    assert!(seconds >= (count - 1.0) * 0.1, "{count} flushes took {seconds} s");
    // Each waits for the flush under way and for its own, so all are done in few rounds.
    assert!(count <= (4 * EACH) as f64, "{count} flushes for {} messages", WRITERS * EACH);
    set(&root, json!({ "flush_delay_ms": 0 }));
    let sync =
        alice.sync(Ask::initial().filter(json!({ "room": { "timeline": { "limit": 100 } } })));
    let said = sync.ok().timeline(&room);
    let said = said.iter().filter(|event| event["content"]["body"] == "patience");
    assert_eq!(said.count(), WRITERS * EACH);
    for wrong in [
        json!({ "flush_delay_ms": 60_001 }),
        json!({ "failing_writes": -2 }),
        json!({ "failing_reads": 1 }),
        json!({ "failing_flushes": "all" }),
    ] {
        root.http.put(FAULTS, &wrong).refused(400, "M_INVALID_PARAM");
    }
}

#[test]
fn data_in_memory_have_no_disk_that_fails() {
    let server = Server::start_with(&[("PARLOUR_SERVER__DATA_DIR", "memory")]);
    let root = server.admin("root");
    root.http.get(FAULTS).refused(400, "M_UNKNOWN");
    root.http.put(FAULTS, &json!({})).refused(400, "M_UNKNOWN");
}

/// A user, a device, a token and a room, made in this order.
fn ids(server: &Server) -> (String, String, String) {
    let alice = server.user("alice");
    let room = alice.create_room(json!({ "room_version": "11" })).room_id();
    (alice.device, alice.token, room)
}

#[test]
fn a_seed_gives_the_same_ids_but_never_twice_on_the_same_data() {
    let seeded = |seed| Server::start_with(&[("PARLOUR_TEST__SEED", seed)]);
    let (mut one, two, other) = (seeded("7"), seeded("7"), seeded("8"));
    let made = ids(&one);
    assert_eq!(made, ids(&two));
    assert_ne!(made, ids(&other));
    // What signs is nobody's to guess.
    assert_ne!(
        one.origin().key.public_key().to_base64(),
        two.origin().key.public_key().to_base64()
    );
    let alice = one.login("alice");
    one.restart();
    let late = [one.user("bob"), one.login("alice"), one.login("alice")];
    let mut tokens: Vec<_> =
        late.iter().map(|user| &user.token).chain([&alice.token, &made.1]).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 5);
    one.again(&alice).http.get("/_matrix/client/v3/account/whoami").ok();
    // Others are not to be served from what can be guessed.
    one.kill();
    let failed = one.run_with(
        &["serve"],
        &[("PARLOUR_SERVER__TEST_MODE", "false"), ("PARLOUR_TEST__SEED", "0")],
    );
    let why = failed.failed();
    assert!(why.contains("seed") && why.contains("--test-mode"), "{why}");
    one.launch();
    one.again(&alice).http.get("/_matrix/client/v3/account/whoami").ok();
}

#[test]
fn certificates_are_checked_in_test_mode_as_ever() {
    let near = Server::start_federated(&[("PARLOUR_FEDERATION__EXTRA_CA_FILES", "[]")]);
    let far = Server::start_federated(&[]);
    let (alice, carol) = (near.user("alice"), far.user("carol"));
    let room = carol.public_room();
    let at = path("/_matrix/client/v3/join/{}?via={}", &[&room, &far.name()]);
    alice.http.post(&at, &json!({})).refused(502, "M_UNKNOWN");
    let mut near = near.with(&[("PARLOUR_FEDERATION__EXTRA_CA_FILES", r#"["ca.pem"]"#)]);
    near.restart();
    near.again(&alice).http.post(&at, &json!({})).ok();
}
