//! Messages for devices on other servers: they wait until their server has them.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, Taker, User, deadline, fresh_txn, path};

fn send_as(user: &User, txn: &str, messages: Value) -> Answer {
    let at = path("/_matrix/client/v3/sendToDevice/{}/{}", &["m.test", txn]);
    user.http.put(&at, &json!({ "messages": messages }))
}

fn send(user: &User, messages: Value) -> Answer {
    send_as(user, &fresh_txn(), messages)
}

fn texts(answer: &Answer) -> Vec<String> {
    let events = answer["to_device"]["events"].as_array().into_iter().flatten();
    events.map(|event| event["content"]["text"].as_str().unwrap().to_owned()).collect()
}

fn is_message(edu: &Value) -> bool {
    edu["edu_type"] == "m.direct_to_device"
}

/// The contents of such EDUs, as soon as there are so many.
#[track_caller]
fn contents(far: &Taker, count: usize) -> Vec<Value> {
    let edus = far.await_edus(is_message, count).into_iter();
    edus.map(|edu| edu["content"].clone()).collect()
}

// Checklist 5.4, 12.1, 12.2, 12.6
#[test]
fn they_wait_through_an_outage_and_a_crash_and_come_in_order() {
    let (mut near, far) = (Server::start_federated(&[]), Taker::start());
    let alice = near.user("alice");
    let bob = far.user("bob");
    far.go_away(true);
    for number in 0..120 {
        let txn = format!("t{number}");
        let messages = json!({ &bob: { "D": { "text": number } } });
        send_as(&alice, &txn, messages.clone()).ok();
        send_as(&alice, &txn, messages).ok();
    }
    let attempts = || {
        let asked = far.server.asked().into_iter();
        asked.filter(|asked| asked.is("v1/send/")).collect::<Vec<_>>()
    };
    let until = deadline(Duration::from_secs(30));
    while attempts().len() < 3 {
        assert!(!until.passed());
        thread::sleep(Duration::from_millis(20));
    }
    let first = attempts().remove(0);
    for again in attempts() {
        assert_eq!((&again.path, &again.body), (&first.path, &first.body));
    }
    near.restart();
    far.go_away(false);
    let taken = contents(&far, 120);
    let numbers = |contents: &[Value]| -> Vec<u64> {
        let text = |content: &Value| content["messages"][&bob]["D"]["text"].as_u64().unwrap();
        contents.iter().map(text).collect()
    };
    assert!(numbers(&taken).into_iter().eq(0..120));
    assert_eq!(first.body["edus"][0]["content"], taken[0], "it has the same id");
    let mut ids: Vec<_> = taken.iter().map(|one| one["message_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 120);
    assert!(ids.iter().all(|id| id.chars().count() <= 32));
    assert!(far.taken().iter().all(|body| body["edus"].as_array().unwrap().len() <= 100));
    // What was taken is not sent again, once this server knows.
    let until = deadline(Duration::from_secs(30));
    while !near.http.text("/metrics").contains("parlour_federation_waiting_destinations 0\n") {
        assert!(!until.passed());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(near.terminate().success());
    near.launch();
    let alice = near.again(&alice);
    send(&alice, json!({ &bob: { "D": { "text": 120 } } })).ok();
    assert!(numbers(&contents(&far, 121)).into_iter().eq(0..121));
}

// Checklist 5.3
#[test]
fn one_request_goes_to_all_servers_as_it_is() {
    let (near, far) = (Server::start_federated(&[]), Taker::start());
    let [alice, carol] = ["alice", "carol"].map(|name| near.user(name));
    let (bob, dora) = (far.user("bob"), far.user("dora"));
    let long = |text: &str| json!({ "text": text, "long": "x".repeat(30_000) });
    let messages = json!({
        &bob: { "A": long("a"), "B": long("b"), "C": long("c") },
        &dora: { "*": { "text": "all" }, "A": long("one") },
        &carol.id: { "*": { "text": "here" } },
    });
    let huge = json!({ &bob: { "A": { "text": "x".repeat(65_536) } },
        &carol.id: { "*": { "text": "nothing" } } });
    send(&alice, huge).refused(413, "M_TOO_LARGE");
    send(&alice, messages.clone()).ok();
    assert_eq!(texts(&carol.sync(Ask::initial()).ok()), ["here"]);
    let mut all = json!({ &bob: {}, &dora: {}, &carol.id: { "*": { "text": "here" } } });
    for content in contents(&far, 2) {
        assert_eq!((&content["sender"], &content["type"]), (&json!(alice.id), &json!("m.test")));
        assert!(content.to_string().len() <= 65_536);
        for (user, devices) in content["messages"].as_object().unwrap() {
            for (device, message) in devices.as_object().unwrap() {
                assert!(all[user][device].is_null(), "each message goes once");
                all[user][device] = message.clone();
            }
        }
    }
    // 30,000 bytes each: two in one EDU.
    let far_and_wide = contents(&far, 2);
    assert!((2..=3).contains(&far_and_wide.len()), "{}", far_and_wide.len());
    assert_eq!(all, messages);
}

// Checklist 5.4, 12.6
#[test]
fn nothing_is_lost_and_nothing_comes_twice_when_either_server_is_killed() {
    let mut servers = [Server::start_federated(&[]), Server::start_federated(&[])];
    let mut users = [servers[0].user("alice"), servers[1].user("bob")];
    let mut since = users.clone().map(|user| user.sync(Ask::initial()).ok().next_batch());
    let mut got = [Vec::new(), Vec::new()];
    let mut read = |users: &[User; 2], since: &mut [String; 2], enough: usize| {
        let until = deadline(Duration::from_secs(60));
        for (index, user) in users.iter().enumerate() {
            while got[index].len() < enough {
                let answer = user.sync(Ask::since(&since[index]).wait(500)).ok();
                got[index].extend(texts(&answer));
                since[index] = answer.next_batch();
                assert!(!until.passed(), "{got:?}");
            }
        }
        got.clone()
    };
    let mut sent = 0;
    for round in 0..6 {
        for _ in 0..15 {
            let text = sent.to_string();
            for (from, to) in [(0, 1), (1, 0)] {
                let messages = json!({ &users[to].id: { &users[to].device: { "text": text } } });
                send_as(&users[from], &text, messages).ok();
            }
            sent += 1;
        }
        // Some have been read, and some are on their way.
        read(&users, &mut since, sent / 3);
        servers[round % 2].restart();
        users = [servers[0].again(&users[0]), servers[1].again(&users[1])];
        // A client that has no answer asks again.
        let last = (sent - 1).to_string();
        let messages = json!({ &users[1].id: { &users[1].device: { "text": last } } });
        send_as(&users[0], &last, messages).ok();
    }
    let all = read(&users, &mut since, sent);
    let expected: Vec<_> = (0..sent).map(|number| number.to_string()).collect();
    assert_eq!(all[0], expected);
    assert_eq!(all[1], expected);
    for (user, since) in users.iter().zip(&since) {
        assert!(texts(&user.sync(Ask::since(since)).ok()).is_empty());
    }
}

// Checklist 5.4
#[test]
fn what_the_disk_refuses_can_be_sent_again_and_comes_once() {
    let (near, far) = (Server::start_federated(&[]), Taker::start());
    let root = near.admin("root");
    let (alice, carol, bob) = (near.user("alice"), near.user("carol"), far.user("bob"));
    let since = carol.sync(Ask::initial()).ok().next_batch();
    let fail = |writes: i64| {
        let faults = json!({ "failing_writes": writes });
        root.http.put("/_parlour/test/v1/faults", &faults).ok();
    };
    let messages =
        json!({ &carol.id: { "*": { "text": "here" } }, &bob: { "D": { "text": "there" } } });
    fail(-1);
    for _ in 0..2 {
        send_as(&alice, "again", messages.clone()).refused(503, "M_UNKNOWN");
    }
    fail(0);
    for _ in 0..3 {
        send_as(&alice, "again", messages.clone()).ok();
    }
    send(
        &alice,
        json!({ &carol.id: { "*": { "text": "last" } }, &bob: { "D": { "text": "last" } } }),
    )
    .ok();
    assert_eq!(texts(&carol.sync(Ask::since(&since)).ok()), ["here", "last"]);
    let there: Vec<_> =
        contents(&far, 2).iter().map(|one| one["messages"][&bob]["D"]["text"].clone()).collect();
    assert_eq!(there, ["there", "last"]);
}
