//! Servers that lose sight of each other, and find each other again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::common::{
    Answer, Ask, Asked, Embedded, FakeServer, Server, Site, Trouble, Troubled as _, User, Visitor,
    deadline, parse, path,
};

/// How long everything may take to come to everybody after the last wire was mended.
const HEALING: Duration = Duration::from_secs(60);

/// Servers with one user each, all in one room, which the first of them has made.
struct House<S: Site> {
    servers: Vec<S>,
    wires: Vec<S::Wire>,
    users: Vec<User>,
    room: String,
}

fn join(user: &User, room: &str, via: &impl Site) -> Answer {
    let at = path("/_matrix/client/v3/join/{}?via={}", &[room, &via.name()]);
    user.http.post(&at, &json!({}))
}

impl<S: Site> House<S> {
    fn of(names: &[&str]) -> Self {
        let (servers, wires) = S::behind_wires(names.len());
        let users: Vec<_> =
            servers.iter().zip(names).map(|(server, name)| server.register(name)).collect();
        let room = users[0].public_room();
        for user in &users[1..] {
            join(user, &room, &servers[0]).ok();
        }
        let house = Self { servers, wires, users, room };
        house.await_everywhere("everybody is in", |user, room| {
            members(user, room).len() == names.len()
        });
        house
    }

    fn say(&self, who: usize, texts: &[String]) {
        for text in texts {
            self.users[who].say(&self.room, text).ok();
        }
    }

    /// Waits until something is true for every user.
    #[track_caller]
    fn await_everywhere(&self, what: &str, is_true: impl Fn(&User, &str) -> bool) {
        for user in &self.users {
            self.await_for(user, what, &is_true);
        }
    }

    #[track_caller]
    fn await_for(&self, user: &User, what: &str, is_true: impl Fn(&User, &str) -> bool) {
        let until = deadline(HEALING);
        while !is_true(user, &self.room) {
            assert!(!until.passed(), "{}: {what}: never", user.id);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until everybody has these messages and sees the same room.
    #[track_caller]
    fn agrees(&self, texts: &[String]) {
        let all: BTreeSet<_> = texts.iter().cloned().collect();
        self.await_everywhere("all messages", |user, room| seen(user, room).is_superset(&all));
        let first = state(&self.users[0], &self.room);
        self.await_everywhere("the same state", |user, room| {
            state(user, room) == state(&self.users[0], room)
        });
        assert!(!first.is_empty());
    }

    fn turn_all(&self, trouble: Trouble) {
        self.wires.iter().for_each(|wire| wire.turn(trouble));
    }

    /// How many events a message of the first user follows.
    fn prev_events(&self, text: &str) -> usize {
        let filter = json!({ "event_format": "federation" });
        let answer = self.users[0].sync(Ask::initial().filter(filter)).ok();
        let timeline = answer.timeline(&self.room);
        let event = timeline.iter().find(|event| event["content"]["body"] == text).unwrap();
        event["prev_events"].as_array().unwrap().len()
    }
}

impl House<Server> {
    fn restart(&mut self, who: usize) {
        self.servers[who].restart();
        self.users[who] = self.servers[who].again(&self.users[who]);
    }
}

/// All messages that a user finds in a room.
fn seen(user: &User, room: &str) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    let mut from = String::new();
    loop {
        let page = user.room(room, &format!("messages?dir=b&limit=100{from}")).ok();
        let bodies = page.chunk().into_iter().map(|event| event["content"]["body"].clone());
        texts.extend(bodies.filter_map(|body| body.as_str().map(ToOwned::to_owned)));
        match page["end"].as_str() {
            Some(end) => from = path("&from={}", &[end]),
            None => return texts,
        }
    }
}

fn state(user: &User, room: &str) -> BTreeMap<(String, String), String> {
    let answer = user.room(room, "state").ok();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let all = answer.body.as_array().unwrap().iter();
    all.map(|event| ((text(event, "type"), text(event, "state_key")), text(event, "event_id")))
        .collect()
}

fn members(user: &User, room: &str) -> Vec<String> {
    let answer = user.room(room, "joined_members");
    let joined = answer.body["joined"].as_object().cloned().unwrap_or_default();
    joined.into_iter().map(|(user, _)| user).collect()
}

fn numbered(who: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{who} says {number}")).collect()
}

/// After a partition everybody has everything, and the next event joins the branches.
fn partition<S: Site>() {
    let house = House::<S>::of(&["alice", "bob", "carol"]);
    let power = json!({ "users": { (house.users[1].id.as_str()): 50 }, "state_default": 50 });
    let mut levels = house.users[0].state(&house.room, "m.room.power_levels", "").ok().body;
    levels["users"][&house.users[1].id] = power["users"][&house.users[1].id].clone();
    house.users[0].set_state(&house.room, "m.room.power_levels", "", levels).ok();
    house.await_for(&house.users[1], "power", |user, room| {
        let levels = user.state(room, "m.room.power_levels", "").ok();
        levels["users"][&user.id] == 50
    });
    house.turn_all(Trouble::Cut);
    let texts = ["alice", "bob", "carol"].map(|name| numbered(name, 5));
    for (who, texts) in texts.iter().enumerate() {
        house.say(who, texts);
    }
    for (who, topic) in [(0, "from alice"), (1, "from bob")] {
        house.users[who].set_state(&house.room, "m.room.topic", "", json!({ "topic": topic })).ok();
    }
    house.turn_all(Trouble::None);
    house.agrees(&texts.concat());
    house.say(0, &["together again".to_owned()]);
    assert_eq!(house.prev_events("together again"), 3);
    house.agrees(&["together again".to_owned()]);
    house.say(0, &["as before".to_owned()]);
    assert_eq!(house.prev_events("as before"), 1);
}

// Checklist 12.2
#[test]
fn after_a_partition_everybody_has_everything_and_the_next_event_joins_the_branches() {
    partition::<Server>();
}

#[test]
fn after_a_partition_in_one_process_everybody_has_everything() {
    partition::<Embedded>();
}

#[test]
fn nothing_is_lost_when_either_side_is_killed() {
    let mut house = House::<Server>::of(&["alice", "bob"]);
    // The receiver is away.
    house.servers[1].kill();
    let missed = numbered("alice", 20);
    house.say(0, &missed);
    house.restart(1);
    house.agrees(&missed);
    // The sender is killed while much waits.
    house.wires[1].cut();
    let waiting = numbered("alice again", 20);
    house.say(0, &waiting);
    house.restart(0);
    house.wires[1].mend();
    house.agrees(&waiting);
    // Both are killed.
    house.wires[1].cut();
    let last = numbered("alice for the last time", 5);
    house.say(0, &last);
    house.restart(0);
    house.restart(1);
    house.wires[1].mend();
    house.agrees(&last);
}

/// A server in trouble holds nobody else up, and has everything when it is well again.
fn trouble<S: Site>(kinds: &[(&str, Trouble)]) {
    let house = House::<S>::of(&["alice", "bob", "carol"]);
    let mut all = Vec::new();
    for (name, trouble) in kinds {
        house.wires[2].turn(*trouble);
        let texts = numbered(name, 10);
        house.say(0, &texts);
        let expected: BTreeSet<_> = texts.iter().cloned().collect();
        house
            .await_for(&house.users[1], name, |user, room| seen(user, room).is_superset(&expected));
        assert!(seen(&house.users[2], &house.room).is_disjoint(&expected), "{name}");
        all.extend(texts);
    }
    house.wires[2].turn(Trouble::None);
    house.agrees(&all);
}

const SLOW: Trouble = Trouble::Slow(Duration::from_secs(10));

#[test]
fn a_server_that_is_slow_or_speaks_rubbish_holds_nobody_else_up() {
    trouble::<Server>(&[("slow", SLOW), ("noisy", Trouble::Noisy), ("cut", Trouble::Cut)]);
}

#[test]
fn a_server_of_this_process_that_is_in_trouble_holds_nobody_else_up() {
    let refusing = ("refusing", Trouble::Refusing);
    trouble::<Embedded>(&[
        ("slow", SLOW),
        refusing,
        ("noisy", Trouble::Noisy),
        ("cut", Trouble::Cut),
    ]);
}

#[test]
fn who_is_kicked_from_elsewhere_hears_of_it() {
    let house = House::<Server>::of(&["alice", "bob"]);
    let since = house.users[1].sync(Ask::initial()).ok().next_batch();
    let body = json!({ "user_id": house.users[1].id, "reason": "go" });
    house.users[0].membership(&house.room, "kick", body).ok();
    house.users[1].sync_until(&since, |answer| !answer["rooms"]["leave"][&house.room].is_null());
    house.users[1].say(&house.room, "still here?").refused(403, "M_FORBIDDEN");
}

// Checklist 9.6, 9.7
#[test]
fn typing_and_reading_are_seen_elsewhere() {
    let house = House::<Server>::of(&["alice", "bob"]);
    let (alice, bob) = (&house.users[0], &house.users[1]);
    let message = bob.say(&house.room, "hello").event_id();
    house.agrees(&["hello".to_owned()]);
    let since = bob.sync(Ask::initial()).ok().next_batch();
    let typing = path("/_matrix/client/v3/rooms/{}/typing/{}", &[&house.room, &alice.id]);
    alice.http.put(&typing, &json!({ "typing": true, "timeout": 30_000 })).ok();
    let told = |answer: &Answer, kind: &str| -> Option<Value> {
        let mut events = answer.ephemeral(&house.room).into_iter();
        events.rfind(|event| event["type"] == kind)
    };
    bob.sync_until(&since, |answer| {
        told(answer, "m.typing")
            .is_some_and(|event| event["content"]["user_ids"] == json!([alice.id]))
    });
    alice.http.put(&typing, &json!({ "typing": false })).ok();
    let receipt = path("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", &[&house.room, &message]);
    alice.http.post(&receipt, &json!({})).ok();
    bob.sync_until(&since, |answer| {
        told(answer, "m.receipt")
            .is_some_and(|event| !event["content"][&message]["m.read"][&alice.id].is_null())
    });
}

// Checklist 9.8
#[test]
fn presence_is_told_where_it_is_wanted() {
    let on = ("PARLOUR_PRESENCE__ENABLED", "true");
    let near = Server::start_federated(&[on]);
    let silent = Server::start_federated(&[on, ("PARLOUR_FEDERATION__SEND_PRESENCE", "false")]);
    let far = Server::start_federated(&[on]);
    let (alice, quiet, bob) = (near.user("alice"), silent.user("quiet"), far.user("bob"));
    let room = alice.public_room();
    join(&quiet, &room, &near).ok();
    join(&bob, &room, &near).ok();
    let since = bob.sync(Ask::initial()).ok().next_batch();
    let say = |user: &User, text: &str| {
        let at = path("/_matrix/client/v3/presence/{}/status", &[&user.id]);
        user.http.put(&at, &json!({ "presence": "online", "status_msg": text })).ok();
        user.sync(Ask::initial()).ok();
    };
    say(&quiet, "nobody elsewhere sees this");
    say(&alice, "here I am");
    let senders = RefCell::new(BTreeSet::new());
    bob.sync_until(&since, |answer| {
        let events = answer["presence"]["events"].as_array().cloned().unwrap_or_default();
        senders.borrow_mut().extend(events.iter().map(|event| event["sender"].to_string()));
        events.iter().any(|event| event["content"]["status_msg"] == "here I am")
    });
    let senders = senders.into_inner();
    assert!(!senders.iter().any(|sender| sender.contains("quiet")), "{senders:?}");
}

/// The events of a room from a token back to another one, oldest first.
fn between(user: &User, room: &str, from: &str, to: &str) -> Vec<String> {
    let (mut ids, mut from) = (Vec::new(), from.to_owned());
    loop {
        let what = path("messages?dir=b&limit=4&from={}&to={}", &[&from, to]);
        let page = user.room(room, &what).ok();
        ids.extend(ids_of(&page.chunk()));
        match page["end"].as_str() {
            Some(end) => from = end.to_owned(),
            None => break,
        }
    }
    ids.reverse();
    ids
}

fn ids_of(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

// Checklist 4.2, 4.13, 4.14
#[test]
fn what_a_sync_leaves_out_of_branches_is_between_its_tokens() {
    const BRANCHES: usize = 4;
    let near = Server::start_federated(&[]);
    let far = FakeServer::start(|_| |_: &Asked| None);
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let start = alice.sync(Ask::initial()).ok().next_batch();
    let filter = json!({ "room": { "timeline": { "limit": 5 } } });
    let (mut since, mut arrived, mut told) = (start.clone(), Vec::new(), Vec::new());
    let mut heads = vec![visitor.newest(); BRANCHES];
    for round in 0..6 {
        // Branches of the same depth come one after another, a piece at a time.
        for (branch, head) in heads.iter_mut().enumerate() {
            let pieces: Vec<_> = (0..3)
                .map(|number| {
                    let mut event = visitor.draft("m.room.message", None, json!({}), &[head]);
                    let text = format!("{branch}: {round} {number}");
                    let content = json!({ "msgtype": "m.text", "body": text });
                    let depth = 1_000_000 + 3 * round + number;
                    event.extend(parse(&json!({ "depth": depth, "content": content })));
                    let event = visitor.sign(event);
                    *head = visitor.id(&event);
                    arrived.push(head.clone());
                    event
                })
                .collect();
            visitor.accepted(&pieces);
            if (round + branch) % 3 == 0 {
                let answer = alice.sync(Ask::since(&since).filter(filter.clone())).ok();
                let timeline = &answer["rooms"]["join"][&visitor.room]["timeline"];
                if timeline["limited"] == true {
                    let before = timeline["prev_batch"].as_str().unwrap();
                    told.extend(between(&alice, &visitor.room, before, &since));
                }
                told.extend(ids_of(&answer.timeline(&visitor.room)));
                since = answer.next_batch();
            }
        }
    }
    let rest =
        between(&alice, &visitor.room, &alice.sync(Ask::initial()).ok().next_batch(), &since);
    told.extend(rest);
    assert_eq!(told, arrived);
    let now = alice.sync(Ask::since(&since)).ok().next_batch();
    assert_eq!(between(&alice, &visitor.room, &now, &start), arrived);
}
