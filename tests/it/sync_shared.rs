//! What many receivers of a message share is made once; what each of them gets is what it would
//! have got alone.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, path};

/// How many answers were made of what is shared.
fn shared(server: &Server) -> u64 {
    let metrics = server.http.text("/metrics");
    let line = metrics.lines().find(|line| line.starts_with("parlour_sync_shared_total"));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("the metric is there")
}

/// An answer without what differs from one moment to the next.
fn timeless(answer: &Answer) -> Value {
    let mut answer = answer.body.clone();
    answer.as_object_mut().unwrap().remove("next_batch");
    forget_ages(&mut answer);
    answer
}

fn forget_ages(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("age");
            fields.values_mut().for_each(forget_ages);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_ages),
        _ => {}
    }
}

/// Syncs on, says whether the answer was made of what is shared, and holds it against the one that
/// is made from storage: that one comes where the filter names rooms.
fn next(
    server: &Server,
    user: &User,
    since: &mut String,
    filter: Value,
    rooms: &[&str],
) -> (Value, bool) {
    let before = shared(server);
    let answer = user.sync(Ask::since(since).filter(filter.clone()).wait(10_000)).ok();
    let is_shared = shared(server) > before;
    let mut alone = filter;
    alone["room"]["rooms"] = json!(rooms);
    let stored = user.sync(Ask::since(since).filter(alone)).ok();
    assert_eq!(timeless(&answer), timeless(&stored), "{}", user.id);
    *since = answer.next_batch();
    (timeless(&answer), is_shared)
}

fn set_account_data(user: &User, kind: &str, content: Value) {
    let at = path("/_matrix/client/v3/user/{}/account_data/{}", &[&user.id, kind]);
    user.http.put(&at, &content).ok();
}

fn event<'a>(answer: &'a Value, room: &str, nth: usize) -> &'a Value {
    &answer["rooms"]["join"][room]["timeline"]["events"][nth]
}

fn unread(answer: &Value, room: &str) -> Value {
    let counts = &answer["rooms"]["join"][room]["unread_notifications"];
    json!([counts["notification_count"], counts["highlight_count"]])
}

// Checklist 4.4
#[test]
fn who_loads_members_lazily_meets_a_sender_with_what_is_shared() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Hall" })).room_id();
    for user in [&carol, &bob] {
        user.join(&room).ok();
    }
    let tablet = server.login("bob");
    let lazily =
        json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "limit": 1 } } });
    let picky = json!({ "room": { "state": { "lazy_load_members": true, "not_types": ["m.room.*"] },
        "timeline": { "limit": 1 } } });
    for (user, filter, is_told) in [(&bob, &lazily, true), (&tablet, &picky, false)] {
        let mut since = user.sync(Ask::initial().filter(filter.clone())).ok().next_batch();
        for (nth, sender) in [&carol, &carol, &alice, &carol].into_iter().enumerate() {
            sender.say(&room, "hello").ok();
            let (answer, is_shared) = next(&server, user, &mut since, filter.clone(), &[&room]);
            assert!(is_shared, "{answer}");
            let state = answer["rooms"]["join"][&room]["state"]["events"].as_array();
            let members = state.into_iter().flatten().map(|event| &event["state_key"]);
            let is_new = is_told && (nth == 0 || nth == 2);
            let expected = is_new.then(|| json!(sender.id));
            assert_eq!(members.collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>(), "{nth}");
        }
    }
}

// Checklist 4.10
#[test]
fn receivers_of_a_message_share_what_is_the_same_for_them() {
    let server = Server::start();
    let [alice, bob, carol, dora] = ["alice", "bob", "carol", "dora"].map(|name| server.user(name));
    let tablet = server.login("alice");
    let room = alice.public_room();
    for user in [&bob, &carol, &dora] {
        user.join(&room).ok();
    }
    // Carol has rules of her own, Dora ignores Bob.
    let rule = json!({ "pattern": "pizza", "actions": ["notify", { "set_tweak": "highlight" }] });
    carol.http.put("/_matrix/client/v3/pushrules/global/content/food", &rule).ok();
    set_account_data(&dora, "m.ignored_user_list", json!({ "ignored_users": { &bob.id: {} } }));
    let lazily = json!({ "room": { "state": { "lazy_load_members": true },
        "timeline": { "unread_thread_notifications": true } } });
    let picky = json!({ "room": { "timeline": { "not_types": ["m.sticker"], "limit": 5 } } });
    let plain = json!({ "room": {} });
    let mut all: Vec<_> =
        [(&alice, &plain), (&tablet, &plain), (&bob, &lazily), (&carol, &picky), (&dora, &plain)]
            .map(|(user, filter)| {
                (user, filter, user.sync(Ask::initial().filter(filter.clone())).ok().next_batch())
            })
            .into();
    let mut round = |server: &Server| -> Vec<(Value, bool)> {
        let step = |(user, filter, since): &mut (&User, &Value, String)| {
            next(server, user, since, (*filter).clone(), &[&room])
        };
        all.iter_mut().map(step).collect()
    };

    alice.say(&room, "hello").ok();
    round(&server);
    let txn = "my own";
    let pizza = json!({ "msgtype": "m.text", "body": "there is pizza for dora",
        "m.mentions": { "user_ids": [dora.id] } });
    alice.send_as(&room, "m.room.message", txn, pizza).ok();
    let answers = round(&server);
    assert!(answers.iter().all(|(_, is_shared)| *is_shared), "{answers:?}");
    let own: Vec<_> = answers
        .iter()
        .map(|(answer, _)| event(answer, &room, 0)["unsigned"]["transaction_id"].clone())
        .collect();
    assert_eq!(own, [json!(txn), Value::Null, Value::Null, Value::Null, Value::Null]);
    let counts: Vec<_> = answers.iter().map(|(answer, _)| unread(answer, &room)).collect();
    assert_eq!(counts, [json!([0, 0]), json!([0, 0]), json!([2, 0]), json!([2, 1]), json!([2, 1])]);

    // Two at once; Bob's own words make him read what was there, and Dora does not hear him.
    bob.say(&room, "thanks").ok();
    alice.say(&room, "enjoy").ok();
    let answers = round(&server);
    let counts: Vec<_> = answers.iter().map(|(answer, _)| unread(answer, &room)).collect();
    assert_eq!(counts, [json!([0, 0]), json!([0, 0]), json!([1, 0]), json!([4, 1]), json!([3, 1])]);
    assert_eq!(event(&answers[4].0, &room, 0)["content"]["body"], "enjoy");
    assert!(!answers[4].1, "who ignores somebody is not told of him");

    // Receipts are shared, too, but with those who have read on.
    let read = alice.say(&room, "read this").event_id();
    round(&server);
    let receipt = path("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", &[&room, &read]);
    carol.http.post(&receipt, &json!({})).ok();
    let answers = round(&server);
    let who_shares: Vec<_> = answers.iter().map(|(_, is_shared)| *is_shared).collect();
    assert_eq!(who_shares, [true, true, true, false, true]);
    let seen = &answers[4].0["rooms"]["join"][&room]["ephemeral"]["events"][0]["content"];
    assert!(seen[&read]["m.read"][&carol.id].is_object(), "{seen}");
    assert_eq!(unread(&answers[3].0, &room), json!([0, 0]));

    // What the filter does not want is counted, and not waited for in vain.
    alice.send(&room, "m.sticker", json!({ "body": "a cat", "url": "mxc://x/y", "info": {} })).ok();
    alice.say(&room, "meow").ok();
    let answers = round(&server);
    assert_eq!(event(&answers[3].0, &room, 0)["content"]["body"], "meow");
    assert_eq!(event(&answers[2].0, &room, 0)["type"], "m.sticker");
}

#[test]
fn what_is_not_the_same_for_all_is_not_shared() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let mut since = bob.sync(Ask::initial()).ok().next_batch();
    let plain = json!({ "room": {} });
    let mut step = || next(&server, &bob, &mut since, plain.clone(), &[&room]);
    let first = alice.say(&room, "one").event_id();
    step();
    alice.say(&room, "two").ok();
    assert!(step().1);

    // An edit and what it edits belong together; alone it is like any other message.
    let edit = |event: &str| {
        json!({ "msgtype": "m.text", "body": "* new", "m.new_content": { "msgtype": "m.text", "body": "new" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": event } })
    };
    alice.send(&room, "m.room.message", edit(&first)).ok();
    assert!(step().1);
    let third = alice.say(&room, "three").event_id();
    alice.send(&room, "m.room.message", edit(&third)).ok();
    let (answer, is_shared) = step();
    assert!(!is_shared);
    assert!(event(&answer, &room, 0)["unsigned"]["m.relations"]["m.replace"].is_object());

    // Threads are counted apart, redactions change what was there, state is compared.
    let reply = json!({ "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": first } });
    alice.send(&room, "m.room.message", reply).ok();
    assert!(!step().1);
    alice.redact(&room, &third, "wrong").ok();
    assert!(!step().1);
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "new" })).ok();
    assert!(!step().1);
    // Something else at the same time.
    alice.say(&room, "four").ok();
    set_account_data(&bob, "org.example", json!({ "a": 1 }));
    assert!(!step().1);
    // The rules that hold now count.
    alice.say(&room, "five").ok();
    assert!(step().1);
    let mute = json!({ "actions": [] });
    bob.http.put(&path("/_matrix/client/v3/pushrules/global/room/{}", &[&room]), &mute).ok();
    let (answer, _) = step();
    assert_eq!(answer["account_data"]["events"][0]["type"], "m.push_rules");
    alice.say(&room, "six").ok();
    step();
    alice.say(&room, "seven").ok();
    let (answer, is_shared) = step();
    assert!(is_shared);
    assert_eq!(unread(&answer, &room), json!([0, 0]));
}
