//! Whose keys have changed, and who is not followed any more.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::publish;
use crate::common::{Ask, Server, User, path};

fn names(list: &Value) -> BTreeSet<String> {
    let all = list.as_array().into_iter().flatten();
    let name = |id: &Value| Some(id.as_str()?.strip_prefix('@')?.split_once(':')?.0.to_owned());
    all.map(|id| name(id).unwrap()).collect()
}

/// What is new, as `changed / left`; the token moves on. `keys/changes` has to say the same.
pub(super) fn news(user: &User, since: &mut String) -> String {
    let answer = user.sync(Ask::since(since)).ok();
    let next = answer.next_batch();
    let lists = &answer["device_lists"];
    let told = (names(&lists["changed"]), names(&lists["left"]));
    let at = path("/_matrix/client/v3/keys/changes?from={}&to={}", &[since, &next]);
    let listed = user.http.get(&at).ok();
    assert_eq!((names(&listed["changed"]), names(&listed["left"])), told, "{}", listed.body);
    *since = next;
    let join = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" ");
    format!("{} / {}", join(told.0), join(told.1))
}

// Checklist 5.7, 5.8
#[test]
fn changes_of_keys_are_told_to_those_who_share_a_room() {
    let mut server = Server::start();
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|name| server.user(name));
    let first = bob.sync(Ask::initial()).ok();
    assert!(first["device_lists"].is_null(), "{}", first.body);
    let mut since = first.next_batch();
    let mut alices = alice.sync(Ask::initial()).ok().next_batch();
    publish(&alice, 1);
    assert_eq!(news(&bob, &mut since), " / ");
    assert_eq!(news(&alice, &mut alices), "alice / ");
    let start = since.clone();
    let [one, two] = [alice.public_room(), alice.public_room()];
    bob.join(&one).ok();
    assert_eq!(news(&bob, &mut since), "alice / ");
    assert_eq!(news(&alice, &mut alices), "bob / ");
    // Another room is no news.
    bob.join(&two).ok();
    assert_eq!(news(&bob, &mut since), " / ");
    publish(&alice, 1);
    assert_eq!(news(&bob, &mut since), " / ");
    publish(&alice, 2);
    let before = since.clone();
    assert_eq!(news(&bob, &mut since), "alice / ");
    let between = since.clone();
    // A name is told, too; and messages are not.
    let rename = path("/_matrix/client/v3/devices/{}", &[&alice.device]);
    alice.http.put(&rename, &json!({ "display_name": "phone" })).ok();
    alice.say(&one, "hello");
    assert_eq!(news(&bob, &mut since), "alice / ");
    // Older tokens.
    let listed = |from: &str, to: &str| {
        let at = path("/_matrix/client/v3/keys/changes?from={}&to={}", &[from, to]);
        names(&bob.http.get(&at).ok()["changed"]).into_iter().collect::<Vec<_>>().concat()
    };
    assert_eq!(listed(&before, &between), "alice");
    assert_eq!(listed(&start, &since), "alice");
    assert_eq!(listed(&since, &since), "");
    server.restart();
    let [alice, bob, eve] = [&alice, &bob, &eve].map(|user| server.again(user));
    assert_eq!(news(&bob, &mut since), " / ");
    // The last shared room ends.
    bob.leave(&one).ok();
    assert_eq!(news(&bob, &mut since), " / ");
    publish(&alice, 3);
    bob.leave(&two).ok();
    assert_eq!(news(&bob, &mut since), " / alice");
    publish(&alice, 4);
    assert_eq!(news(&bob, &mut since), " / ");
    let mut eves = eve.sync(Ask::initial()).ok().next_batch();
    eve.join(&one).ok();
    bob.join(&one).ok();
    assert_eq!(news(&bob, &mut since), "alice eve / ");
    assert_eq!(news(&eve, &mut eves), "alice bob / ");
    // Away and back, with new keys, between two syncs.
    alice.leave(&one).ok();
    publish(&alice, 5);
    alice.join(&one).ok();
    assert_eq!(news(&bob, &mut since), "alice / ");
    alice.leave(&one).ok();
    alice.join(&one).ok();
    assert_eq!(news(&bob, &mut since), " / ");
    // A device that ends.
    alice.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    assert_eq!(news(&bob, &mut since), "alice / ");
    // A new one without keys is nobody's business.
    server.login("alice");
    assert_eq!(news(&bob, &mut since), " / ");
    for (from, to) in [("", ""), ("x", "y"), (&*since, "s2_99999999_0_0")] {
        let at = path("/_matrix/client/v3/keys/changes?from={}&to={}", &[from, to]);
        bob.http.get(&at).refused(400, "M_INVALID_PARAM");
    }
    bob.http.get("/_matrix/client/v3/keys/changes").refused(400, "M_MISSING_PARAM");
    let at = "/_matrix/client/v3/keys/changes?from=a&to=b";
    server.http.get(at).refused(401, "M_MISSING_TOKEN");
}

#[test]
fn a_change_of_keys_wakes_those_who_wait() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let since = bob.sync(Ask::initial()).ok().next_batch();
    let waiting = bob.clone();
    let parked = std::thread::spawn(move || waiting.sync(Ask::since(&since).wait(30_000)).ok());
    server.await_parked(1);
    publish(&alice, 1);
    let answer = parked.join().unwrap();
    assert_eq!(answer["device_lists"]["changed"], json!([alice.id]));
}

/// A straightforward model: who shares rooms with whom, and how often each one's keys changed.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) rooms: Vec<BTreeSet<usize>>,
    pub(super) keys: Vec<u32>,
}

impl Model {
    pub(super) fn shared(&self, user: usize) -> BTreeSet<usize> {
        let rooms = self.rooms.iter().filter(|room| room.contains(&user));
        rooms.flatten().copied().filter(|other| *other != user).collect()
    }

    pub(super) fn news(&self, then: &Self, user: usize) -> String {
        let (now, before) = (self.shared(user), then.shared(user));
        let others = now.iter().copied().chain([user]);
        let is_news = |other: &usize| {
            self.keys[*other] != then.keys[*other] || !(before.contains(other) || *other == user)
        };
        let changed: Vec<_> = others.filter(is_news).map(|n| format!("u{n}")).collect();
        let changed: BTreeSet<_> = changed.into_iter().collect();
        let left: Vec<_> = before.difference(&now).map(|n| format!("u{n}")).collect();
        let changed: Vec<_> = changed.into_iter().collect();
        format!("{} / {}", changed.join(" "), left.join(" "))
    }
}

// Checklist 5.7
#[test]
fn device_lists_are_those_of_a_simple_model() {
    const USERS: usize = 5;
    const ROOMS: usize = 4;
    let mut random = crate::common::Random::from_environment();
    let mut server = Server::start();
    let mut users: Vec<_> = (0..USERS).map(|n| server.user(&format!("u{n}"))).collect();
    let rooms: Vec<_> = (0..ROOMS).map(|n| users[n].public_room()).collect();
    let mut model =
        Model { rooms: (0..ROOMS).map(|n| BTreeSet::from([n])).collect(), keys: vec![0; USERS] };
    let mut known: Vec<_> = users
        .iter()
        .map(|user| (user.sync(Ask::initial()).ok().next_batch(), model.clone()))
        .collect();
    let mut below = |n: usize| usize::try_from(random.below(n as u64)).unwrap();
    for step in 0..200 {
        let (user, room) = (below(USERS), below(ROOMS));
        match below(10) {
            0..=4 => match model.rooms[room].remove(&user) {
                true => drop(users[user].leave(&rooms[room]).ok()),
                false => {
                    users[user].join(&rooms[room]).ok();
                    model.rooms[room].insert(user);
                }
            },
            5..=6 => {
                model.keys[user] += 1;
                let seed = model.keys[user] % 200;
                publish(&users[user], u8::try_from(seed).unwrap());
            }
            _ => {
                let (since, then) = &mut known[user];
                let told = news(&users[user], since);
                assert_eq!(told, model.news(then, user), "u{user} in step {step}");
                *then = model.clone();
            }
        }
        if step == 120 {
            server.restart();
            users = users.iter().map(|user| server.again(user)).collect();
        }
    }
}
