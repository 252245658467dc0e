//! Messages for devices.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, fresh_txn, path};

fn send(user: &User, txn: &str, messages: Value) -> Answer {
    let at = path("/_matrix/client/v3/sendToDevice/{}/{}", &["m.test", txn]);
    user.http.put(&at, &json!({ "messages": messages }))
}

fn say(user: &User, to: &User, text: &str) {
    send(user, &fresh_txn(), json!({ &to.id: { &to.device: { "text": text } } })).ok();
}

fn texts(answer: &Answer) -> Vec<String> {
    let events = answer["to_device"]["events"].as_array().into_iter().flatten();
    events.map(|event| event["content"]["text"].as_str().unwrap().to_owned()).collect()
}

// Checklist 2.2, 5.1, 5.3
#[test]
fn messages_wait_until_the_device_has_them() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let (phone, gone) = (server.login("bob"), server.login("bob"));
    gone.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    let first = bob.sync(Ask::initial()).ok().next_batch();
    let to = json!({ &bob.id: { &bob.device: { "text": "one" }, "NOWHERE": { "text": "x" },
        &gone.device: { "text": "x" } }, "@nobody:localhost": { "*": { "text": "x" } } });
    // An event of the same transaction id is another transaction.
    let room = alice.public_room();
    let event = path("/_matrix/client/v3/rooms/{}/send/m.test/t", &[&room]);
    alice.http.put(&event, &json!({})).ok();
    send(&alice, "t", to.clone()).ok();
    send(&alice, "t", to).ok();
    // For one device another message than for all the others.
    let to = json!({ &bob.id: { "*": { "text": "all" }, &bob.device: { "text": "two" } } });
    send(&alice, &fresh_txn(), to).ok();
    server.restart();
    let [alice, bob, phone] = [&alice, &bob, &phone].map(|user| server.again(user));
    let answer = bob.sync(Ask::since(&first)).ok();
    assert_eq!(texts(&answer), ["one", "two"]);
    let event = json!({ "sender": alice.id, "type": "m.test", "content": { "text": "one" } });
    assert_eq!(answer["to_device"]["events"][0], event);
    assert_eq!(texts(&phone.sync(Ask::initial()).ok()), ["all"]);
    // The answer was lost.
    let again = bob.sync(Ask::since(&first)).ok();
    assert_eq!(texts(&again), ["one", "two"]);
    assert_eq!(texts(&bob.sync(Ask::initial()).ok()), ["one", "two"]);
    say(&alice, &bob, "three");
    let next = bob.sync(Ask::since(&again.next_batch())).ok();
    assert_eq!(texts(&next), ["three"]);
    // Now it has the first ones: nobody gets them again.
    assert_eq!(texts(&bob.sync(Ask::since(&first)).ok()), ["three"]);
    server.restart();
    let [bob, alice] = [&bob, &alice].map(|user| server.again(user));
    assert_eq!(texts(&bob.sync(Ask::since(&next.next_batch())).ok()), [""; 0]);
    assert_eq!(texts(&bob.sync(Ask::initial()).ok()), [""; 0]);
    // What waits ends with the device, and is not for the next one of its name.
    say(&alice, &phone, "late");
    let body = json!({ "type": "m.login.password", "password": crate::common::PASSWORD,
        "device_id": phone.device, "identifier": { "type": "m.id.user", "user": "bob" } });
    server.again(&phone).http.post("/_matrix/client/v3/logout", &json!({})).ok();
    let answer = server.http.post("/_matrix/client/v3/login", &body).ok();
    let phone = User::from_login(&server.http, &answer);
    assert_eq!(texts(&phone.sync(Ask::initial()).ok()), [""; 0]);
}

// Checklist 5.2
#[test]
fn many_messages_come_in_order_a_hundred_at_a_time() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let mut since = bob.sync(Ask::initial()).ok().next_batch();
    let all: Vec<_> = (0..250).map(|n| format!("{n}")).collect();
    all.iter().for_each(|text| say(&alice, &bob, text));
    let mut got = Vec::new();
    for expected in [100, 100, 50, 0] {
        let lost = bob.sync(Ask::since(&since)).ok();
        let answer = bob.sync(Ask::since(&since)).ok();
        assert_eq!(texts(&answer), texts(&lost));
        assert_eq!(texts(&answer).len(), expected);
        got.extend(texts(&answer));
        since = answer.next_batch();
        say(&alice, &alice, "for somebody else");
    }
    assert_eq!(got, all);
}

#[test]
fn a_message_wakes_the_device_that_waits() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let since = bob.sync(Ask::initial()).ok().next_batch();
    let waiting = bob.clone();
    let parked = std::thread::spawn(move || waiting.sync(Ask::since(&since).wait(30_000)).ok());
    server.await_parked(1);
    say(&alice, &bob, "wake up");
    assert_eq!(texts(&parked.join().unwrap()), ["wake up"]);
}

#[test]
fn what_is_no_message_is_refused() {
    let server = Server::start();
    let alice = server.user("alice");
    for messages in [json!([]), json!({ "alice": { "*": {} } }), json!({ &alice.id: { "*": 1 } })] {
        send(&alice, &fresh_txn(), messages).refused(400, "M_BAD_JSON");
    }
    let long = "x".repeat(256);
    send(&alice, &long, json!({})).refused(400, "M_INVALID_PARAM");
    let at = path("/_matrix/client/v3/sendToDevice/{}/t", &[&long]);
    alice.http.put(&at, &json!({ "messages": {} })).refused(400, "M_INVALID_PARAM");
    server.http.put(&at, &json!({ "messages": {} })).refused(401, "M_MISSING_TOKEN");
}

#[test]
fn what_is_for_servers_that_are_not_spoken_to_is_counted() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let far = "@far:elsewhere.invalid";
    let both = json!({ far: { "*": { "text": "hello" }, "D": { "text": "hello" } },
        &bob.id: { "*": { "text": "hello" } } });
    send(&alice, &fresh_txn(), both).ok();
    assert_eq!(texts(&bob.sync(Ask::initial()).ok()), ["hello"]);
    let metrics = server.http.text("/metrics");
    let line = r#"parlour_to_device_dropped_total{reason="denied"} 2"#;
    assert!(metrics.contains(line), "{metrics}");
}
