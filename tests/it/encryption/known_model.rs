//! Whose keys have changed, with users of another server among them, against a simple model.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    QUERY,
    device_lists::{Model, news},
    publish,
};
use crate::common::{Answer, Ask, Asked, FakeServer, Random, Server, User, Visitor};

/// The first of them never leaves a room, so that it sees what visitors have to name.
const LOCAL: usize = 3;
const USERS: usize = 5;
const ROOMS: usize = 3;

/// How often each user's keys have changed, as the other server knows it.
type Keys = Arc<Mutex<Vec<u32>>>;

fn device(user: &str, version: u32) -> Value {
    json!({ "user_id": user, "device_id": "D", "algorithms": [], "signatures": {},
        "keys": { "ed25519:D": format!("k{version}") } })
}

/// The version of the keys of `@u{n}:server`.
fn version(keys: &Keys, user: &str) -> u32 {
    let number = user[2..].split_once(':').unwrap().0.parse::<usize>().unwrap();
    keys.lock().unwrap()[number]
}

fn answer(keys: &Keys, asked: &Asked) -> Option<(u16, Vec<u8>)> {
    let body = if asked.is("v1/user/devices/") {
        let user = asked.part(6);
        let version = version(keys, &user);
        let devices = [json!({ "device_id": "D", "keys": device(&user, version) })];
        json!({ "user_id": user, "stream_id": version, "devices": devices })
    } else if asked.is("v1/user/keys/query") {
        let mut found = json!({ "device_keys": {} });
        for user in asked.body["device_keys"].as_object()?.keys() {
            found["device_keys"][user] = json!({ "D": device(user, version(keys, user)) });
        }
        found
    } else if asked.is("v1/send/") {
        json!({ "pdus": {} })
    } else {
        return None;
    };
    Some((200, body.to_string().into_bytes()))
}

struct World {
    server: Server,
    far: FakeServer,
    keys: Keys,
    users: Vec<User>,
    rooms: Vec<String>,
    model: Model,
}

impl World {
    fn new() -> Self {
        let keys = Keys::new(Mutex::new(vec![0; USERS]));
        let said = keys.clone();
        let far = FakeServer::start(|_| move |asked: &Asked| answer(&said, asked));
        let server = Server::start_federated(&[]);
        let users: Vec<_> = (0..LOCAL).map(|n| server.user(&format!("u{n}"))).collect();
        let rooms = (0..ROOMS).map(|_| users[0].public_room()).collect();
        let model = Model { rooms: vec![BTreeSet::from([0]); ROOMS], keys: vec![0; USERS] };
        Self { server, far, keys, users, rooms, model }
    }

    fn id(&self, user: usize) -> String {
        match self.users.get(user) {
            Some(user) => user.id.clone(),
            None => format!("@u{user}:{}", self.far.name()),
        }
    }

    fn visitor(&self, user: usize, room: usize) -> Visitor<'_> {
        Visitor {
            near: &self.server,
            host: &self.users[0],
            room: self.rooms[room].clone(),
            version: parlour_event::RoomVersion::parse("12").unwrap(),
            origin: self.far.origin.clone(),
            user: self.id(user),
        }
    }

    /// Somebody comes into a room, or leaves it.
    fn move_about(&mut self, user: usize, room: usize) {
        let leaves = self.model.rooms[room].contains(&user);
        match (self.users.get(user), leaves) {
            (Some(user), true) => drop(user.leave(&self.rooms[room]).ok()),
            (Some(user), false) => drop(user.join(&self.rooms[room]).ok()),
            (None, _) => {
                let visitor = self.visitor(user, room);
                visitor.accepted(&[visitor.member(if leaves { "leave" } else { "join" })]);
            }
        }
        match leaves {
            true => self.model.rooms[room].remove(&user),
            false => self.model.rooms[room].insert(user),
        };
    }

    /// Somebody's keys change; of the changes elsewhere some are lost on the way.
    fn change_keys(&mut self, user: usize, lost: u32) {
        if let Some(local) = self.users.get(user) {
            self.model.keys[user] += 1;
            return publish(local, u8::try_from(self.model.keys[user] % 200).unwrap());
        }
        let before = self.keys.lock().unwrap()[user] + lost;
        let now = before + 1;
        self.keys.lock().unwrap()[user] = now;
        if self.model.shared(user).is_empty() {
            // Nobody is told.
            return;
        }
        self.model.keys[user] += 1;
        let id = self.id(user);
        let content = json!({ "user_id": id, "device_id": "D", "stream_id": now,
            "prev_id": [before], "keys": device(&id, now) });
        let edu = json!({ "edu_type": "m.device_list_update", "content": content });
        let host = &self.users[0];
        let since = host.sync(Ask::initial()).ok().next_batch();
        self.visitor(user, 0).transact(&[], &[edu]).ok();
        let changed = |answer: &Answer| answer["device_lists"]["changed"] == json!([id]);
        host.sync_until(&since, changed);
    }

    /// Whoever asks for somebody's keys gets the newest.
    fn check_keys(&self, by: usize, user: usize) {
        let id = self.id(user);
        let wanted = json!({ "device_keys": { &id: [] } });
        let answer = self.users[by].http.post(QUERY, &wanted).ok();
        let version = self.keys.lock().unwrap()[user];
        assert_eq!(answer["device_keys"][&id]["D"], device(&id, version), "{}", answer.body);
    }
}

/// Whether what was told is what the model says. Of users elsewhere there may be more: whose keys
/// have changed while no room was shared, that is seen when somebody asks for them.
fn is_right(told: &str, expected: &str) -> bool {
    let parts = |text: &str| -> (BTreeSet<String>, String) {
        let (changed, left) = text.split_once(" / ").unwrap();
        (changed.split_whitespace().map(str::to_owned).collect(), left.to_owned())
    };
    let ((told, told_left), (expected, left)) = (parts(told), parts(expected));
    let is_elsewhere = |name: &&String| name[1..].parse::<usize>().unwrap() >= LOCAL;
    told_left == left
        && told.is_superset(&expected)
        && told.difference(&expected).all(|name| is_elsewhere(&name))
}

// Checklist 5.7, 5.14
#[test]
fn device_lists_with_users_elsewhere_are_those_of_a_simple_model() {
    let mut random = Random::from_environment();
    let mut world = World::new();
    let known = |user: &User| user.sync(Ask::initial()).ok().next_batch();
    let mut known: Vec<_> =
        world.users.iter().map(|user| (known(user), world.model.clone())).collect();
    let mut below = |n: usize| usize::try_from(random.below(n as u64)).unwrap();
    for step in 0..250 {
        match below(12) {
            0..=4 => {
                let user = 1 + below(USERS - 1);
                world.move_about(user, below(ROOMS));
            }
            5..=6 => {
                let user = below(USERS);
                world.change_keys(user, u32::try_from(below(3)).unwrap() / 2);
            }
            7..=8 => world.check_keys(below(LOCAL), LOCAL + below(USERS - LOCAL)),
            _ => {
                let user = below(LOCAL);
                let (since, then) = &mut known[user];
                let told = news(&world.users[user], since);
                let expected = world.model.news(then, user);
                assert!(is_right(&told, &expected), "u{user} in step {step}: {told}, {expected}");
                *then = world.model.clone();
            }
        }
        if step == 140 {
            world.server.restart();
            world.users = world.users.iter().map(|user| world.server.again(user)).collect();
        }
    }
}
