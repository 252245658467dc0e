//! Keys of users of other servers are remembered while a room is shared, and kept fresh.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::QUERY;
use crate::common::{Answer, Ask, Asked, FakeServer, Server, User, Visitor, deadline, path};

/// What a fake server says of its user.
#[derive(Clone, Debug, Default)]
struct Said {
    /// The number of the newest change.
    stream_id: u64,
    /// Devices by their ids, with their keys.
    devices: serde_json::Map<String, Value>,
    master: Option<Value>,
    self_signing: Option<Value>,
    /// It cannot be asked.
    is_down: bool,
    /// It takes no transactions.
    is_deaf: bool,
}

type Shared = Arc<Mutex<Said>>;

fn device(user: &str, id: &str, key: &str) -> Value {
    json!({ "user_id": user, "device_id": id, "algorithms": [], "signatures": {},
        "keys": { format!("ed25519:{id}"): key } })
}

fn named(mut device: Value, name: &str) -> Value {
    device["unsigned"] = json!({ "device_display_name": name });
    device
}

fn signing(user: &str, usage: &str, key: &str) -> Value {
    json!({ "user_id": user, "usage": [usage], "keys": { format!("ed25519:{key}"): key } })
}

impl Said {
    fn answer(&self, asked: &Asked) -> Option<(u16, Vec<u8>)> {
        let body = if asked.is("v1/user/devices/") {
            let shown = |(id, keys): (&String, &Value)| {
                let mut shown = json!({ "device_id": id, "keys": keys });
                if let Some(name) = keys["unsigned"]["device_display_name"].as_str() {
                    shown["device_display_name"] = json!(name);
                }
                shown
            };
            let mut devices: Vec<_> = self.devices.iter().map(shown).collect();
            // One that cannot read encrypted messages.
            devices.push(json!({ "device_id": "DEAF", "device_display_name": "old" }));
            json!({ "user_id": asked.part(6), "stream_id": self.stream_id, "devices": devices,
                "master_key": self.master, "self_signing_key": self.self_signing })
        } else if asked.is("v1/user/keys/query") {
            let wanted = asked.body["device_keys"].as_object().unwrap();
            let mut found =
                json!({ "device_keys": {}, "master_keys": {}, "self_signing_keys": {} });
            for user in wanted.keys().filter(|user| user.starts_with("@visitor:")) {
                found["device_keys"][user] = json!(self.devices);
                found["master_keys"][user] = json!(self.master);
                found["self_signing_keys"][user] = json!(self.self_signing);
            }
            // What it was not asked for.
            found["device_keys"]["@alice:elsewhere.org"] = json!({});
            found
        } else if asked.is("v1/send/") && !self.is_deaf {
            json!({ "pdus": {} })
        } else {
            return None;
        };
        if self.is_down {
            return Some((503, b"{}".to_vec()));
        }
        Some((200, body.to_string().into_bytes()))
    }
}

fn far() -> (FakeServer, Shared) {
    let said = Shared::default();
    let saying = said.clone();
    let server = FakeServer::start(|_| move |asked: &Asked| saying.lock().unwrap().answer(asked));
    (server, said)
}

/// Waits until something is so.
#[track_caller]
fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let until = deadline(Duration::from_secs(30));
    while !is_so() {
        assert!(!until.passed(), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How often the server was asked for devices of a user, and for the keys of many.
fn asked(server: &FakeServer) -> (usize, usize) {
    let asked = server.asked();
    let of = |endpoint| asked.iter().filter(|asked| asked.is(endpoint)).count();
    (of("v1/user/devices/"), of("v1/user/keys/query"))
}

/// A change of a device.
fn update(user: &str, number: u64, follows: &[u64], device: &str, keys: Option<&Value>) -> Value {
    let mut content = json!({ "user_id": user, "device_id": device, "stream_id": number,
        "prev_id": follows });
    match keys {
        Some(keys) => content["keys"] = keys.clone(),
        None => content["deleted"] = json!(true),
    }
    json!({ "edu_type": "m.device_list_update", "content": content })
}

#[track_caller]
fn query(by: &User, user: &str) -> Answer {
    by.http.post(QUERY, &json!({ "device_keys": { user: [] }, "timeout": 5000 })).ok()
}

#[track_caller]
fn devices(by: &User, user: &str) -> Value {
    let answer = query(by, user);
    assert_eq!(answer["failures"], Value::Null, "{}", answer.body);
    answer["device_keys"][user].clone()
}

/// Whose keys have changed since the token, which moves on.
fn changed(by: &User, since: &mut String) -> Value {
    let answer = by.sync(Ask::since(since)).ok();
    *since = answer.next_batch();
    answer["device_lists"]["changed"].clone()
}

/// Waits until a user's keys have changed.
#[track_caller]
fn await_change(by: &User, since: &mut String, user: &str) {
    let is_told = |answer: &Answer| answer["device_lists"]["changed"] == json!([user]);
    *since = by.sync_until(since, is_told).next_batch();
}

/// The visitor's devices as it says them, and what of them counts.
fn devices_with_junk(user: &str) -> (Value, Value) {
    let one = device(user, "ONE", "k");
    let first = json!({ "ONE": named(one.clone(), "phone") });
    (json!({ "ONE": first["ONE"], "JUNK": one }), first)
}

// Checklist 5.9
#[test]
fn keys_elsewhere_are_asked_for_once() {
    let mut near = Server::start_federated(&[]);
    let (far, said) = far();
    let alice = near.user("alice");
    let user = Visitor::new(&near, &alice, &far.origin, "11").user.clone();
    let user = user.as_str();
    let (all, first) = devices_with_junk(user);
    let master = signing(user, "master", "m1");
    said.lock().unwrap().devices = all.as_object().unwrap().clone();
    said.lock().unwrap().master = Some(master.clone());
    for _ in 0..3 {
        let answer = query(&alice, user);
        assert_eq!(answer["device_keys"], json!({ user: first }));
        assert_eq!(answer["master_keys"], json!({ user: master }));
    }
    let only = json!({ "device_keys": { user: ["TWO"] } });
    assert_eq!(alice.http.post(QUERY, &only).ok()["device_keys"], json!({ user: {} }));
    assert_eq!(asked(&far), (0, 1));
    near.restart();
    let alice = near.again(&alice);
    assert_eq!(devices(&alice, user), first);
    assert_eq!(asked(&far), (0, 1));
}

// Checklist 5.7, 5.14
#[test]
fn one_change_of_keys_elsewhere_follows_the_other() {
    let near = Server::start_federated(&[]);
    let (far, said) = far();
    let [alice, eve] = ["alice", "eve"].map(|name| near.user(name));
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let user = visitor.user.as_str();
    let (all, first) = devices_with_junk(user);
    said.lock().unwrap().devices = all.as_object().unwrap().clone();
    assert_eq!(devices(&alice, user), first);
    let [two, three] = ["TWO", "THREE"].map(|id| device(user, id, "k"));
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let mut eves = eve.sync(Ask::initial()).ok().next_batch();
    // The number of what is known is not known yet, so the first change has it asked for.
    said.lock().unwrap().stream_id = 8;
    said.lock().unwrap().devices.insert("TWO".to_owned(), two.clone());
    visitor.transact(&[], &[update(user, 8, &[7], "TWO", Some(&two))]).ok();
    await_change(&alice, &mut since, user);
    assert_eq!(asked(&far), (1, 1));
    assert_eq!(devices(&alice, user), json!({ "ONE": first["ONE"], "TWO": two }));
    // From then on nobody is asked.
    let mut edu = update(user, 9, &[8], "THREE", Some(&three));
    edu["content"]["device_display_name"] = json!("tablet");
    let gone = update(user, 10, &[9], "ONE", None);
    visitor.transact(&[], &[edu.clone(), gone, edu]).ok();
    await_change(&alice, &mut since, user);
    assert_eq!(devices(&alice, user), json!({ "THREE": named(three, "tablet"), "TWO": two }));
    // A device that loses its keys.
    let mut keyless = update(user, 11, &[10], "THREE", None);
    keyless["content"].as_object_mut().unwrap().remove("deleted");
    visitor.transact(&[], &[keyless]).ok();
    await_change(&alice, &mut since, user);
    assert_eq!(devices(&alice, user), json!({ "TWO": two }));
    assert_eq!(asked(&far), (1, 1));
    assert_eq!(changed(&eve, &mut eves), Value::Null);
}

// Checklist 5.15, 12.4
#[test]
fn signing_keys_elsewhere_change_and_junk_changes_nothing() {
    let near = Server::start_federated(&[]);
    let (far, said) = far();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let user = visitor.user.as_str();
    let (all, first) = devices_with_junk(user);
    said.lock().unwrap().devices = all.as_object().unwrap().clone();
    assert_eq!(devices(&alice, user), first);
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let own = signing(user, "self_signing", "s1");
    for (kind, new) in [("m.signing_key_update", "m1"), ("org.matrix.signing_key_update", "m2")] {
        let master = signing(user, "master", new);
        let edu = json!({ "edu_type": kind, "content": { "user_id": user, "master_key": master,
            "self_signing_key": own } });
        visitor.transact(&[], &[edu.clone(), edu]).ok();
        await_change(&alice, &mut since, user);
        let answer = query(&alice, user);
        assert_eq!(answer["master_keys"], json!({ user: master }));
        assert_eq!(answer["self_signing_keys"], json!({ user: own }));
    }
    let mut other = update(user, 12, &[11], "ONE", Some(&device(user, "FOUR", "k")));
    let bad_key = json!({ "edu_type": "m.signing_key_update", "content": { "user_id": user,
        "master_key": signing(&alice.id, "master", "x") } });
    let of_other = update(&alice.id, 12, &[11], "ONE", None);
    let of_stranger = update(&format!("@stranger:{}", far.name()), 12, &[11], "ONE", None);
    visitor.transact(&[], &[other.clone(), bad_key, of_other, of_stranger]).ok();
    other["content"]["stream_id"] = json!("x");
    visitor.transact(&[], &[other]).ok();
    assert_eq!(changed(&alice, &mut since), Value::Null);
    assert_eq!(devices(&alice, user), first);
    assert_eq!(asked(&far), (0, 1));
    let metrics = near.http.text("/metrics");
    for (kind, count) in [("m.device_list_update", 3), ("m.signing_key_update", 1)] {
        let name = "parlour_federation_received_edus_total";
        let counted = format!(r#"{name}{{kind="{kind}",outcome="refused"}} {count}"#);
        assert!(metrics.contains(&counted), "{metrics}");
    }
}

fn visitor_version() -> &'static parlour_event::RoomVersion {
    parlour_event::RoomVersion::parse("11").unwrap()
}

// Checklist 5.14, 12.6
#[test]
fn what_is_missed_is_asked_for_until_it_is_known() {
    let mut near = Server::start_federated(&[]);
    let (far, said) = far();
    let alice = near.user("alice");
    let (user, room, origin) = {
        let visitor = Visitor::new(&near, &alice, &far.origin, "11");
        (visitor.user.clone(), visitor.room.clone(), visitor.origin.clone())
    };
    let user = user.as_str();
    let one = device(user, "ONE", "k");
    said.lock().unwrap().devices.insert("ONE".to_owned(), one.clone());
    assert_eq!(devices(&alice, user), json!({ "ONE": one }));
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let visit = |near: &Server, alice: &User, edus: &[Value]| {
        let (room, origin, version) = (room.clone(), origin.clone(), visitor_version());
        let visitor = Visitor { near, host: alice, room, version, origin, user: user.to_owned() };
        visitor.transact(&[], edus).ok();
    };
    // The server says that there is more, and gives no answer: what was known is not known any more.
    said.lock().unwrap().is_down = true;
    visit(&near, &alice, &[update(user, 20, &[19], "TWO", None)]);
    await_that("it is asked", || asked(&far).0 > 0);
    let failed = query(&alice, user);
    assert!(failed["failures"][far.name()].is_object(), "{}", failed.body);
    assert_eq!(failed["device_keys"], Value::Null);
    assert_eq!(changed(&alice, &mut since), Value::Null);
    near.restart();
    let alice = near.again(&alice);
    let before = asked(&far).0;
    await_that("it is asked again", || asked(&far).0 > before);
    assert_eq!(changed(&alice, &mut since), Value::Null);
    {
        let mut said = said.lock().unwrap();
        said.is_down = false;
        said.stream_id = 21;
        said.devices.insert("TWO".to_owned(), device(user, "TWO", "k"));
    }
    // It contacts this server.
    visit(&near, &alice, &[]);
    await_change(&alice, &mut since, user);
    let before = asked(&far);
    let second = json!({ "ONE": one, "TWO": device(user, "TWO", "k") });
    assert_eq!(devices(&alice, user), second);
    assert_eq!(asked(&far), before);

    // A flood of changes that nobody can make sense of does not become one of requests.
    said.lock().unwrap().stream_id = 500;
    for hundred in 0..4 {
        let edus: Vec<_> = (0..100)
            .map(|n| update(user, 101 + n + hundred * 100, &[50], "TWO", Some(&one)))
            .map(|mut edu| {
                edu["content"]["keys"] = device(user, "TWO", "k");
                edu
            })
            .collect();
        visit(&near, &alice, &edus);
    }
    said.lock().unwrap().devices.remove("ONE");
    said.lock().unwrap().stream_id = 501;
    visit(&near, &alice, &[update(user, 501, &[400], "ONE", None)]);
    await_change(&alice, &mut since, user);
    assert_eq!(devices(&alice, user), json!({ "TWO": device(user, "TWO", "k") }));
    assert!(asked(&far).0 < before.0 + 10, "{:?}", asked(&far));
}

// Checklist 5.7
#[test]
fn who_shares_no_room_any_more_is_forgotten() {
    let near = Server::start_federated(&[]);
    let (far, said) = far();
    let [alice, bob] = ["alice", "bob"].map(|name| near.user(name));
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let user = visitor.user.as_str();
    let key = |n: u32| device(user, "ONE", &format!("k{n}"));
    let say = |n: u32| drop(said.lock().unwrap().devices.insert("ONE".to_owned(), key(n)));
    say(1);
    assert_eq!(devices(&alice, user), json!({ "ONE": key(1) }));
    // Away and back: nobody has told what happened in between.
    visitor.accepted(&[visitor.member("leave")]);
    say(2);
    assert_eq!(devices(&alice, user), json!({ "ONE": key(2) }));
    say(3);
    visitor.accepted(&[visitor.member("join")]);
    assert_eq!(devices(&alice, user), json!({ "ONE": key(3) }));
    say(4);
    assert_eq!(devices(&alice, user), json!({ "ONE": key(3) }), "it is remembered");
    // Another name is no absence.
    let content = json!({ "membership": "join", "displayname": "Visitor" });
    let draft = visitor.draft("m.room.member", Some(user), content, &[&visitor.newest()]);
    visitor.accepted(&[visitor.sign(draft)]);
    assert_eq!(devices(&alice, user), json!({ "ONE": key(3) }), "it is remembered");
    // Everybody here has gone, and somebody comes back.
    bob.join(&visitor.room).ok();
    alice.leave(&visitor.room).ok();
    assert_eq!(devices(&bob, user), json!({ "ONE": key(3) }), "it is remembered");
    bob.leave(&visitor.room).ok();
    assert_eq!(devices(&bob, user), json!({ "ONE": key(4) }));
    // Whoever is put out is not followed, either.
    let second = Visitor::new(&near, &alice, &far.origin, "11");
    say(5);
    assert_eq!(devices(&alice, user), json!({ "ONE": key(5) }));
    say(6);
    let kick = path("/_matrix/client/v3/rooms/{}/kick", &[&second.room]);
    alice.http.post(&kick, &json!({ "user_id": user })).ok();
    assert_eq!(devices(&alice, user), json!({ "ONE": key(6) }));
}

#[test]
fn many_who_ask_at_once_make_one_request() {
    let near = Server::start_federated(&[]);
    let (far, said) = far();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let user = visitor.user.as_str();
    said.lock().unwrap().devices.insert("ONE".to_owned(), device(user, "ONE", "k"));
    let held = said.lock().unwrap();
    thread::scope(|scope| {
        let ask = || scope.spawn(|| devices(&alice, user));
        let waiting: Vec<_> = (0..8).map(|_| ask()).collect();
        await_that("one asks", || asked(&far).1 > 0);
        drop(held);
        for answer in waiting {
            assert_eq!(answer.join().unwrap(), json!({ "ONE": device(user, "ONE", "k") }));
        }
    });
    assert_eq!(asked(&far), (0, 1));
}

// Checklist 5.9
#[test]
fn nobody_waits_for_a_server_that_cannot_be_reached() {
    let near = Server::start_federated(&[]);
    let alice = near.user("alice");
    let (server, said) = far();
    said.lock().unwrap().is_deaf = true;
    let visitor = Visitor::new(&near, &alice, &server.origin, "11");
    alice.say(&visitor.room, "hello?").ok();
    let failed = r#"parlour_federation_transactions_total{outcome="unreachable"} 4"#;
    await_that("it was tried again and again", || near.http.text("/metrics").contains(failed));
    let answer = query(&alice, &visitor.user);
    assert!(answer["failures"][server.name()]["errcode"].is_string(), "{}", answer.body);
    let wanted = json!({ "one_time_keys": { &visitor.user: { "D": "signed_curve25519" } } });
    let answer = alice.http.post("/_matrix/client/v3/keys/claim", &wanted).ok();
    assert!(answer["failures"][server.name()]["errcode"].is_string(), "{}", answer.body);
    assert_eq!(asked(&server), (0, 0), "nobody has asked it");
    // As soon as it is heard of it is worth a question.
    said.lock().unwrap().devices.insert("D".to_owned(), device(&visitor.user, "D", "key"));
    visitor.accepted(&[visitor.message("here I am", &[&visitor.newest()])]);
    assert_eq!(devices(&alice, &visitor.user)["D"]["device_id"], "D");
}
