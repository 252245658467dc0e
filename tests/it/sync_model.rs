//! Clients that sync through a random story must end with what the server has: each event once,
//! in order, and the same state, whatever got lost or was restarted on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Random, Server, User, path};

/// How long the story is.
const STEPS: usize = 220;

type State = BTreeMap<(String, String), String>;

/// A client that believes what `/sync` tells it.
#[derive(Default)]
struct Client {
    since: Option<String>,
    /// Asks for the state at the end of timelines.
    state_after: bool,
    timelines: HashMap<String, Vec<String>>,
    states: HashMap<String, State>,
}

/// What really happened.
struct Story {
    server: Server,
    users: Vec<User>,
    rooms: Vec<String>,
    joined: Vec<BTreeSet<usize>>,
    /// Room, event, and who was in the room then.
    sent: Vec<(usize, String, BTreeSet<usize>)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn apply(state: &mut State, events: &[Value]) {
    for event in events.iter().filter(|event| event["state_key"].is_string()) {
        let place = (text(&event["type"]), text(&event["state_key"]));
        state.insert(place, text(&event["event_id"]));
    }
}

impl Client {
    fn sync(&mut self, user: &User, random: &mut Random) {
        let ask = self.ask(random);
        if random.below(4) == 0 {
            // This answer never arrives.
            user.sync(ask.clone()).ok();
        }
        let answer = user.sync(ask).ok();
        for section in ["join", "leave"] {
            for room in answer["rooms"][section].as_object().into_iter().flatten() {
                self.take(user, room.0, room.1, section == "join");
            }
        }
        self.since = Some(answer.next_batch());
    }

    fn ask(&self, random: &mut Random) -> Ask {
        let limit = if random.below(2) == 0 { 1 + random.below(4) } else { 50 };
        let filter = json!({ "room": { "timeline": { "limit": limit } } });
        let ask = self.since.as_deref().map_or_else(Ask::initial, Ask::since).filter(filter);
        if self.state_after { ask.with("use_state_after=true") } else { ask }
    }

    fn take(&mut self, user: &User, room: &str, about: &Value, is_joined: bool) {
        let timeline = &about["timeline"];
        let events = list(&timeline["events"]);
        let mut new: Vec<_> = events.iter().map(|event| text(&event["event_id"])).collect();
        if timeline["limited"] == true {
            let mut gap = self.gap(user, room, &text(&timeline["prev_batch"]));
            gap.append(&mut new);
            new = gap;
        }
        let seen = self.timelines.entry(room.to_owned()).or_default();
        for event in new {
            assert!(!seen.contains(&event), "{} got {event} twice", user.id);
            seen.push(event);
        }
        if !is_joined {
            self.states.remove(room);
            return;
        }
        let state = self.states.entry(room.to_owned()).or_default();
        if self.state_after {
            assert!(about["state_after"].is_object(), "{about}");
            apply(state, &list(&about["state_after"]["events"]));
        } else {
            apply(state, &list(&about["state"]["events"]));
            apply(state, &events);
        }
    }

    /// What is between a limited timeline and the newest event that is known.
    fn gap(&self, user: &User, room: &str, from: &str) -> Vec<String> {
        let known = self.timelines.get(room);
        let is_known = |event: &String| known.is_some_and(|known| known.contains(event));
        let (mut from, mut found) = (from.to_owned(), Vec::new());
        'pages: loop {
            let page = user.room(room, &path("messages?dir=b&limit=20&from={}", &[&from])).ok();
            for event in page.chunk() {
                let event = text(&event["event_id"]);
                if is_known(&event) {
                    break 'pages;
                }
                found.push(event);
            }
            match page["end"].as_str() {
                Some(end) => from = end.to_owned(),
                None => break,
            }
        }
        found.reverse();
        found
    }
}

impl Story {
    fn begin() -> Self {
        let server = Server::start();
        let users: Vec<_> = (0..4).map(|n| server.user(&format!("user{n}"))).collect();
        let rooms: Vec<_> = (0..3).map(|_| users[0].public_room()).collect();
        let joined = vec![BTreeSet::from([0]); rooms.len()];
        Self { server, users, rooms, joined, sent: Vec::new() }
    }

    /// Something happens in some room.
    fn step(&mut self, random: &mut Random, number: usize) {
        let room = random.below(self.rooms.len() as u64) as usize;
        let user = random.below(self.users.len() as u64) as usize;
        let (id, who) = (self.rooms[room].clone(), &self.users[user]);
        let is_joined = self.joined[room].contains(&user);
        match random.below(12) {
            0 if user != 0 && is_joined => {
                who.leave(&id).ok();
                self.joined[room].remove(&user);
            }
            1 if user != 0 && is_joined => {
                let body = json!({ "user_id": who.id });
                self.users[0].membership(&id, "kick", body).ok();
                self.joined[room].remove(&user);
            }
            2 => {
                let topic = json!({ "topic": number.to_string() });
                let event = self.users[0].set_state(&id, "m.room.topic", "", topic).event_id();
                self.note(room, event);
            }
            _ if is_joined => {
                let event = who.say(&id, &number.to_string()).event_id();
                self.note(room, event);
            }
            _ => {
                who.join(&id).ok();
                self.joined[room].insert(user);
            }
        }
    }

    fn note(&mut self, room: usize, event: String) {
        self.sent.push((room, event, self.joined[room].clone()));
    }

    fn restart(&mut self) {
        self.server.restart();
        self.users = self.users.iter().map(|user| self.server.again(user)).collect();
    }

    fn check(&self, user: usize, client: &Client) {
        let id = &self.users[user].id;
        for (room, room_id) in self.rooms.iter().enumerate() {
            let seen = client.timelines.get(room_id).cloned().unwrap_or_default();
            let place = |event: &String| seen.iter().position(|seen| seen == event);
            let sent = self.sent.iter().filter(|(at, ..)| *at == room);
            let mut last = None;
            for (_, event, who) in sent {
                let found = place(event);
                assert!(found.is_some() || !who.contains(&user), "{id} has missed {event}");
                assert!(found.is_none() || found > last, "{id} got {event} out of order");
                last = last.max(found);
            }
            let has = client.states.get(room_id);
            assert_eq!(has.is_some(), self.joined[room].contains(&user), "{id} in {room_id}");
            if let Some(has) = has {
                let mut truth = State::new();
                let all: Answer = self.users[user].room(room_id, "state").ok();
                apply(&mut truth, &list(&all.body));
                assert_eq!(*has, truth, "the state that {id} has");
            }
        }
    }
}

#[test]
fn clients_end_with_what_the_server_has() {
    let mut random = Random::from_environment();
    let mut story = Story::begin();
    let mut clients: Vec<_> = (0..story.users.len())
        .map(|n| Client { state_after: n % 2 == 1, ..Client::default() })
        .collect();
    for number in 0..STEPS {
        story.step(&mut random, number);
        if random.below(3) == 0 {
            let who = random.below(clients.len() as u64) as usize;
            clients[who].sync(&story.users[who], &mut random);
        }
        if number % 80 == 79 {
            story.restart();
        }
    }
    for (user, client) in clients.iter_mut().enumerate() {
        client.sync(&story.users[user], &mut random);
        story.check(user, client);
    }
}
