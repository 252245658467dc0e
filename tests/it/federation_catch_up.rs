//! A server that was away gets the newest of its rooms, and whoever sends it is killed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::common::{Ask, Server, Trouble, Troubled as _, User, deadline, path};

/// More than go with one transaction.
const ROOMS: usize = 60;

/// How much is said in each of them before the newest: together more than waits in memory for a server
/// that is away, and more than it gets one by one.
const OLD: usize = 17;

/// How long an answer of the server that was away takes to get back. What it has by then is known
/// to itself alone.
const SLOW: Trouble = Trouble::Slow(Duration::from_secs(1));

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What somebody has got in each room since a moment.
struct Heard {
    user: User,
    since: String,
    texts: BTreeMap<String, BTreeSet<String>>,
}

/// Has another server tried at once; if that is under way already, nothing more is done.
fn reset(root: &User, server: &str) {
    let at = "/_synapse/admin/v1/federation/destinations/{}/reset_connection";
    root.http.post(&path(at, &[server]), &json!({}));
}

impl Heard {
    fn from_now(user: &User) -> Self {
        let since = user.sync(Ask::initial()).ok().next_batch();
        Self { user: user.clone(), since, texts: BTreeMap::new() }
    }

    fn listen(&mut self) {
        let answer = self.user.sync(Ask::since(&self.since)).ok();
        for (room, joined) in answer["rooms"]["join"].as_object().into_iter().flatten() {
            let events = joined["timeline"]["events"].as_array().into_iter().flatten();
            let texts = events.filter_map(|event| event["content"]["body"].as_str());
            self.texts.entry(room.clone()).or_default().extend(texts.map(ToOwned::to_owned));
        }
        self.since = answer.next_batch();
    }

    #[track_caller]
    fn until(&mut self, what: &str, is_true: impl Fn(&Self) -> bool) {
        let until = deadline(PATIENCE);
        while !is_true(self) {
            assert!(!until.passed(), "{what}: never; {:?}", self.texts);
            self.listen();
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn has_heard(&self, room: &str) -> bool {
        self.texts.get(room).is_some_and(|texts| !texts.is_empty())
    }

    /// In how many rooms this was heard.
    fn count(&self, text: &str) -> usize {
        self.texts.values().filter(|texts| texts.contains(text)).count()
    }
}

// Checklist 12.5
#[test]
fn who_is_killed_while_another_catches_up_sends_it_the_rest_afterwards() {
    let mut near = Server::start_federated(&[]);
    let (far, wire) = Server::start_federated_behind_a_wire();
    let third = Server::start_federated(&[]);
    let (root, alice) = (near.admin("root"), near.user("alice"));
    let (bob, carol) = (far.user("bob"), third.user("carol"));
    let rooms: Vec<_> = (0..ROOMS).map(|_| alice.public_room()).collect();
    for (user, rooms) in [(&bob, &rooms[..]), (&carol, &rooms[..1])] {
        for room in rooms {
            let join = path("/_matrix/client/v3/join/{}?via={}", &[room, &near.name()]);
            user.http.post(&join, &json!({})).ok();
        }
    }
    let (mut bobs, mut carols) = (Heard::from_now(&bob), Heard::from_now(&carol));
    wire.cut();
    for number in 0..=OLD {
        let text = if number == OLD { "newest".to_owned() } else { number.to_string() };
        for room in &rooms {
            alice.say(room, &text).ok();
        }
    }
    // Whoever is there has it all.
    carols.until("carol hears alice", |heard| heard.count("newest") == 1);
    wire.turn(SLOW);
    reset(&root, &far.name());
    bobs.until("the newest of some rooms", |heard| heard.count("newest") > 0);
    near.kill();
    assert!(bobs.count("newest") < ROOMS, "all at once");
    // What is newest came before what was said elsewhere long before.
    let silent = rooms.iter().filter(|room| !bobs.has_heard(room)).count();
    assert!(silent > 0, "one by one: {:?}", bobs.texts);

    wire.mend();
    near.launch();
    let alice = near.again(&alice);
    bobs.until("the newest of all rooms", |heard| heard.count("newest") == ROOMS);
    for room in [&rooms[0], &rooms[ROOMS - 1]] {
        alice.say(room, "and on it goes").ok();
    }
    bobs.until("what follows", |heard| heard.count("and on it goes") == 2);
    carols.until("what follows", |heard| heard.count("and on it goes") == 1);
}
